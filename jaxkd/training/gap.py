"""How far learners are behind their guides on the test split."""

from collections.abc import Mapping

from jaxkd.graph import Graph


def gaps(
  graph: Graph, results: Mapping[str, Mapping[str, float]], headline: str
) -> dict[str, float]:
  """Returns the gap of each network that other networks teach.

  It is the headline of the guide less that of the learner: above 0 where the
  guide is ahead. In the unit of the results, it is what `plots.gap` draws.

  Args:
    graph: of a phase.
    results: network -> its metrics on the test split.
    headline: the metric, see `Problem`.

  Returns:
    'gap/LEARNER', to the best of its guides; and if there are several,
    'gap/LEARNER/GUIDE' of each. The members of a `Fusion` are guides.
  """
  by_name = {}
  for learner in graph.trained:
    guides = [
      guide
      for transfer in graph.transfers
      if transfer.learner == learner
      for guide in transfer.guides
    ]
    differences = {
      guide: results[guide][headline] - results[learner][headline]
      for guide in dict.fromkeys(guides)
    }
    if differences:
      by_name[f'gap/{learner}'] = max(differences.values())
    if len(differences) > 1:
      by_name |= {f'gap/{learner}/{k}': x for k, x in differences.items()}
  return by_name
