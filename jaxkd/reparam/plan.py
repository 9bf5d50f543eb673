"""Plans: how the arrays of a narrow network correspond to those of a wide one.

The wide network contains copies of the narrow network's channels, replica after
replica: an axis of C channels becomes [x, x, ...] of C' channels, and channel
c' is a copy of channel c' mod C. Along an axis of input channels, the weights
are also divided by the number of copies of each channel, so that sums over
input channels do not change.

A plan describes this for every leaf. It is derived from the shapes of the two
networks and from rules that distinguish input axes, output axes and other axes
of a leaf.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from jaxkd import tree


class Axis(NamedTuple):
  """The correspondence of one axis of a narrow and a wide array.

  narrow: sizes of the pieces that the axis is divided into, whose channels are
    copied separately; usually there is one piece.
  wide: sizes of the pieces in the wide array.
  is_input: whether it is an axis of input channels.
  """

  narrow: tuple[int, ...]
  wide: tuple[int, ...]
  is_input: bool = False

  @property
  def grows(self) -> bool:
    """Whether the wide axis is larger than the narrow one."""
    return self.narrow != self.wide

  @property
  def uniform(self) -> bool:
    """Whether all channels have the same number of copies."""
    return all(w % n == 0 for n, w in zip(self.narrow, self.wide, strict=True))

  @property
  def sources(self) -> np.ndarray:
    """The narrow index of each wide index, [C']."""
    starts = np.cumsum([0, *self.narrow[:-1]])
    pieces = zip(starts, self.narrow, self.wide, strict=True)
    return np.concatenate([s + np.arange(w) % n for s, n, w in pieces])

  @property
  def first_copies(self) -> np.ndarray:
    """The wide index of the first copy of each narrow index, [C]."""
    starts = np.cumsum([0, *self.wide[:-1]])
    pieces = zip(starts, self.narrow, strict=True)
    return np.concatenate([s + np.arange(n) for s, n in pieces])

  @property
  def copies(self) -> np.ndarray:
    """The number of copies of each narrow index, float32 [C]."""
    counts = np.bincount(self.sources, minlength=sum(self.narrow))
    return counts.astype(np.float32)


class Leaf(NamedTuple):
  """The correspondence of a narrow and a wide array.

  axes: of the array.
  scale: the stored wide array over the one that the wide network is applied
    with; not 1 only for the scaling 'official'.
  """

  axes: tuple[Axis, ...]
  scale: float = 1.0

  @property
  def grows(self) -> bool:
    """Whether the wide array is larger than the narrow one."""
    return any(axis.grows for axis in self.axes)


class Plan(NamedTuple):
  """The correspondence of a narrow and a wide network, by the names of leaves.

  params: of the parameters.
  stats: of the BatchNorm statistics.
  """

  params: dict[str, Leaf]
  stats: dict[str, Leaf]


class Rule(NamedTuple):
  """The kinds of the axes of leaves with certain names.

  pattern: a regular expression; the rule applies to leaves whose names match.
  axes: a word for each axis: 'out' for output channels, 'in' for input
    channels, '-' for other axes, which have the same size in both networks.
  pieces: (axis, sizes) of narrow axes that consist of pieces with separate
    replicas: the input axes of layers after a concatenation, or after a
    flattening of [positions, channels]. (A wide network that concatenates,
    flattens and shuffles within each replica needs no pieces.)
  """

  pattern: str
  axes: str
  pieces: tuple[tuple[int, tuple[int, ...]], ...] = ()


class Pieces(NamedTuple):
  """The pieces that the channels of a layer consist of, in a narrow network.

  For networks that put channels side by side, for instance zeros around a map:
  a network states them by a method `channel_pieces() -> tuple[Pieces, ...]`.
  In a wider network of its kind, all pieces are larger in the same proportion.

  layer: a regular expression; the first one that matches the end of a layer's
    name applies.
  inputs: sizes of the pieces of its input channels; () for one piece.
  outputs: sizes of the pieces of its output channels; () for one piece.
  """

  layer: str
  inputs: tuple[int, ...] = ()
  outputs: tuple[int, ...] = ()


# Leaves of branches whose axis 'out' are channels of the layer's input.
OF_INPUTS = ('branch_mix', 'branch_depth', 'identity')

# The first rule that matches a leaf's name and number of axes applies.
RULES = (
  Rule(r'(^|/)(query|key|value)/kernel$', 'in out -'),  # [D, heads, d]
  Rule(r'(^|/)(query|key|value)/bias$', 'out -'),
  Rule(r'(^|/)qkv/kernel$', 'in - out -'),  # [D, 3, heads, d]
  Rule(r'(^|/)qkv/bias$', '- out -'),
  Rule(r'(^|/)out/kernel$', 'in - out'),  # [heads, d, D]
  # Linear [C, D]. There is no rule for a fused qkv [C, 3 D], because the order
  # of its channels depends on the network.
  Rule(r'(^|(?<!qkv)/)kernel$', 'in out'),
  Rule(r'(^|/)kernel$', '- in out'),  # one-dimensional convolution
  # [k, k, C / groups, D]. The size of a group does not change, so a depthwise
  # or grouped kernel is copied and not divided.
  Rule(r'(^|/)kernel$', '- - in out'),
  # Normalisation, convolutions and linear layers, PReLU, LayerScale.
  Rule(r'(^|/)(scale|bias|negative_slope|gamma)$', 'out'),
  Rule(r'(^|/)(mean|var)$', 'out'),  # BatchNorm
  Rule(r'(^|/)(class_token|distillation_token|cls)$', '- - out'),
  Rule(r'(^|/)(position_embedding|pos_embedding)$', '- - out'),
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
  """Returns the plan for a narrow student in a wide teacher, from shapes only.

  Args:
    student: the narrow network.
    teacher: the wide network, of the same architecture. The numbers of its
      attention heads and of the groups of its grouped convolutions and
      GroupNorms are larger in proportion to its channels.
    input_shape: [H, W, C] of one image.
    rules: for leaves with other names, put your own rules before `RULES`.
    scaling: the parameters that `expand` returns. 'copy': those that the wide
      network is applied with. 'official': the first layer and all biases of
      linear layers and dense convolutions divided by r, the classifier
      multiplied by r, as in the published code, whose activations are smaller
      by a factor r. This is the same function, but an optimizer's updates have
      another effect. The wide network is then applied with the result of
      `unscale`.

  Raises:
    ValueError: no rule for a leaf, leaves that only one of the networks has, or
      an axis that cannot grow to its wide size; the message names the leaves.
  """
  if scaling not in SCALINGS:
    raise ValueError(f'scaling must be one of {SCALINGS}, got {scaling!r}')
  narrow, wide = _inspect(student, input_shape), _inspect(teacher, input_shape)
  plans: dict[str, dict[str, Leaf]] = {'params': {}, 'batch_stats': {}}
  for collection, plan in plans.items():
    small, large = narrow.leaves[collection], wide.leaves[collection]
    unmatched = sorted(small.keys() ^ large.keys())
    if unmatched:
      raise ValueError(
        'the two networks must have the same architecture; only one of them has'
        f' {", ".join(unmatched)}'
      )
    for name, leaf in small.items():
      pieces = _pieces(name, narrow.pieces)
      axes = _axes(name, leaf.shape, large[name].shape, rules, pieces)
      plan[name] = Leaf(axes)
  _check_norms(plans['params'], narrow, wide)
  _check_groups(plans['params'], narrow)
  if scaling == 'official':
    plans['params'] = _official(plans['params'], narrow.grouped)
  return Plan(plans['params'], plans['batch_stats'])


class _Structure(NamedTuple):
  """The properties of a network that a plan depends on.

  leaves: shapes by name, for 'params' and 'batch_stats'.
  grouped: names of grouped convolutions.
  norms: names of norms over channels -> number of groups of channels.
  pieces: of layers, by their full names.
  """

  leaves: dict[str, dict[str, Any]]
  grouped: set[str]
  norms: dict[str, int]
  pieces: list[Pieces]


def _inspect(net: nn.Module, input_shape: tuple[int, int, int]) -> _Structure:
  """Returns the structure of a network, by tracing it."""
  structure = _Structure({}, set(), {}, [])

  def intercept(method, args, kwargs, context):
    module, name = context.module, '/'.join(context.module.path)
    for attribute in ('groups', 'feature_group_count'):
      if getattr(module, attribute, 1) > 1:
        structure.grouped.add(name)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
      structure.norms[name] = 1
    if isinstance(module, nn.GroupNorm):
      groups = module.num_groups or args[0].shape[-1] // module.group_size
      structure.norms[name] = groups
    if context.method_name == '__call__' and hasattr(module, 'channel_pieces'):
      prefix = f'^{re.escape(name)}/' if name else '^'
      structure.pieces.extend(
        x._replace(layer=f'{prefix}({x.layer})$')
        for x in module.channel_pieces()
      )
    return method(*args, **kwargs)

  with nn.intercept_methods(intercept):
    shapes = tree.shapes(net, input_shape)
  for collection in ('params', 'batch_stats'):
    structure.leaves[collection] = tree.leaves(shapes[collection])
  return structure


def _pieces(name: str, pieces: Iterable[Pieces]) -> dict[str, tuple[int, ...]]:
  """Returns the sizes of the pieces of a leaf's axes, by their words."""
  layer, _, last = name.rpartition('/')
  own = next((x for x in pieces if re.search(x.layer, layer)), Pieces(''))
  outputs = own.inputs if last in OF_INPUTS else own.outputs
  sizes = {'in': own.inputs, 'out': outputs}
  return {word: x for word, x in sizes.items() if x}


def _axes(
  name: str,
  narrow: tuple[int, ...],
  wide: tuple[int, ...],
  rules: tuple[Rule, ...],
  by_word: Mapping[str, tuple[int, ...]],
) -> tuple[Axis, ...]:
  """Returns the axes of a leaf, by the first rule that matches.

  Args:
    name: of the leaf.
    narrow: its shape in the narrow network.
    wide: its shape in the wide network.
    rules: in the order of precedence.
    by_word: sizes of the pieces of axes, where the rule states none.
  """
  if narrow == wide == ():
    return ()
  for rule in rules:
    words = rule.axes.split()
    if len(words) == len(narrow) == len(wide) and re.search(rule.pattern, name):
      break
  else:
    raise ValueError(
      f'no rule matches {name} {narrow}, which grows to {wide}: put a Rule for'
      f' it before RULES, for example Rule({name.split("/")[-1]!r},'
      f" '{' '.join(['-'] * (len(narrow) - 1) + ['out'])}')"
    )
  pieces = dict(rule.pieces)
  axes = []
  for i, (word, n, w) in enumerate(zip(words, narrow, wide, strict=True)):
    if w < n or (word == '-' and w != n):
      raise ValueError(
        f'axis {i} of {name} cannot grow from {n} to {w}: narrow shape'
        f' {narrow}, wide shape {wide}, axes {rule.axes!r}'
      )
    sizes = pieces.get(i) or by_word.get(word) or (n,)
    if sum(sizes) != n:
      raise ValueError(
        f'the pieces {sizes} of axis {i} of {name} are {sum(sizes)} channels,'
        f' but the narrow network has {n}'
      )
    larger = tuple(round(size * w / n) for size in sizes)
    if sum(larger) != w:
      raise ValueError(
        f'axis {i} of {name} grows from {n} to {w}, which cannot be divided'
        f' between its pieces {sizes}: use a whole ratio'
      )
    axes.append(Axis(sizes, larger, is_input=word == 'in'))
  return tuple(axes)


def _check_norms(
  plan: Mapping[str, Leaf], narrow: _Structure, wide: _Structure
) -> None:
  """Checks that norms over channels do not change.

  A leaf 'scale' without a running mean belongs to such a norm, too.
  """
  for name, leaf in plan.items():
    parent, _, last = name.rpartition('/')
    over_batch = f'{parent}/mean'.lstrip('/') in narrow.leaves['batch_stats']
    if parent not in narrow.norms and (last != 'scale' or over_batch):
      continue
    for axis in leaf.axes:
      small, large = sum(axis.narrow), sum(axis.wide)
      if not axis.uniform:
        raise ValueError(
          f'{name} grows from {small} to {large}, but its layer normalises over'
          ' channels (LayerNorm, GroupNorm, RMSNorm), so all channels need the'
          ' same number of copies: use a whole ratio'
        )
      few, many = (net.norms.get(parent, 1) for net in (narrow, wide))
      if few > 1 and many * small != few * large:
        raise ValueError(
          f'{parent} has {few} groups for {small} channels and {many} groups'
          f' for {large} channels: the wide network needs'
          f' {few * large // small} groups'
        )


def _check_groups(plan: Mapping[str, Leaf], narrow: _Structure) -> None:
  """Checks that the groups of grouped convolutions do not grow."""
  for name, leaf in plan.items():
    parent, _, last = name.rpartition('/')
    if parent in narrow.grouped and last == 'kernel' and leaf.axes[-2].grows:
      raise ValueError(
        f'the groups of {parent} grow from {sum(leaf.axes[-2].narrow)} to'
        f' {sum(leaf.axes[-2].wide)} channels: the wide network needs more'
        ' groups instead'
      )


def _official(plan: dict[str, Leaf], grouped: set[str]) -> dict[str, Leaf]:
  """Returns the plan with the scales of the published code."""

  def ratio(axes: Iterator[Axis]) -> float:
    ratios = {axis.wide[0] / axis.narrow[0] for axis in axes if axis.grows}
    return max(ratios, default=1.0)

  def scale(name: str, leaf: Leaf) -> float:
    parent, _, last = name.rpartition('/')
    outputs = ratio(axis for axis in leaf.axes if not axis.is_input)
    if parent in grouped:
      return 1.0
    if last == 'bias':
      dense = f'{parent}/kernel'.lstrip('/') in plan
      return 1 / outputs if dense else 1.0
    if not any(axis.is_input for axis in leaf.axes):
      return 1.0
    return ratio(axis for axis in leaf.axes if axis.is_input) / outputs

  return {
    name: Leaf(leaf.axes, scale(name, leaf)) for name, leaf in plan.items()
  }
