"""Branches of a convolution: parallel kernels whose sum is one kernel.

There are six kinds, after online re-parameterisation (Hu et al., CVPR 2022,
https://arxiv.org/abs/2204.00826) as in gap preserving distillation (Guo et al.,
ICLR 2025, https://arxiv.org/abs/2410.04140). All branches are linear, so their
kernels are summed and a single convolution is computed. Each branch is scaled
by a learned vector:

  K[h, w, i, o] = sum_m scale[m, o] K_m[h, w, i, o]

Letters: k kernel size, I input and O output channels, g groups, M branches. A
convolution with branches has the arrays of `parameters` and `constants` in
addition to its 'kernel' [k, k, I / g, O] and 'bias' [O]. The constants are in
'batch_stats', which is neither trained nor decayed, so that a wider network can
contain copies of them.

Deviation: no noise is added to constants when a network is expanded.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import tree
from jaxkd.types import Array, Tree, Variables

# [M, O]; exactly the convolutions with branches have this parameter.
SCALE = 'branch_scale'
FILTERS = 8  # of the depthwise convolution, per channel

Shape = tuple[int, ...]
Kernel = Callable[[Mapping[str, Array]], Array]


class Branch(NamedTuple):
  """One kind of branch.

  scale: initial value of its scaling vector.
  shapes: (k, I / g, I, O) -> shape and fan-in of each parameter, by name.
  kernel: the convolution's arrays -> K_m [k, k, I / g, O].
  """

  scale: float
  shapes: Callable[[int, int, int, int], dict[str, tuple[Shape, int]]]
  kernel: Kernel


def _groups(x: Array, groups: int, axis: int) -> Array:
  """Splits an axis of channels into [groups, channels of a group]."""
  shape = (*x.shape[:axis], groups, -1, *x.shape[axis + 1 :])
  return x.reshape(shape)


def _pool(arrays: Mapping[str, Array]) -> Array:
  """1 x 1 convolution, then the average of each k x k window."""
  k = arrays['kernel'].shape[0]
  pointwise = arrays['branch_pool'][None, None] / k**2
  return jnp.broadcast_to(pointwise, arrays['kernel'].shape)


def _frequency(arrays: Mapping[str, Array]) -> Array:
  """1 x 1 convolution, then a fixed filter for each output channel."""
  pointwise = arrays['branch_frequency'][None, None]
  return pointwise * arrays['frequency'][:, :, None]


def _mixed(arrays: Mapping[str, Array]) -> Array:
  """1 x 1 convolution, initially the identity, then k x k."""
  kernel = arrays['branch_mixed']  # [k, k, t, O]
  mix = arrays['branch_mix'] + arrays['identity']  # [i, (g t)]
  groups = mix.shape[1] // mix.shape[0]
  mix, kernel = _groups(mix, groups, 1), _groups(kernel, groups, 3)
  return jnp.einsum('igt,hwtgo->hwigo', mix, kernel).reshape(
    arrays['kernel'].shape
  )


def _separable(arrays: Mapping[str, Array]) -> Array:
  """Depthwise k x k convolution with 8 filters a channel, then 1 x 1."""
  depth, point = arrays['branch_depth'], arrays['branch_point']
  groups = depth.shape[2] // point.shape[0]
  depth, point = _groups(depth, groups, 2), _groups(point, groups, 2)
  return jnp.einsum('hwgit,itgo->hwigo', depth, point).reshape(
    arrays['kernel'].shape
  )


BRANCHES = (
  # The convolution of the student without branches.
  Branch(0.25, lambda k, j, i, o: {}, lambda arrays: arrays['kernel']),
  Branch(0.25, lambda k, j, i, o: {'branch_pool': ((j, o), j)}, _pool),
  Branch(0.0, lambda k, j, i, o: {'branch_frequency': ((j, o), j)}, _frequency),
  Branch(
    0.5,
    lambda k, j, i, o: {
      'branch_mix': ((j, i), 0),  # initialised with zeros
      'branch_mixed': ((k, k, j, o), k * k * j),
    },
    _mixed,
  ),
  # 1 x 1 in the paper of the branches, k x k in the code of the method.
  Branch(
    0.05,
    lambda k, j, i, o: {'branch_square': ((k, k, j, o), k * k * j)},
    lambda arrays: arrays['branch_square'],
  ),
  Branch(
    0.5,
    lambda k, j, i, o: {
      'branch_depth': ((k, k, i, FILTERS), k * k),
      'branch_point': ((j, FILTERS, o), j * FILTERS),
    },
    _separable,
  ),
)


def check(branches: int) -> None:
  """Checks the number of branches.

  Raises:
    ValueError: not in 1..6.
  """
  if branches not in range(1, len(BRANCHES) + 1):
    raise ValueError(
      f'a convolution has 1 to {len(BRANCHES)} branches, got'
      f' branches={branches}'
    )


def parameters(
  branches: int, kernel: Shape, groups: int
) -> dict[str, tuple[nn.initializers.Initializer, Shape]]:
  """Returns the initialiser and shape of each parameter of the branches.

  Args:
    branches: M, at least 2.
    kernel: the kernel's shape, [k, k, I / g, O].
    groups: g.
  """
  k, _, inputs, outputs = kernel
  used = BRANCHES[:branches]
  scales = np.array([[b.scale] for b in used], np.float32)
  params: dict[str, tuple[nn.initializers.Initializer, Shape]] = {
    SCALE: (
      lambda key, shape: jnp.broadcast_to(scales, shape),
      (branches, outputs),
    )
  }
  for branch in used:
    shapes = branch.shapes(k, inputs, inputs * groups, outputs)
    for name, (shape, fan_in) in shapes.items():
      params[name] = (_kaiming_uniform(fan_in), shape)
  return params


def _kaiming_uniform(fan_in: int) -> nn.initializers.Initializer:
  """Returns U(+-sqrt(6 / fan_in)), or zeros for a fan-in of 0."""
  bound = math.sqrt(6 / fan_in) if fan_in else 0.0

  def init(key, shape):
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

  return init


def constants(branches: int, kernel: Shape, groups: int) -> dict[str, Array]:
  """Returns the constant arrays of the branches by name.

  Args:
    branches: M.
    kernel: the kernel's shape, [k, k, I / g, O].
    groups: g.

  Returns:
    For M > 2, 'frequency' [k, k, O]: a cosine along h for the first half of the
    channels and along w for the second. For M > 3, 'identity' [I / g, I]: the
    identity for each group.
  """
  k, _, inputs, outputs = kernel
  arrays = {}
  if branches > 2:
    half = outputs // 2
    channel = np.arange(outputs)
    position = np.arange(k)[:, None] + 0.5
    first = np.cos(np.pi * position * (channel + 1) / 3)
    second = np.cos(np.pi * position * (channel + 1 - half) / 3)
    in_first = channel < half
    waves = np.where(in_first, first[:, None], second[None])
    arrays['frequency'] = jnp.asarray(waves, jnp.float32)
  if branches > 3:
    arrays['identity'] = jnp.tile(jnp.eye(inputs), (1, groups))
  return arrays


def merged_kernel(arrays: Mapping[str, Array]) -> Array:
  """Returns the kernel [k, k, I / g, O] that is equivalent to all branches.

  Args:
    arrays: the 'kernel', and the parameters and constants of the branches.
  """
  scales = arrays[SCALE]
  shape = (1, 1, 1, -1)
  terms = [
    scale.reshape(shape) * branch.kernel(arrays)
    for scale, branch in zip(scales, BRANCHES, strict=False)
  ]
  return functools.reduce(jnp.add, terms)


def branched_prefixes(params: Tree) -> list[str]:
  """Returns the names of all convolutions with branches, as prefixes 'a/b/'."""
  names = tree.leaves(params)
  return [n.removesuffix(SCALE) for n in names if n.split('/')[-1] == SCALE]


def merge(variables: Variables) -> Variables:
  """Merges the branches of each convolution into one kernel.

  The second half of channel-branch reparameterisation (CBR); exact. It is
  applied after `extract`: for trained branches with inner channels, merging
  before the extraction would give another function.

  Args:
    variables: 'params' and 'batch_stats', which may be missing, of a network
      with or without branches.

  Returns:
    Variables without the arrays of branches: 'params' and 'batch_stats'.
  """
  params = tree.leaves(variables['params'])
  stats = tree.leaves(variables.get('batch_stats', {}))
  for prefix in branched_prefixes(variables['params']):
    arrays = {
      name.removeprefix(prefix): named.pop(name)
      for named in (stats, params)
      for name in list(named)
      if name.startswith(prefix)
    }
    params[f'{prefix}kernel'] = merged_kernel(arrays)
    if 'bias' in arrays:
      params[f'{prefix}bias'] = arrays['bias']
  return {
    'params': tree.from_leaves(params),
    'batch_stats': tree.from_leaves(stats),
  }


def add_branches(plain: Variables, initial: Variables) -> Variables:
  """Adds branches to a trained network without changing its function.

  This is the start of fine-tuning: the first branch is the trained kernel with
  scale 1, the others are random with scale 0 (their scales get gradients at
  once, their weights after the first update of the scales).

  Args:
    plain: variables of the network without branches.
    initial: initial variables of the network with branches.

  Returns:
    `plain` with the branches of `initial`. If the two do not fit otherwise, the
    result does not fit the network with branches: see `tree.fit`.
  """
  variables: Variables = {}
  branched = tuple(branched_prefixes(initial['params']))
  for collection, new in initial.items():
    leaves = tree.leaves(plain.get(collection, {}))
    for name, leaf in tree.leaves(new).items():
      if name in leaves or not (branched and name.startswith(branched)):
        continue
      if name.endswith(SCALE):
        leaf = jnp.zeros_like(leaf).at[0].set(1)
      leaves[name] = leaf
    variables[collection] = tree.from_leaves(leaves)
  return variables
