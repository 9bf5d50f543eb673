"""Chains: networks trained one after another, each taught by those before."""

import dataclasses
from collections.abc import Callable, Mapping

from jaxkd.graph import Frozen, Graph, Learner, Network, Phase
from jaxkd.methods import networks, weights
from jaxkd.methods.arrows import Spec, arrows, labelled
from jaxkd.methods.weights import GuideDropout


def chain(
  links: Mapping[str, Learner],
  guides_of: Callable[[tuple[str, ...]], tuple[str, ...]],
  spec: Spec,
  label_weight: weights.Spec,
  guide_weight: weights.Spec,
  dropped: int = 0,
) -> tuple[Phase, ...]:
  """Returns a phase for each link that has no checkpoint.

  Args:
    links: by name, in the order of their training; the last is the student.
    guides_of: the names before a link, the first of which is 'teacher' -> those
      that guide it.
    spec: from each guide, see `arrows.parts`.
    label_weight: of the cross-entropy against labels.
    guide_weight: of each guide.
    dropped: how many of its guides a link does without on each batch, drawn at
      random; one at least stays.
  """
  before: dict[str, Frozen] = {'teacher': Frozen()}
  phases = []
  for name, link in links.items():
    guides = guides_of(tuple(before))
    drop = min(dropped, len(guides) - 1)
    transfers = [labelled(name, label_weight)]
    for place, guide in enumerate(guides):
      chance = GuideDropout(place, len(guides), drop) if drop else None
      transfers += [
        dataclasses.replace(arrow, chance=chance)
        for arrow in arrows(guide, name, spec, guide_weight)
      ]
    taking: dict[str, Network] = {guide: before[guide] for guide in guides}
    graph = Graph({**taking, name: link}, tuple(transfers))
    if not networks.is_given(link):
      phases.append(Phase('distil' if name == 'student' else name, graph))
    before[name] = networks.frozen(link)
  return tuple(phases)


def previous(before: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the last of the networks before: it alone is the guide."""
  return before[-1:]


def everyone(before: tuple[str, ...]) -> tuple[str, ...]:
  """Returns all networks before."""
  return before
