"""What an objective compares of two networks: taps, chosen and made into maps.

A tap is chosen by its name, or by its place: 'last' is a network's deepest
stage, whatever its number. Where a stage ends without an activation, as in
MobileNetV2 and in transformers, there is no tap 'stage1_pre', and 'stage1' is
what that name stands for.

A map [B, H, W, C] is what it is. The tokens [B, N, D] of a transformer become
the map of its patches, without the class token; a vector [B, D] is a map of one
pixel.
"""

import re
from collections.abc import Mapping, Sequence

from jaxkd.catalog import UnknownNameError, suggestion
from jaxkd.losses import sizes
from jaxkd.types import Array, Outputs

STEM, LAST, PRE = 'stem', 'last', '_pre'

Maps = tuple[Array, Array]  # the learner's and the guide's, [B, H, W, C]


def pair(
  learner: Outputs, guide: Outputs | None, stage: str, guide_stage: str = ''
) -> Maps:
  """Returns a tap of each of two networks, as maps.

  Args:
    learner: what the learner says.
    guide: what the guide says.
    stage: the learner's tap, or 'last', or 'last_pre'.
    guide_stage: the guide's, likewise; '' is that of the same name.

  Returns:
    The learner's map and the guide's, float32: in a size of their own each.

  Raises:
    KeyError: a network has no such tap.
    ValueError: the guide is `labels`; tokens that are no grid.
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
    learner: what the learner says.
    guide: what the guide says.
    stages: the learner's taps; () takes its stages, as far as both networks
      have them. A single name is one tap.
    guide_stages: the guide's, of the same number; () are those of the same
      names, or the guide's stages.
    suffix: '_pre' takes stages before their activation. Taps that are named are
      taken as they are.
    stem: takes the stem before the stages, where both networks have one.
    from_last: stages are counted from the deepest one, not from the first, so
      that of networks of different depth the shallow stages stay alone.

  Returns:
    A pair of maps, as of `pair`, for each stage, the deepest last.

  Raises:
    KeyError: a network has no such tap, or no stages.
    ValueError: the guide is `labels`; so many taps of the one network and so
      many of the other; what is no name among them; tokens that are no grid.
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
  """Returns taps by their names, see `named`, as pairs of maps."""
  taps = [(learner.taps[own], guide.taps[other]) for own, other in names]
  return [
    (sizes.as_map(x, _aspect(y)), sizes.as_map(y, _aspect(x))) for x, y in taps
  ]


def network(guide: Outputs | None) -> Outputs:
  """Returns what a guide says that is a network.

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
  """Returns the names of the taps that are compared, the deepest last.

  Args:
    learner: see `pairs`, as the others.
    guide: what the guide says.
    stages: the learner's taps.
    guide_stages: the guide's.
    suffix: of stages that are not named.
    guide_suffix: of the guide's; None is the same.
    stem: takes the stem too.
    from_last: counts stages from the deepest one.

  Raises:
    KeyError: a network has no such tap, or no stages.
    ValueError: so many taps of the one network and so many of the other; what
      is no name among them.
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
    (_find('learner', both, own), _find('guide', both, other))
    for own, other in zip(stages, guide_stages, strict=True)
  ]


def _names(owner: str, given: object) -> tuple[str, ...]:
  """Returns the names of one network's taps, as somebody has given them."""
  names = (given,) if isinstance(given, str) else given
  if not isinstance(names, list | tuple) or not all(
    isinstance(name, str) for name in names
  ):
    raise ValueError(
      f"the {owner}'s taps are given as {given!r}: expected names, like"
      " 'stage2' or ('stage1', 'last')"
    )
  return tuple(names)


def check_channels(objective: str, pairs: Sequence[Maps], remedy: str) -> None:
  """Refuses pairs of maps of which some have other numbers of channels.

  Raises:
    ValueError: with the channels of all maps, and the remedy.
  """
  own, others = (
    [x.shape[-1] for x in maps] for maps in zip(*pairs, strict=True)
  )
  if own != others:
    raise ValueError(
      f'{objective} compares channels with as many of the other network: the'
      f" learner's maps have {own}, the guide's {others}. Either {remedy}"
    )


def norms(outputs: Outputs) -> dict[str, dict[str, Array]]:
  """Returns, by tap, the BatchNorm in front of it; see `models.norms`.

  Returns:
    'scale' and 'bias', [C] each.
  """
  found: dict[str, dict[str, Array]] = {}
  for name, x in outputs.taps.items():
    tap, colon, part = name.partition(':')
    if colon:
      found.setdefault(tap, {})[part] = x
  return found


def _known(outputs: Outputs) -> list[str]:
  """Returns the names of taps to choose from."""
  return sorted(name for name in outputs.taps if ':' not in name)


def _stages(network: str, outputs: Outputs) -> list[str]:
  """Returns the names of a network's stages, the deepest last."""
  stages = [name for name in outputs.taps if re.fullmatch(r'stage\d+', name)]
  if not stages:
    known = ', '.join(_known(outputs))
    raise UnknownNameError(
      f'the {network} has no stages, only {known}: name a tap of each network'
    )
  return sorted(stages, key=lambda name: int(name.removeprefix('stage')))


def _find(owner: str, networks: Mapping[str, Outputs], wanted: str) -> str:
  """Returns the name of one of two networks' taps, by its name or place."""
  taps, name = _known(networks[owner]), wanted
  if name in (LAST, LAST + PRE):
    name = name.replace(LAST, _stages(owner, networks[owner])[-1])
  name = name if name in taps else name.removesuffix(PRE)
  if name not in taps:
    others = '; '.join(
      f"the {network}'s are {', '.join(_known(outputs))}"
      for network, outputs in networks.items()
      if network != owner
    )
    raise UnknownNameError(
      f'the {owner} has no tap {wanted!r}. {suggestion(wanted, [*taps, LAST])};'
      f' {others}. Name one of each: the settings stage and guide_stage, or'
      ' stages and guide_stages'
    )
  return name


def _aspect(x: Array) -> tuple[int, int]:
  """Returns a map's height and width; what is no map counts as square."""
  return (x.shape[1], x.shape[2]) if x.ndim == 4 else (1, 1)
