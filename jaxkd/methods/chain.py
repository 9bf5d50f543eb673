"""Chains: networks trained one after another, each taught by those before."""

import dataclasses
from collections.abc import Callable, Mapping

from jaxkd.graph import Frozen, Graph, Learner, Network, Phase
from jaxkd.methods import network_specs, weights
from jaxkd.methods.dropout import GuideDropout
from jaxkd.methods.transfers import ObjectiveSpec, from_guide, from_labels


def chain(
  links: Mapping[str, Learner],
  guides_of: Callable[[tuple[str, ...]], tuple[str, ...]],
  objective: ObjectiveSpec,
  label_weight: weights.Spec,
  guide_weight: weights.Spec,
  dropped: int = 0,
) -> tuple[Phase, ...]:
  """Returns a phase for each link that has no checkpoint.

  Args:
    links: by name, in the order of their training; the last is the student.
    guides_of: the names before a link, the first of which is 'teacher' -> the
      names of its guides.
    objective: from each guide, see `transfers.weighted_objectives`.
    label_weight: of the cross-entropy against labels.
    guide_weight: of each guide.
    dropped: how many of its guides are left out on each batch, at random; at
      least one is kept.
  """
  before: dict[str, Frozen] = {'teacher': Frozen()}
  phases = []
  for name, link in links.items():
    guides = guides_of(tuple(before))
    left_out = min(dropped, len(guides) - 1)
    transfers = [from_labels(name, label_weight)]
    for index, guide in enumerate(guides):
      dropout = GuideDropout(index, len(guides), left_out) if left_out else None
      transfers += [
        dataclasses.replace(transfer, dropout=dropout)
        for transfer in from_guide(guide, name, objective, guide_weight)
      ]
    frozen: dict[str, Network] = {guide: before[guide] for guide in guides}
    graph = Graph({**frozen, name: link}, tuple(transfers))
    if not network_specs.is_pretrained(link):
      phases.append(Phase('distil' if name == 'student' else name, graph))
    before[name] = network_specs.frozen(link)
  return tuple(phases)


def last_before(before: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the last of the networks before: it is the only guide."""
  return before[-1:]


def all_before(before: tuple[str, ...]) -> tuple[str, ...]:
  """Returns all networks before."""
  return before
