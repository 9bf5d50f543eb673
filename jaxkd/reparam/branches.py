"""Branches of a convolution: parallel kernels whose sum is one kernel.

Six kinds, after online re-parameterisation (Hu et al., CVPR 2022,
https://arxiv.org/abs/2204.00826) as gap preserving distillation uses it (Guo et
al., ICLR 2025, https://arxiv.org/abs/2410.04140). Nothing stands between the
branches and the convolution but linear maps, so they are summed as kernels and
one convolution is run. A learned vector scales each branch:

  K[h, w, i, o] = sum_m scale[m, o] K_m[h, w, i, o]

Letters: k size, I input and O output channels, g groups, M branches. The arrays
of a branched convolution are those of `parameters` and `constants`, beside its
'kernel' [k, k, I / g, O] and 'bias' [O]. Constants lie in 'batch_stats', which
is neither trained nor decayed, so that a wider network can hold copies of them.

Deviation: constants get no noise when a network is expanded.
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

# [M, O]; its presence makes a convolution a branched one.
SCALE = 'branch_scale'
FILTERS = 8  # of the depthwise convolution, for each channel

Shape = tuple[int, ...]
Kernel = Callable[[Mapping[str, Array]], Array]


class Branch(NamedTuple):
  """One kind of branch.

  scale: where its scaling vector starts, trained from scratch.
  shapes: (k, I / g, I, O) -> shape and fan-in of each parameter, by name.
  kernel: the convolution's arrays -> K_m [k, k, I / g, O].
  """

  scale: float
  shapes: Callable[[int, int, int, int], dict[str, tuple[Shape, int]]]
  kernel: Kernel


def _groups(x: Array, groups: int, axis: int) -> Array:
  """Splits the groups off an axis of channels."""
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
  """1 x 1 convolution that starts as the identity, then k x k."""
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
  # The convolution that the student has without branches.
  Branch(0.25, lambda k, j, i, o: {}, lambda arrays: arrays['kernel']),
  Branch(0.25, lambda k, j, i, o: {'branch_pool': ((j, o), j)}, _pool),
  Branch(0.0, lambda k, j, i, o: {'branch_frequency': ((j, o), j)}, _frequency),
  Branch(
    0.5,
    lambda k, j, i, o: {
      'branch_mix': ((j, i), 0),  # starts at zero
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
MOST = len(BRANCHES)


def check(branches: int) -> None:
  """Refuses a number of branches that there cannot be.

  Raises:
    ValueError: not in 1..6.
  """
  if branches not in range(1, MOST + 1):
    raise ValueError(
      f'a convolution has 1 to {MOST} branches, got branches={branches}'
    )


def parameters(
  branches: int, kernel: Shape, groups: int
) -> dict[str, tuple[nn.initializers.Initializer, Shape]]:
  """Returns initialiser and shape of what branches add to a convolution.

  Args:
    branches: M, at least 2.
    kernel: [k, k, I / g, O].
    groups: g.
  """
  k, _, inputs, outputs = kernel
  chosen = BRANCHES[:branches]
  scales = np.array([[b.scale] for b in chosen], np.float32)
  found: dict[str, tuple[nn.initializers.Initializer, Shape]] = {
    SCALE: (
      lambda key, shape: jnp.broadcast_to(scales, shape),
      (branches, outputs),
    )
  }
  for branch in chosen:
    shapes = branch.shapes(k, inputs, inputs * groups, outputs)
    for name, (shape, fan_in) in shapes.items():
      found[name] = (_kaiming_uniform(fan_in), shape)
  return found


def _kaiming_uniform(fan_in: int) -> nn.initializers.Initializer:
  """U(+-sqrt(6 / fan_in)); zeros for a fan-in of 0."""
  bound = math.sqrt(6 / fan_in) if fan_in else 0.0

  def init(key, shape):
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

  return init


def constants(branches: int, kernel: Shape, groups: int) -> dict[str, Array]:
  """Returns the fixed arrays of a convolution's branches.

  Args:
    branches: M.
    kernel: [k, k, I / g, O].
    groups: g.

  Returns:
    'frequency' [k, k, O], a cosine along h for the first half of the channels
    and along w for the second; 'identity' [I / g, I], of each group.
  """
  k, _, inputs, outputs = kernel
  found = {}
  if branches > 2:
    half = outputs // 2
    channel = np.arange(outputs)
    along = np.arange(k)[:, None] + 0.5
    first = np.cos(np.pi * along * (channel + 1) / 3)
    second = np.cos(np.pi * along * (channel + 1 - half) / 3)
    in_first = channel < half
    waves = np.where(in_first, first[:, None], second[None])
    found['frequency'] = jnp.asarray(waves, jnp.float32)
  if branches > 3:
    found['identity'] = jnp.tile(jnp.eye(inputs), (1, groups))
  return found


def merged(arrays: Mapping[str, Array]) -> Array:
  """Returns the one kernel [k, k, I / g, O] that a convolution's branches are.

  Args:
    arrays: its 'kernel', the parameters of its branches and their constants.
  """
  scales = arrays[SCALE]
  shape = (1, 1, 1, -1)
  terms = [
    scale.reshape(shape) * branch.kernel(arrays)
    for scale, branch in zip(scales, BRANCHES, strict=False)
  ]
  return functools.reduce(jnp.add, terms)


def prefixes(params: Tree) -> list[str]:
  """Returns how the names of each branched convolution's arrays begin."""
  names = tree.leaves(params)
  return [n.removesuffix(SCALE) for n in names if n.split('/')[-1] == SCALE]


def merge(variables: Variables) -> Variables:
  """Returns the same function with each convolution's branches in one kernel.

  The second half of channel-branch reparameterisation (CBR); exact. It comes
  after `extract`: a branch with channels inside of it, once trained, is not the
  same if it is merged first and cut afterwards.

  Args:
    variables: of a network with branches, or without.

  Returns:
    Variables whose branched convolutions have 'kernel' and 'bias' only.
  """
  params = tree.leaves(variables['params'])
  stats = tree.leaves(variables['batch_stats'])
  for prefix in prefixes(variables['params']):
    arrays = {
      name.removeprefix(prefix): named.pop(name)
      for named in (stats, params)
      for name in list(named)
      if name.startswith(prefix)
    }
    params[f'{prefix}kernel'] = merged(arrays)
    if 'bias' in arrays:
      params[f'{prefix}bias'] = arrays['bias']
  return {
    'params': tree.from_leaves(params),
    'batch_stats': tree.from_leaves(stats),
  }


def add(plain: Variables, fresh: Variables) -> Variables:
  """Returns a trained network with branches that do not change what it does.

  The start of fine-tuning: the first branch is the trained kernel at scale 1,
  the others are random at scale 0 (their scales have gradients at once, their
  weights as soon as the scales have moved).

  Args:
    plain: of the network without branches.
    fresh: initial values of the network with branches.

  Returns:
    `plain` and, where `fresh` has a branched convolution, its branches; where
    the two do not fit, that is left for `tree.fit` to explain.
  """
  found: Variables = {}
  branched = tuple(prefixes(fresh['params']))
  for part, new in fresh.items():
    old = tree.leaves(plain[part])
    for name, leaf in tree.leaves(new).items():
      if name in old or not (branched and name.startswith(branched)):
        continue
      if name.endswith(SCALE):
        leaf = jnp.zeros_like(leaf).at[0].set(1)
      old[name] = leaf
    found[part] = tree.from_leaves(old)
  return found
