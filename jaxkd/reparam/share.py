"""A narrow network inside a wide one: grow it, and cut it out again.

Inverse reparameterisation (IR) and channel extraction of gap preserving
distillation (Guo et al., ICLR 2025, https://arxiv.org/abs/2410.04140). Two maps
follow from one plan: `expand`, narrow to wide, after which the wide network
computes the narrow one's activations, copied, up to its logits, which are the
same; and `extract`, the narrow network inside the wide one, which is linear and
differentiated through at every step.
"""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import tree
from jaxkd.reparam.plan import Leaf, Plan
from jaxkd.types import Array, Tree, Variables


def expand(
  variables: Variables,
  plan: Plan,
  key: Array | None = None,
  noise: float = 0.0,
  relative: bool = False,
) -> Variables:
  """Inverse reparameterisation (IR): narrow variables -> wide variables.

  Without noise, the wide network gives the narrow one's logits. With more than
  two copies of a channel, those that the narrow network does not share are
  treated alike by everything that follows: only noise tells them apart.

  Args:
    variables: 'params' and 'batch_stats' of the narrow network.
    plan: from `make_plan`.
    key: of the noise.
    noise: standard deviation of what is added to every parameter that grows;
      the published code's is 1e-6.
    relative: the noise is in units of each leaf's own standard deviation.

  Raises:
    ValueError: noise without a key; variables that do not fit the plan.
  """
  if noise and key is None:
    raise ValueError(f'noise={noise} needs a key')
  named = _named(variables['params'], plan.params, narrow=True)
  params = {}
  for name, leaf in plan.params.items():
    wide = params[name] = _widen(named[name], leaf)
    if key is not None and noise and leaf.grows:
      own = jax.random.fold_in(key, zlib.crc32(name.encode()))
      size = noise * (jnp.std(wide) if relative else 1.0)
      params[name] = wide + size * jax.random.normal(own, wide.shape)
  stats = _named(variables['batch_stats'], plan.stats, narrow=True)
  return {
    'params': tree.from_leaves(params),
    'batch_stats': tree.from_leaves(
      {name: _widen(stats[name], leaf) for name, leaf in plan.stats.items()}
    ),
  }


def extract(params: Tree, plan: Plan) -> Tree:
  """Returns the narrow network's parameters inside the wide one's.

  Linear, so that the narrow network's gradient falls on its own block of each
  array, times the factor of that block, and is exactly zero elsewhere.

  Args:
    params: as `expand` makes them, trained or not.
    plan: from `make_plan`.

  Raises:
    ValueError: parameters that do not fit the plan.
  """
  named = _named(params, plan.params, narrow=False)
  return tree.from_leaves(
    {name: _narrow(named[name], leaf) for name, leaf in plan.params.items()}
  )


def stored(params: Tree, plan: Plan) -> Tree:
  """Returns what the wide network computes with, from what is stored.

  They differ under the 'official' scaling only; see `make_plan`.
  """
  named = _named(params, plan.params, narrow=False)
  return tree.from_leaves(
    {
      name: named[name] if leaf.scale == 1 else named[name] / leaf.scale
      for name, leaf in plan.params.items()
    }
  )


def _widen(x: Array, leaf: Leaf) -> Array:
  for i, axis in enumerate(leaf.axes):
    if not axis.grows:
      continue
    if axis.reads:
      x = x / _along(axis.copies, i, x.ndim)
    x = jnp.take(x, axis.sources, axis=i)
  return x if leaf.scale == 1 else x * leaf.scale


def _narrow(x: Array, leaf: Leaf) -> Array:
  for i, axis in enumerate(leaf.axes):
    if not axis.grows:
      continue
    if len(axis.narrow) == 1:  # a slice is cheaper than a gather
      x = jax.lax.slice_in_dim(x, 0, axis.narrow[0], axis=i)
    else:
      x = jnp.take(x, axis.firsts, axis=i)
    if axis.reads:
      x = x * _along(axis.copies, i, x.ndim)
  return x if leaf.scale == 1 else x / leaf.scale


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
  """Returns [C] as an array that multiplies along one of ndim axes."""
  return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def _named(
  params: Tree, plan: Mapping[str, Leaf], *, narrow: bool
) -> dict[str, Array]:
  """Returns the leaves by name, in the plan's shapes."""
  wanted = {
    name: jax.ShapeDtypeStruct(
      tuple(sum(a.narrow if narrow else a.wide) for a in leaf.axes), jnp.float32
    )
    for name, leaf in plan.items()
  }
  what = f'a tree for the {"narrow" if narrow else "wide"} network'
  return tree.leaves(tree.fit(params, tree.from_leaves(wanted), what))
