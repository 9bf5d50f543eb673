"""Networks of flax.nnx as Linen modules.

An `nnx.Module` holds its arrays; here they are variables under the same paths:
`nnx.Param` in 'params', `nnx.BatchStat` in 'batch_stats'. Numbers in a path, of
a list's entries, are words: 'layers/0/conv/kernel'.

`flax.nnx.bridge.ToLinen` does likewise, but keeps the numbers, which files of
arrays cannot tell from words, lets any kind of variable pass, and tells neither
modes nor taps.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from flax.core import FrozenDict

from jaxkd.models.adapt import (
  INPUT,
  OUTPUT,
  keys_of,
  outputs_of,
  places,
  put,
  switches_of,
  told,
)
from jaxkd.types import Array, Outputs, Variables

KINDS = {'params': nnx.Param, 'batch_stats': nnx.BatchStat}
# Random streams start from a step's key, and what is sown is not kept.
PASSING = (nnx.RngState, nnx.Intermediate)


def from_nnx(
  make: Callable[..., nnx.Module],
  num_classes: int,
  taps: Mapping[str, str] | None = None,
  mode: str | None = None,
  **settings: Any,
) -> 'FromNNX':
  """Returns a network of flax.nnx as one that can teach and be taught.

  Args:
    make: a class of `nnx.Module`, or a function that makes such a module. It is
      given `rngs` by that name or else first, and called whenever something is
      traced. The `__call__` of what it makes is as in `adapt`.
    num_classes: K; an argument of `make` if it takes one of that name.
    taps: name -> place, as in `adapt`.
    mode: as in `adapt`, beside what `train` and `eval` of the module do.
    **settings: arguments of `make`.

  Raises:
    ValueError: `make` is a module already.
  """
  if isinstance(make, nnx.Module):
    raise ValueError(
      f'from_nnx takes a class or a function of rngs, got a'
      f' {type(make).__name__} that is made already (its arrays are'
      ' nnx_variables of it)'
    )
  if 'num_classes' in parameters_of(make):
    settings['num_classes'] = num_classes
  return FromNNX(
    make, num_classes, places(taps or {}), mode, FrozenDict(settings)
  )


class FromNNX(nn.Module):
  """A network of flax.nnx; made by `from_nnx`.

  With `init(key)` it has the arrays of `make(rngs=nnx.Rngs(key))`.

  Attributes:
    make: makes the `nnx.Module`.
    num_classes: K.
    taps: name -> place.
    mode: see `from_nnx`.
    settings: arguments of `make`.
  """

  make: Callable[..., nnx.Module]
  num_classes: int
  taps: Mapping[str, str] = FrozenDict()
  mode: str | None = None
  settings: Mapping[str, Any] = FrozenDict()

  def __hash__(self):
    """Leaves out the settings, which may be lists."""
    return hash((self.make, self.num_classes, self.taps, self.mode))

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C].

    Raises:
      KeyError: a tap of a module that there is not, with suggestions.
      ValueError: variables or results that a network does not have; a network
        that draws in train mode and is given no key 'dropout'.
    """
    module = self._module(train)
    if not self.is_initializing():
      nnx_update(module, self.variables)
    (module.train if train else module.eval)()
    kind = type(module)
    switches = switches_of(kind.__call__, self.mode, kind.__name__)
    parts = {'/'.join(map(str, p)): m for p, m in nnx.iter_modules(module)}
    del parts['']
    with _watched(parts, {*self.taps.values()}) as seen:
      said = module(image, **told(switches, train))
    put(self, nnx_variables(module))
    return outputs_of(
      kind.__name__, said, self.num_classes, self.taps, seen, {*parts}
    )

  def _module(self, train: bool) -> nnx.Module:
    """Returns the network, which draws from the keys of this call."""
    keys = keys_of(self)
    if self.is_initializing():
      return _made(self.make, self.settings, nnx.Rngs(keys['params']))
    # What is drawn for parameters is replaced, so any key will do.
    fixed = jax.random.key(0)
    rngs = nnx.Rngs(
      keys.get('dropout', fixed) if train else fixed, params=fixed
    )
    module = _made(self.make, self.settings, rngs)
    if train and 'dropout' not in keys and nnx.state(module, nnx.RngState):
      raise ValueError(
        f'{type(module).__name__} draws in train mode: apply it with'
        " rngs={'dropout': KEY}"
      )
    return module

  @property
  def width(self) -> float:
    """The network's channel multiplier, if it has one."""
    return self.settings.get('width', 1)

  @property
  def branches(self) -> int:
    """Of the network's convolutions, if it has any."""
    return self.settings.get('branches', 1)

  @property
  def dtype(self) -> Any:
    """The network's compute type, if it says one."""
    return self.settings.get('dtype', jnp.float32)


