"""Networks whose variables do not change: what depends on them alone, once.

In eval mode a BatchNorm multiplies each channel by a constant and adds another
one. Where it is all that reads a layer's output, the layer can do that itself,
by another kernel and bias. And kernels that are made of several arrays, or are
rounded to another type, need be made only once.

`two_parts` finds this in the program of a function, so that it does not depend
on the classes of modules: an equation is folded if `channels` derives that it
is a layer, and if nothing else reads its output, taps included.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from jaxkd.reparam import channels, programs
from jaxkd.reparam.channels import Layer
from jaxkd.types import Array, Tree

CAST = 'convert_element_type'
AFFINE = ('add', 'sub', 'mul', 'div')


class TwoParts(NamedTuple):
  """A function of variables and inputs, in two parts.

  prepare: variables -> arrays, for any number of calls of `run`.
  run: (these arrays, inputs) -> the function's result, up to rounding.
  folded: how many layers have the constants of a BatchNorm, or the like.
  """

  prepare: Callable[[Tree], list[Array]]
  run: Callable[..., Any]
  folded: int


def two_parts(
  function: Callable[..., Any], variables: Tree, *inputs: Any
) -> TwoParts:
  """Returns a function in two parts, for inputs of these shapes.

  Constants are computed in float32 and rounded once to the type of the layer.
  A function without anything to fold is computed as it is, bit for bit.

  Args:
    function: pure, (variables, *inputs) -> a tree of arrays.
    variables: trees of arrays; shapes are enough.
    *inputs: likewise.
  """
  closed, shapes = jax.make_jaxpr(function, return_shape=True)(
    variables, *inputs
  )
  if closed.effects:  # of callbacks, whose number would change
    return TwoParts(
      jax.tree.leaves,
      lambda values, *own: function(
        jax.tree.unflatten(jax.tree.structure(variables), values), *own
      ),
      0,
    )
  leaves, structure = jax.tree.flatten(variables), jax.tree.structure(shapes)
  size = len(leaves[0])

  def flat(*arguments):
    return programs.inlined(
      closed.jaxpr, closed.consts, arguments, channels.is_layer
    )

  specs = [*leaves[0], *jax.tree.leaves(inputs)]
  first = jax.make_jaxpr(flat)(*specs)
  chains = _chains(first.jaxpr, size)

  def with_folded(*arguments):
    return _compute(first.jaxpr, first.consts, arguments, chains)

  second = jax.make_jaxpr(with_folded)(*specs)
  parts = _Parts.of(second.jaxpr, size)

  def prepare(variables):
    return parts.prepare(second.consts, jax.tree.leaves(variables))

  def run(values, *inputs):
    own = jax.tree.leaves(inputs)
    for x, want in zip(own, specs[size:], strict=True):
      if (x.shape, x.dtype) != (want.shape, want.dtype):
        raise ValueError(
          f'prepared for inputs {want.dtype}{want.shape}, got'
          f' {x.dtype}{x.shape}'
        )
    results = parts.run(second.consts, values, own)
    return jax.tree.unflatten(structure, results)

  return TwoParts(prepare, run, len(chains))


class _Chain(NamedTuple):
  """A layer, and the equations after it that multiply and add constants.

  layer: how the first equation is one.
  equation: that one.
  root: the kernel before it was rounded.
  steps: the others, in their order.
  """

  layer: Layer
  equation: JaxprEqn
  root: Any
  steps: list[JaxprEqn]


def _depends(jaxpr: Jaxpr, sources: Sequence[Var]) -> set[Var]:
  """Returns the variables of a jaxpr that depend on some of its inputs."""
  depends = set(sources)
  for equation in jaxpr.eqns:
    if depends.intersection(programs.variables(equation.invars)):
      depends.update(equation.outvars)
  return depends


def _chains(jaxpr: Jaxpr, size: int) -> dict[Var, _Chain]:
  """Returns the chains to fold, by the last result of each.

  Args:
    jaxpr: without calls.
    size: how many of its first inputs are variables of the network.
  """
  dynamic = _depends(jaxpr, jaxpr.invars[size:])
  fixed = _depends(jaxpr, jaxpr.invars[:size]) - dynamic
  equations = programs.live(jaxpr)
  producers = programs.producers(equations)
  readers: dict[Var, list[JaxprEqn | None]] = {}
  for equation in equations:
    for x in programs.variables(equation.invars):
      readers.setdefault(x, []).append(equation)
  for x in programs.variables(jaxpr.outvars):
    readers.setdefault(x, []).append(None)
  chains = {}
  for equation in equations:
    if not dynamic.intersection(equation.outvars):
      continue
    for layer in channels.layers(equation, producers):
      if equation.invars[layer.kernel] not in fixed:
        continue
      steps = _steps(equation, layer.output, fixed, readers, producers)
      if steps:
        root = _before_casts(equation.invars[layer.kernel], producers)
        last = steps[-1].outvars[0]
        chains[last] = _Chain(layer, equation, root, steps)
        break
  return chains


def _steps(
  equation: JaxprEqn,
  axis: int,
  fixed: set[Var],
  readers: Mapping[Var, list[JaxprEqn | None]],
  producers: Mapping[Var, JaxprEqn],
) -> list[JaxprEqn]:
  """Returns the equations that can be folded into a layer; [] if none needs it.

  Args:
    equation: the layer.
    axis: of its channels.
    fixed: what depends on variables alone.
    readers: the equations that read each variable; None for an output.
    producers: see `programs.producers`.
  """
  result, steps = equation.outvars[0], []
  shape = programs.shape(result)
  while len(readers.get(result, ())) == 1:
    (step,) = readers[result]
    if step is None or not channels.is_float(step.outvars[0]):
      break
    name = step.primitive.name
    if name in AFFINE:
      other = step.invars[1]
      if other is result and name in ('add', 'mul'):
        other = step.invars[0]
      if other not in fixed or not _varying(other, producers) <= {axis}:
        break
    elif name != CAST:
      break
    if programs.shape(step.outvars[0]) != shape:
      break
    steps.append(step)
    result = step.outvars[0]
  scaled = any(step.primitive.name in ('mul', 'div') for step in steps)
  return steps if scaled else []


def _before_casts(variable: Any, producers: Mapping[Var, JaxprEqn]) -> Any:
  """Returns the array that a variable is a rounded copy of."""
  while variable in producers and producers[variable].primitive.name == CAST:
    source = producers[variable].invars[0]
    if isinstance(source, Literal) or not channels.is_float(source):
      break
    variable = source
  return variable


def _varying(variable: Any, producers: Mapping[Var, JaxprEqn]) -> set[int]:
  """Returns the axes along which the entries of a value may differ."""
  shape = programs.shape(variable)
  axes = {axis for axis, n in enumerate(shape) if n > 1}
  equation = None if len(axes) < 2 else producers.get(variable)
  if equation is None:
    return axes
  name = equation.primitive.name
  if name == 'broadcast_in_dim':
    numbers = equation.params['broadcast_dimensions']
    return {numbers[i] for i in _varying(equation.invars[0], producers)}
  if name in (*AFFINE, CAST, 'neg', 'rsqrt', 'sqrt'):
    return set().union(*(_varying(x, producers) for x in equation.invars))
  return axes


def _compute(
  jaxpr: Jaxpr,
  constants: Sequence[Any],
  arguments: Sequence[Any],
  chains: Mapping[Var, _Chain],
) -> list[Any]:
  """Computes a jaxpr with its chains as one layer each, and a sum."""
  values = programs.Values(zip(jaxpr.constvars, constants, strict=True))
  values.update(zip(jaxpr.invars, arguments, strict=True))
  inside = {
    id(equation)
    for chain in chains.values()
    for equation in (chain.equation, *chain.steps)
  }
  for equation in programs.live(jaxpr):
    chain = chains.get(equation.outvars[0])
    if chain:
      values[equation.outvars[0]] = _folded(chain, values)
    elif id(equation) not in inside:
      results = programs.bind(equation, values.read(equation.invars))
      values.update(zip(equation.outvars, results, strict=True))
  return values.read(jaxpr.outvars)


def _folded(chain: _Chain, values: programs.Values) -> Array:
  """Returns the last result of a chain."""
  layer, equation = chain.layer, chain.equation
  scale, shift = _constants(chain, values)
  (root,) = values.read([chain.root])
  kernel = root.astype(jnp.promote_types(root.dtype, jnp.float32))
  kernel = kernel * _along(scale, kernel.ndim, layer.axis)
  inputs = [
    None if i == layer.kernel else values.read([x])[0]
    for i, x in enumerate(equation.invars)
  ]
  inputs[layer.kernel] = kernel.astype(
    programs.dtype(equation.invars[layer.kernel])
  )
  (result,) = programs.bind(equation, inputs)
  kind = programs.dtype(chain.steps[-1].outvars[0])
  exact = jnp.promote_types(result.dtype, kind)
  result = result.astype(exact)
  if shift is not None:
    shift = shift.astype(exact)
    result = result + _along(shift, result.ndim, layer.output)
  return result.astype(kind)


def _constants(
  chain: _Chain, values: programs.Values
) -> tuple[Array, Array | None]:
  """Returns what a chain multiplies by, and what it adds then, if anything.

  Both are [C] or scalars, in float32 at least.
  """
  scale, shift = jnp.ones((), jnp.float32), None
  result = chain.equation.outvars[0]
  for step in chain.steps:
    name = step.primitive.name
    if name != CAST:
      other = step.invars[1]
      other = step.invars[0] if other is result else other
      constant = _vector(values.read([other])[0], chain.layer.output)
      if name in ('mul', 'div'):
        factor = constant if name == 'mul' else 1 / constant
        scale = scale * factor
        shift = None if shift is None else shift * factor
      else:
        constant = constant if name == 'add' else -constant
        shift = constant if shift is None else shift + constant
    result = step.outvars[0]
  return scale, shift


def _vector(value: Array, axis: int) -> Array:
  """Returns a value that varies along one axis as [C], or as a scalar."""
  value = jnp.asarray(value)
  value = value.astype(jnp.promote_types(value.dtype, jnp.float32))
  if value.ndim == 0:
    return value
  first = [slice(None) if i == axis else 0 for i in range(value.ndim)]
  value = value[tuple(first)]
  return value[0] if value.shape == (1,) else value


def _along(vector: Array, rank: int, axis: int) -> Array:
  """Returns [C] as an array of some rank, along one of its axes."""
  if vector.ndim == 0:
    return vector
  return vector.reshape([-1 if i == axis else 1 for i in range(rank)])


class _Parts(NamedTuple):
  """A jaxpr in two parts.

  jaxpr: the whole.
  size: how many of its first inputs are variables of the network.
  first: equations that depend on these alone.
  second: the others; those that depend on neither are constants, and those that
    only repeat a value are not worth to be kept.
  kept: what the second part reads of the first.
  """

  jaxpr: Jaxpr
  size: int
  first: list[JaxprEqn]
  second: list[JaxprEqn]
  kept: list[Var]

  @classmethod
  def of(cls, jaxpr: Jaxpr, size: int) -> '_Parts':
    """Returns the parts of a jaxpr."""
    dynamic = _depends(jaxpr, jaxpr.invars[size:])
    fixed = _depends(jaxpr, jaxpr.invars[:size]) - dynamic
    needed, second = set(programs.variables(jaxpr.outvars)), []
    equations = programs.live(jaxpr)
    for equation in reversed(equations):
      early = fixed.issuperset(equation.outvars)
      repeats = equation.primitive.name == 'broadcast_in_dim'
      if needed.intersection(equation.outvars) and (not early or repeats):
        needed.update(programs.variables(equation.invars))
        second.append(equation)
    made = {x for equation in second for x in equation.outvars}
    kept = [
      x
      for x in (*jaxpr.invars[:size], *_results(equations))
      if x in needed and x in fixed and x not in made
    ]
    first = [
      equation
      for equation in equations
      if not dynamic.intersection(equation.outvars)
    ]
    return cls(jaxpr, size, first, second[::-1], kept)

  def prepare(
    self, constants: Sequence[Any], variables: Sequence[Any]
  ) -> list[Any]:
    """Returns the values of `kept`."""
    inputs = [*self.jaxpr.constvars, *self.jaxpr.invars[: self.size]]
    part = programs.part_of(self.first, inputs, self.kept)
    return part(*constants, *variables)

  def run(
    self, constants: Sequence[Any], kept: Sequence[Any], inputs: Sequence[Any]
  ) -> list[Any]:
    """Returns the function's results."""
    arguments = self.jaxpr.invars[self.size :]
    names = [*self.jaxpr.constvars, *self.kept, *arguments]
    part = programs.part_of(self.second, names, self.jaxpr.outvars)
    return part(*constants, *kept, *inputs)


def _results(equations: Sequence[JaxprEqn]) -> list[Var]:
  return [x for equation in equations for x in equation.outvars]
