"""Initial variables of the networks of a phase."""

import functools
from collections.abc import Mapping

import jax

from jaxkd import reparam, tree
from jaxkd.graph.program import Program
from jaxkd.types import Variables


def module_variables(
  program: Program, initial: Mapping[str, Variables], seed: int
) -> dict[str, Variables]:
  """Returns initial variables in the structure of the networks' modules.

  Networks without initial variables are left out. If a module has branches and
  the variables have none, random ones are added; in the opposite case, the
  branches are merged.

  Args:
    program: the graph with its modules.
    initial: variables by network, also of networks that are not in the graph.
    seed: of the random branches.

  Raises:
    ValueError: with every array that is missing, extra or of another shape.
  """
  by_network = {}
  for name in program.init_modules:
    source = program.starts_from(name)
    if source not in initial:
      continue
    init = functools.partial(program.init_network, name)
    key, variables = initial_key(seed), initial[source]
    shapes = jax.eval_shape(init, key)
    wants, has = (
      bool(reparam.branched_prefixes(x['params'])) for x in (shapes, variables)
    )
    if wants and not has:
      variables = reparam.add_branches(variables, jax.jit(init)(key))
    what = f'the checkpoint of {source!r}'
    if has and not wants:
      merged, module = reparam.merge(variables), program.init_modules[name]
      variables = reparam.fold_biases(merged, module, program.input_shape, what)
    by_network[name] = tree.fit(variables, shapes, what)
  return by_network


def initial_key(seed: int) -> jax.Array:
  """Returns the key of random initialisation.

  XLA compiles its many small draws three times faster with its own generator
  than with threefry.
  """
  return jax.random.key(seed, impl='rbg')
