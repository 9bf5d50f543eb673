"""Where a narrow network's arrays sit in those of a wide one.

The wide network holds copies of the narrow one's channels, replica after
replica: an axis of C channels becomes [x, x, ...] of C' channels, channel c' a
copy of c' mod C. An axis that reads channels is also divided by how often each
of them is there, so that every sum stays what it was.

A plan says this of every leaf. It follows from the shapes of the two networks
and from rules that say which axes of a leaf make channels and which read them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from jaxkd import tree


class Axis(NamedTuple):
  """How one axis of a narrow array sits in the wide array.

  narrow: sizes of the pieces that the axis is made of, each copied by itself;
    mostly one piece.
  wide: their sizes in the wide array.
  reads: the axis reads channels that another leaf makes.
  """

  narrow: tuple[int, ...]
  wide: tuple[int, ...]
  reads: bool = False

  @property
  def grows(self) -> bool:
    """Is the wide axis another one?"""
    return self.narrow != self.wide

  @property
  def even(self) -> bool:
    """Is every channel there equally often?"""
    return all(w % n == 0 for n, w in zip(self.narrow, self.wide, strict=True))

  @property
  def sources(self) -> np.ndarray:
    """The narrow index that each wide one is a copy of, [C']."""
    starts = np.cumsum([0, *self.narrow[:-1]])
    pieces = zip(starts, self.narrow, self.wide, strict=True)
    return np.concatenate([s + np.arange(w) % n for s, n, w in pieces])

  @property
  def firsts(self) -> np.ndarray:
    """The wide index of each narrow one's first copy, [C]."""
    starts = np.cumsum([0, *self.wide[:-1]])
    pieces = zip(starts, self.narrow, strict=True)
    return np.concatenate([s + np.arange(n) for s, n in pieces])

  @property
  def copies(self) -> np.ndarray:
    """How often each narrow index is there, float32 [C]."""
    counts = np.bincount(self.sources, minlength=sum(self.narrow))
    return counts.astype(np.float32)


class Leaf(NamedTuple):
  """How one narrow array sits in a wide one.

  axes: of the array.
  scale: the wide array is stored as this multiple of what the wide network
    computes with; 1 unless the plan's scaling says otherwise.
  """

  axes: tuple[Axis, ...]
  scale: float = 1.0

  @property
  def grows(self) -> bool:
    """Is the wide array another one?"""
    return any(axis.grows for axis in self.axes)


class Plan(NamedTuple):
  """How a narrow network sits in a wide one; by the names of leaves.

  params: of the parameters.
  stats: of the BatchNorm statistics.
  """

  params: dict[str, Leaf]
  stats: dict[str, Leaf]


class Rule(NamedTuple):
  """What the axes of some leaves are.

  pattern: a regular expression; the rule is for leaves whose names contain it.
  axes: a word for each axis: 'out' makes channels, 'in' reads them, '-' is no
    axis of channels and has the same size in both networks.
  pieces: (axis, sizes) of narrow axes that are made of pieces, each with
    replicas of its own: what reads a concatenation, or channels flattened
    behind positions. (A wide network that concatenates, flattens and shuffles
    replica by replica needs no pieces.)
  """

  pattern: str
  axes: str
  pieces: tuple[tuple[int, tuple[int, ...]], ...] = ()


# The first one that fits a leaf's name and number of axes is taken.
RULES = (
  Rule(r'(^|/)(query|key|value)/kernel$', 'in out -'),  # [D, heads, d]
  Rule(r'(^|/)(query|key|value)/bias$', 'out -'),
  Rule(r'(^|/)qkv/kernel$', 'in - out -'),  # [D, 3, heads, d]
  Rule(r'(^|/)qkv/bias$', '- out -'),
  Rule(r'(^|/)out/kernel$', 'in - out'),  # [heads, d, D]
  # Linear [C, D]; of a fused one, only its network knows what is next to what.
  Rule(r'(^|(?<!qkv)/)kernel$', 'in out'),
  Rule(r'(^|/)kernel$', '- in out'),  # convolution along a line
  # [k, k, C / groups, D]. A group keeps its size, so a depthwise or grouped
  # kernel is copied and not divided.
  Rule(r'(^|/)kernel$', '- - in out'),
  # Of normalisations, of convolutions and linear layers, of PReLU, LayerScale.
  Rule(r'(^|/)(scale|bias|negative_slope|gamma)$', 'out'),
  Rule(r'(^|/)(mean|var)$', 'out'),  # of BatchNorm
  Rule(r'(^|/)(class_token|position_embedding|cls|pos_embedding)$', '- - out'),
  # Branches of convolutions: jaxkd.reparam.branches.
  Rule(r'(^|/)branch_(pool|frequency|mix)$', 'in out'),
  Rule(r'(^|/)branch_(mixed|square)$', '- - in out'),
  Rule(r'(^|/)branch_depth$', '- - out -'),
  Rule(r'(^|/)branch_point$', 'in - out'),
  Rule(r'(^|/)branch_scale$', '- out'),
  Rule(r'(^|/)identity$', 'in out'),
  Rule(r'(^|/)frequency$', '- - out'),
)
SCALINGS = ('copy', 'official')


def make_plan(
  student: nn.Module,
  teacher: nn.Module,
  input_shape: tuple[int, int, int],
  *,
  rules: tuple[Rule, ...] = RULES,
  scaling: str = 'copy',
) -> Plan:
  """Returns how the student sits in the teacher; nothing is computed.

  Args:
    student: the narrow network.
    teacher: the wide one, of the same architecture. Its heads and the groups of
      its grouped convolutions and of GroupNorm have grown with its channels.
    input_shape: [H, W, C] of one image.
    rules: for leaves of other names, put your own before `RULES`.
    scaling: what `expand` stores. 'copy': the wide network's own parameters.
      'official': the first layer and all biases of linear layers and dense
      convolutions divided by r, the classifier times r, as in the published
      code, whose activations are 1 / r of these: the same function, but other
      steps of an optimizer. The wide network then reads its parameters through
      `stored`.

  Raises:
    ValueError: a leaf that no rule covers, leaves that only one of the networks
      has, an axis that cannot grow so; the message names the leaves.
  """
  if scaling not in SCALINGS:
    raise ValueError(f'scaling is one of {SCALINGS}, got {scaling!r}')
  narrow, wide = _look(student, input_shape), _look(teacher, input_shape)
  plans: dict[str, dict[str, Leaf]] = {'params': {}, 'batch_stats': {}}
  for part, found in plans.items():
    small, large = narrow.leaves[part], wide.leaves[part]
    alone = sorted(small.keys() ^ large.keys())
    if alone:
      raise ValueError(
        'the two networks are not of one architecture; only one of them has '
        + ', '.join(alone)
      )
    for name, leaf in small.items():
      axes = _axes(name, leaf.shape, large[name].shape, rules)
      found[name] = Leaf(axes)
  _check_norms(plans['params'], narrow, wide)
  _check_groups(plans['params'], narrow)
  if scaling == 'official':
    plans['params'] = _official(plans['params'], narrow.grouped)
  return Plan(plans['params'], plans['batch_stats'])


class _Seen(NamedTuple):
  """What a network is made of, as far as a plan has to know.

  leaves: shapes by name, of 'params' and of 'batch_stats'.
  grouped: names of grouped convolutions.
  norms: names of norms over channels, and how many groups they make of them.
  """

  leaves: dict[str, dict[str, Any]]
  grouped: set[str]
  norms: dict[str, int]


def _look(net: nn.Module, input_shape: tuple[int, int, int]) -> _Seen:
  """Returns what the network is made of; nothing is computed."""
  seen = _Seen({}, set(), {})

  def note(method, args, kwargs, context):
    module, name = context.module, '/'.join(context.module.path)
    for attribute in ('groups', 'feature_group_count'):
      if getattr(module, attribute, 1) > 1:
        seen.grouped.add(name)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
      seen.norms[name] = 1
    if isinstance(module, nn.GroupNorm):
      channels = args[0].shape[-1]
      seen.norms[name] = module.num_groups or channels // module.group_size
    return method(*args, **kwargs)

  with nn.intercept_methods(note):
    shapes = tree.shapes(net, input_shape)
  for part in ('params', 'batch_stats'):
    seen.leaves[part] = tree.leaves(shapes[part])
  return seen


def _axes(
  name: str,
  narrow: tuple[int, ...],
  wide: tuple[int, ...],
  rules: tuple[Rule, ...],
) -> tuple[Axis, ...]:
  """Returns how a leaf's axes sit, by the first rule that fits."""
  if narrow == wide == ():
    return ()
  for rule in rules:
    words = rule.axes.split()
    if len(words) == len(narrow) == len(wide) and re.search(rule.pattern, name):
      break
  else:
    raise ValueError(
      f'no rule says how {name} {narrow} grows to {wide}; put a Rule for it'
      f' before RULES, for example Rule({name.split("/")[-1]!r},'
      f" '{' '.join(['-'] * (len(narrow) - 1) + ['out'])}')"
    )
  pieces = dict(rule.pieces)
  axes = []
  for i, (word, n, w) in enumerate(zip(words, narrow, wide, strict=True)):
    if w < n or (word == '-' and w != n):
      raise ValueError(
        f'axis {i} of {name} cannot grow from {n} to {w}: narrow {narrow},'
        f' wide {wide}, axes {rule.axes!r}'
      )
    sizes = pieces.get(i, (n,))
    if sum(sizes) != n:
      raise ValueError(
        f'the pieces {sizes} of axis {i} of {name} are {sum(sizes)} channels,'
        f' the narrow network has {n}'
      )
    larger = tuple(round(size * w / n) for size in sizes)
    if sum(larger) != w:
      raise ValueError(
        f'axis {i} of {name} grows from {n} to {w}, which its pieces {sizes}'
        f' cannot share; use a whole ratio'
      )
    axes.append(Axis(sizes, larger, reads=word == 'in'))
  return tuple(axes)


def _check_norms(plan: Mapping[str, Leaf], narrow: _Seen, wide: _Seen) -> None:
  """Refuses ratios under which a norm over channels would change.

  A 'scale' without a running mean belongs to such a norm, too.
  """
  for name, leaf in plan.items():
    parent, _, last = name.rpartition('/')
    over_batch = f'{parent}/mean'.lstrip('/') in narrow.leaves['batch_stats']
    if parent not in narrow.norms and (last != 'scale' or over_batch):
      continue
    for axis in leaf.axes:
      small, large = sum(axis.narrow), sum(axis.wide)
      if not axis.even:
        raise ValueError(
          f'{name} grows from {small} to {large}, but its layer normalises over'
          ' channels (LayerNorm, GroupNorm, RMSNorm), so that each needs'
          ' equally many copies; use a whole ratio'
        )
      few, many = (seen.norms.get(parent, 1) for seen in (narrow, wide))
      if few > 1 and many * small != few * large:
        raise ValueError(
          f'{parent} has {few} groups of {small} channels, and {many} of'
          f' {large}; the wide network needs {few * large // small} groups'
        )


def _check_groups(plan: Mapping[str, Leaf], narrow: _Seen) -> None:
  """Refuses grouped convolutions whose groups have grown in size."""
  for name, leaf in plan.items():
    parent, _, last = name.rpartition('/')
    if parent in narrow.grouped and last == 'kernel' and leaf.axes[-2].grows:
      raise ValueError(
        f'the groups of {parent} grow from {sum(leaf.axes[-2].narrow)} to'
        f' {sum(leaf.axes[-2].wide)} channels; the wide network needs more'
        ' groups instead'
      )


def _official(plan: dict[str, Leaf], grouped: set[str]) -> dict[str, Leaf]:
  """Returns the plan with the published code's scales in it."""

  def ratio(axes: Iterator[Axis]) -> float:
    ratios = {axis.wide[0] / axis.narrow[0] for axis in axes if axis.grows}
    return max(ratios, default=1.0)

  def scale(name: str, leaf: Leaf) -> float:
    parent, _, last = name.rpartition('/')
    makes = ratio(axis for axis in leaf.axes if not axis.reads)
    if parent in grouped:
      return 1.0
    if last == 'bias':
      dense = f'{parent}/kernel'.lstrip('/') in plan
      return 1 / makes if dense else 1.0
    if not any(axis.reads for axis in leaf.axes):
      return 1.0
    return ratio(axis for axis in leaf.axes if axis.reads) / makes

  return {
    name: Leaf(leaf.axes, scale(name, leaf)) for name, leaf in plan.items()
  }
