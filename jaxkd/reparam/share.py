"""Expansion of a narrow network to a wide one, and extraction from it.

Inverse reparameterisation (IR) and channel extraction of gap preserving
distillation (Guo et al., ICLR 2025, https://arxiv.org/abs/2410.04140). A plan
defines two maps. `expand` maps narrow variables to wide ones: the activations
of the wide network are copies of the narrow network's, and its logits are the
same. `extract` maps wide parameters to those of the narrow network in it; it is
linear and differentiated through at every step.
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

  Without noise, the logits of both networks are the same. If a channel has more
  than two copies, those that are not shared with the narrow network have
  identical weights and gradients: only noise breaks the symmetry.

  Args:
    variables: 'params' and 'batch_stats' of the narrow network; the latter may
      be missing.
    plan: from `make_plan`.
    key: for the noise.
    noise: standard deviation of the noise that is added to every parameter that
      grows; 1e-6 in the published code.
    relative: whether the noise is in units of each leaf's standard deviation.

  Returns:
    'params' and 'batch_stats' of the wide network.

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
  stats = _named(variables.get('batch_stats', {}), plan.stats, narrow=True)
  return {
    'params': tree.from_leaves(params),
    'batch_stats': tree.from_leaves(
      {name: _widen(stats[name], leaf) for name, leaf in plan.stats.items()}
    ),
  }


def extract(params: Tree, plan: Plan) -> Tree:
  """Returns the parameters of the narrow network in a wide network.

  The map is linear: the gradient of the narrow network's loss is nonzero only
  in its block of each wide array, where it is multiplied by a constant factor.

  Args:
    params: parameters from `expand`, possibly trained since.
    plan: from `make_plan`.

  Raises:
    ValueError: parameters that do not fit the plan.
  """
  named = _named(params, plan.params, narrow=False)
  return tree.from_leaves(
    {name: _narrow(named[name], leaf) for name, leaf in plan.params.items()}
  )


def unscale(params: Tree, plan: Plan) -> Tree:
  """Returns the parameters that the wide network is applied with.

  They differ from those that are stored and trained only if the plan has the
  scaling 'official'; see `make_plan`.

  Args:
    params: parameters from `expand`, possibly trained since.
    plan: from `make_plan`.
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
    if axis.is_input:
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
      x = jnp.take(x, axis.first_copies, axis=i)
    if axis.is_input:
      x = x * _along(axis.copies, i, x.ndim)
  return x if leaf.scale == 1 else x / leaf.scale


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
  """Reshapes values [C] so that they broadcast along one of ndim axes."""
  return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def _named(
  params: Tree, plan: Mapping[str, Leaf], *, narrow: bool
) -> dict[str, Array]:
  """Returns the leaves by name; their shapes must be those of the plan."""
  shapes = {
    name: jax.ShapeDtypeStruct(
      tuple(sum(a.narrow if narrow else a.wide) for a in leaf.axes), jnp.float32
    )
    for name, leaf in plan.items()
  }
  what = f'a tree for the {"narrow" if narrow else "wide"} network'
  return tree.leaves(tree.fit(params, tree.from_leaves(shapes), what))