def parameters_of(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
  """Returns the arguments of a function or class by name."""
  while isinstance(make, functools.partial):
    make = make.func
  if not inspect.isclass(make):
    return inspect.signature(make).parameters
  # The signature of a class of nnx itself is that of its metaclass.
  _, *others = inspect.signature(make.__init__).parameters.items()
  return dict(others)


def _made(
  make: Callable[..., nnx.Module], settings: Mapping[str, Any], rngs: nnx.Rngs
) -> nnx.Module:
  """Returns make(rngs=rngs, **settings), whatever it calls `rngs`."""
  named = 'rngs' in parameters_of(make)
  made = make(**settings, rngs=rngs) if named else make(rngs, **settings)
  if not isinstance(made, nnx.Module):
    raise ValueError(
      f'from_nnx: {make!r} made {made!r}, which is no nnx.Module'
    )
  return made


def nnx_variables(module: nnx.Module) -> Variables:
  """Returns the arrays of a network of flax.nnx under the names of jaxkd.

  Raises:
    ValueError: it has variables that are neither parameters nor statistics.
  """
  found: dict[str, dict[tuple[str, ...], Array]] = {name: {} for name in KINDS}
  for path, leaf in _leaves(module).items():
    kinds = [name for name, kind in KINDS.items() if isinstance(leaf, kind)]
    if kinds:
      found[kinds[0]][tuple(map(str, path))] = leaf[...]
    elif not isinstance(leaf, PASSING):
      raise ValueError(
        f'{type(module).__name__} has the nnx.{type(leaf).__name__}'
        f' {_name(path)!r}; its variables can be nnx.Param and nnx.BatchStat'
        ' only, and arrays that never change'
      )
  return {name: traverse_util.unflatten_dict(x) for name, x in found.items()}


def nnx_update(module: nnx.Module, variables: Mapping[str, Any]) -> None:
  """Gives a network of flax.nnx the arrays that a run has trained.

  Args:
    module: is changed.
    variables: as `nnx_variables` returns them.

  Raises:
    KeyError: there is none for one of its parameters or statistics.
  """
  given = {
    name: traverse_util.flatten_dict(variables.get(name, {})) for name in KINDS
  }
  new = {
    path: given[name][tuple(map(str, path))]
    for path, leaf in _leaves(module).items()
    for name, kind in KINDS.items()
    if isinstance(leaf, kind)
  }
  nnx.update(module, traverse_util.unflatten_dict(new))


def _leaves(module: nnx.Module) -> dict[tuple[Any, ...], nnx.Variable]:
  """Returns the variables of a module by path, whose parts may be numbers."""
  flat = nnx.to_flat_state(nnx.state(module))
  return {path: leaf for path, leaf in flat if isinstance(leaf, nnx.Variable)}


def _name(path: tuple[Any, ...]) -> str:
  return '/'.join(map(str, path))


@contextlib.contextmanager
def _watched(
  parts: Mapping[str, nnx.Module], wanted: set[str]
) -> Iterator[dict[str, Any]]:
  """Yields the dict of what parts of a module are given and return meanwhile.

  nnx has no interceptors. As `nnx.capture` does, this changes the `__call__` of
  classes for the time being; of those only whose instances are wanted.

  Args:
    parts: modules by path.
    wanted: places, 'PATH:input' or 'PATH:output'.
  """
  seen: dict[str, Any] = {}
  paths = {
    id(part): path
    for path, part in parts.items()
    if {path + INPUT, path + OUTPUT} & wanted
  }
  kinds = {type(part) for part in parts.values() if id(part) in paths}

  def noting(call):
    @functools.wraps(call)
    def noted(self, *args, **kwargs):
      said = call(self, *args, **kwargs)
      if id(self) in paths:
        path = paths[id(self)]
        seen[path + OUTPUT] = said
        seen[path + INPUT] = [*args, *kwargs.values(), None][0]
      return said

    return noted

  own = {kind: vars(kind).get('__call__') for kind in kinds}
  calls = {kind: kind.__call__ for kind in kinds}
  try:
    for kind, call in calls.items():
      kind.__call__ = noting(call)
    yield seen
  finally:
    for kind, call in own.items():
      if call is None:  # inherited
        del kind.__call__
      else:
        kind.__call__ = call
