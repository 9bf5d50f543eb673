"""Which taps of learner and guide an objective compares, as pairs of maps.

A tap is named, or chosen by its place, see `models.taps`.
"""

from collections.abc import Mapping, Sequence

from jaxkd.catalog import UnknownNameError, suggestion
from jaxkd.models.taps import LAST, PRE, STEM, as_maps, resolve, stages
from jaxkd.types import Array, Outputs

Maps = tuple[Array, Array]  # the learner's and the guide's, [B, H, W, C]


def pair(
  learner: Outputs, guide: Outputs | None, stage: str, guide_stage: str = ''
) -> Maps:
  """Returns a tap of each of two networks, as maps.

  Args:
    learner: the learner's outputs.
    guide: the guide's outputs.
    stage: the learner's tap, or 'last', or 'last_pre'.
    guide_stage: the guide's, likewise; '' is that of the same name.

  Returns:
    The learner's map and the guide's, float32, each in a size of its own.

  Raises:
    KeyError: a network has no such tap.
    ValueError: the guide is `labels`; tokens that do not form a grid.
  """
  (maps,) = pairs(learner, guide, (stage,), (guide_stage or stage,))
  return maps


def pairs(
  learner: Outputs,
  guide: Outputs | None,
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  *,
  suffix: str = '',
  stem: bool = False,
  from_last: bool = False,
) -> list[Maps]:
  """Returns several taps of each of two networks, as pairs of maps.

  Args:
    learner: the learner's outputs.
    guide: the guide's outputs.
    stages: the learner's taps; () takes its stages, as far as both networks
      have them. A single name is one tap.
    guide_stages: the guide's, of the same number; () are those of the same
      names, or the guide's stages.
    suffix: '_pre' takes stages before their activation. Taps that are named are
      taken as they are.
    stem: takes the stem before the stages, where both networks have one.
    from_last: stages are paired from the deepest one, not from the first, so
      that of networks of different depth the shallow stages are left out.

  Returns:
    A pair of maps, as of `pair`, for each stage, the deepest last.

  Raises:
    KeyError: a network has no such tap, or no stages.
    ValueError: the guide is `labels`; different numbers of taps; a tap that is
      not a string; tokens that do not form a grid.
  """
  guide = network(guide)
  names = named(
    learner,
    guide,
    stages,
    guide_stages,
    suffix=suffix,
    stem=stem,
    from_last=from_last,
  )
  return maps(learner, guide, names)


def maps(
  learner: Outputs, guide: Outputs, names: Sequence[tuple[str, str]]
) -> list[Maps]:
  """Returns pairs of taps, whose names `named` returns, as pairs of maps."""
  return [as_maps(learner.taps[own], guide.taps[other]) for own, other in names]


def network(guide: Outputs | None) -> Outputs:
  """Returns the guide's outputs, if it is a network.

  Raises:
    ValueError: the guide is `labels`.
  """
  if guide is None:
    raise ValueError(
      "features are compared with a network's, and the guide is 'labels': let a"
      ' network be the guide, or take an objective of labels'
    )
  return guide


def named(
  learner: Outputs,
  guide: Outputs,
  stages: Sequence[str] = (),
  guide_stages: Sequence[str] = (),
  *,
  suffix: str = '',
  guide_suffix: str | None = None,
  stem: bool = False,
  from_last: bool = False,
) -> list[tuple[str, str]]:
  """Returns (learner's tap, guide's tap) of each pair, the deepest last.

  Args:
    learner: see `pairs`, as the others.
    guide: the guide's outputs.
    stages: the learner's taps.
    guide_stages: the guide's.
    suffix: of stages that are not named.
    guide_suffix: of the guide's; None is the same.
    stem: takes the stem too.
    from_last: pairs stages from the deepest one.

  Raises:
    KeyError: a network has no such tap, or no stages.
    ValueError: different numbers of taps; a tap that is not a string.
  """
  stages = _names('learner', stages)
  guide_stages = _names('guide', guide_stages)
  if not stages:
    own, others = _stages('learner', learner), _stages('guide', guide)
    if stem and STEM in learner.taps and STEM in guide.taps:
      own, others = [STEM, *own], [STEM, *others]
    depth = min(len(own), len(others))
    part = slice(-depth, None) if from_last else slice(depth)
    stages = [name + suffix for name in own[part]]
    end = suffix if guide_suffix is None else guide_suffix
    guide_stages = guide_stages or [name + end for name in others[part]]
  guide_stages = guide_stages or stages
  if len(stages) != len(guide_stages):
    raise ValueError(
      f"{len(stages)} taps of the learner's, {', '.join(stages)}, and"
      f" {len(guide_stages)} of the guide's, {', '.join(guide_stages)}: name as"
      ' many of each'
    )
  both = {'learner': learner, 'guide': guide}
  return [
    (_resolve('learner', both, own), _resolve('guide', both, other))
    for own, other in zip(stages, guide_stages, strict=True)
  ]


def _names(owner: str, setting: object) -> tuple[str, ...]:
  """Returns the names of one network's taps, from a setting."""
  names = (setting,) if isinstance(setting, str) else setting
  if not isinstance(names, list | tuple) or not all(
    isinstance(name, str) for name in names
  ):
    raise ValueError(
      f"the {owner}'s taps must be names, like 'stage2' or ('stage1', 'last'),"
      f' got {setting!r}'
    )
  return tuple(names)


def check_channels(objective: str, pairs: Sequence[Maps], remedy: str) -> None:
  """Refuses pairs of maps with different numbers of channels.

  Raises:
    ValueError: with the channels of all maps, and the remedy.
  """
  own, others = (
    [x.shape[-1] for x in maps] for maps in zip(*pairs, strict=True)
  )
  if own != others:
    raise ValueError(
      f'{objective} compares channels one by one, and the numbers of channels'
      f" differ: the learner's maps have {own}, the guide's {others}. Either"
      f' {remedy}'
    )


def _stages(network: str, outputs: Outputs) -> list[str]:
  """Returns the names of a network's stages, the deepest last."""
  names = stages(outputs)
  if not names:
    raise UnknownNameError(
      f'the {network} has no stages, only {", ".join(sorted(outputs.taps))}:'
      ' name a tap of each network'
    )
  return names


def _resolve(owner: str, networks: Mapping[str, Outputs], tap: str) -> str:
  """Returns the name of one of two networks' taps, by its name or place."""
  if tap in (LAST, LAST + PRE):
    _stages(owner, networks[owner])
  name = resolve(networks[owner], tap)
  if name is None:
    others = '; '.join(
      f"the {network}'s are {', '.join(sorted(outputs.taps))}"
      for network, outputs in networks.items()
      if network != owner
    )
    names = [*networks[owner].taps, LAST]
    raise UnknownNameError(
      f'the {owner} has no tap {tap!r}. {suggestion(tap, names)}; {others}.'
      ' Name one of each: the settings stage and guide_stage, or stages and'
      ' guide_stages'
    )
  return name
