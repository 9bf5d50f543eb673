"""Modules of flax.nnx as Linen networks.

An `nnx.Module` holds its arrays; here they are variables under the same paths:
`nnx.Param` in 'params', `nnx.BatchStat` in 'batch_stats'. The indices of lists
become strings: 'layers/0/conv/kernel'.

`flax.nnx.bridge.ToLinen` is similar, but keeps integers in paths, which files
of arrays cannot distinguish from strings, accepts any kind of variable, and
supports neither train flags nor taps.
"""

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import nnx, traverse_util
from flax.core import FrozenDict

from jaxkd.models.adapt import (
  INPUT,
  OUTPUT,
  find_train_flags,
  locations,
  mode_arguments,
  put_variables,
  rngs_of,
  to_outputs,
)
from jaxkd.models.wrapper import Wrapper
from jaxkd.types import Array, Outputs, Variables

KINDS = {'params': nnx.Param, 'batch_stats': nnx.BatchStat}
# Not stored: random streams start from a step's key, and intermediate values
# are dropped.
TRANSIENT = (nnx.RngState, nnx.Intermediate)


def from_nnx(
  make: Callable[..., nnx.Module],
  num_classes: int,
  taps: Mapping[str, str] | None = None,
  mode: str | None = None,
  **settings: Any,
) -> 'FromNNX':
  """Returns a module of flax.nnx as a network that can be a learner or a guide.

  Args:
    make: a subclass of `nnx.Module`, or a function that returns a module. It is
      called with `rngs` (by keyword if it has a parameter of that name, else as
      the first argument) whenever the network is traced. The module's
      `__call__` is as in `adapt`.
    num_classes: K; passed to `make` if it takes an argument of that name.
    taps: name -> location, as in `adapt`.
    mode: as in `adapt`; `train()` or `eval()` of the module is called anyway.
    **settings: further arguments of `make`.

  Raises:
    ValueError: `make` is a module, not a class or function.
  """
  if isinstance(make, nnx.Module):
    raise ValueError(
      f'from_nnx takes a class or a function of rngs, got an instance of'
      f' {type(make).__name__} (nnx_variables returns its arrays)'
    )
  if 'num_classes' in parameters_of(make):
    settings['num_classes'] = num_classes
  return FromNNX(
    make, num_classes, locations(taps or {}), mode, FrozenDict(settings)
  )


class FromNNX(Wrapper, nn.Module):
  """A module of flax.nnx as a Linen network; made by `from_nnx`.

  `init(key)` returns the arrays of `make(rngs=nnx.Rngs(key))`.

  Attributes:
    make: a subclass of `nnx.Module`, or a function that returns a module.
    num_classes: K.
    taps: name -> location.
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
      KeyError: a tap of a module that does not exist, with suggestions.
      ValueError: unsupported variables or outputs; a network that uses random
        numbers in train mode is applied without a key 'dropout'.
    """
    module = self._module(train)
    if not self.is_initializing():
      nnx_update(module, self.variables)
    (module.train if train else module.eval)()
    cls = type(module)
    flags = find_train_flags(cls.__call__, self.mode, cls.__name__)
    submodules = {'/'.join(map(str, p)): m for p, m in nnx.iter_modules(module)}
    del submodules['']
    with _capture(submodules, {*self.taps.values()}) as values:
      result = module(image, **mode_arguments(flags, train))
    put_variables(self, nnx_variables(module))
    return to_outputs(
      cls.__name__, result, self.num_classes, self.taps, values, {*submodules}
    )

  def _module(self, train: bool) -> nnx.Module:
    """Returns a new module with the random keys of this call."""
    keys = rngs_of(self)
    if self.is_initializing():
      return _make(self.make, self.settings, nnx.Rngs(keys['params']))
    # The random initial parameters are replaced, so any key will do.
    fixed = jax.random.key(0)
    rngs = nnx.Rngs(
      keys.get('dropout', fixed) if train else fixed, params=fixed
    )
    module = _make(self.make, self.settings, rngs)
    if train and 'dropout' not in keys and nnx.state(module, nnx.RngState):
      raise ValueError(
        f'{type(module).__name__} uses random numbers in train mode: apply it'
        " with rngs={'dropout': KEY}"
      )
    return module

  @property
  def wrapped(self) -> Any:
    """The arguments of `make`, as attributes."""
    return types.SimpleNamespace(**self.settings)


def parameters_of(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
  """Returns the parameters of a function or class by name."""
  while isinstance(make, functools.partial):
    make = make.func
  if not inspect.isclass(make):
    return inspect.signature(make).parameters
  # `inspect.signature` of an nnx class returns that of its metaclass.
  _, *others = inspect.signature(make.__init__).parameters.items()
  return dict(others)


def _make(
  make: Callable[..., nnx.Module], settings: Mapping[str, Any], rngs: nnx.Rngs
) -> nnx.Module:
  """Returns the result of `make`, whatever its parameter for `rngs` is."""
  by_name = 'rngs' in parameters_of(make)
  module = make(**settings, rngs=rngs) if by_name else make(rngs, **settings)
  if not isinstance(module, nnx.Module):
    raise ValueError(
      f'from_nnx: {make!r} must return an nnx.Module, got {module!r}'
    )
  return module


def nnx_variables(module: nnx.Module) -> Variables:
  """Returns the arrays of a module of flax.nnx as variables of the network.

  Raises:
    ValueError: it has variables that are neither parameters nor statistics.
  """
  flat: dict[str, dict[tuple[str, ...], Array]] = {name: {} for name in KINDS}
  for path, leaf in _leaves(module).items():
    kinds = [name for name, kind in KINDS.items() if isinstance(leaf, kind)]
    if kinds:
      flat[kinds[0]][tuple(map(str, path))] = leaf[...]
    elif not isinstance(leaf, TRANSIENT):
      raise ValueError(
        f'{type(module).__name__} has the nnx.{type(leaf).__name__}'
        f' {_name(path)!r}; only nnx.Param, nnx.BatchStat and arrays that never'
        ' change are supported'
      )
  return {name: traverse_util.unflatten_dict(x) for name, x in flat.items()}


def nnx_update(module: nnx.Module, variables: Mapping[str, Any]) -> None:
  """Sets the arrays of a module of flax.nnx, for example to trained ones.

  Args:
    module: is changed in place.
    variables: as `nnx_variables` returns them.

  Raises:
    KeyError: a parameter or statistic of the module is not in `variables`.
  """
  flat = {
    name: traverse_util.flatten_dict(variables.get(name, {})) for name in KINDS
  }
  new = {
    path: flat[name][tuple(map(str, path))]
    for path, leaf in _leaves(module).items()
    for name, kind in KINDS.items()
    if isinstance(leaf, kind)
  }
  nnx.update(module, traverse_util.unflatten_dict(new))


def _leaves(module: nnx.Module) -> dict[tuple[Any, ...], nnx.Variable]:
  """Returns the variables of a module by path, which may contain integers."""
  flat = nnx.to_flat_state(nnx.state(module))
  return {path: leaf for path, leaf in flat if isinstance(leaf, nnx.Variable)}


def _name(path: tuple[Any, ...]) -> str:
  return '/'.join(map(str, path))


@contextlib.contextmanager
def _capture(
  submodules: Mapping[str, nnx.Module], wanted: set[str]
) -> Iterator[dict[str, Any]]:
  """Yields a dict that the inputs and outputs of submodules are written to.

  nnx has no interceptors. As `nnx.capture` does, this replaces the `__call__`
  of the submodules' classes within the context.

  Args:
    submodules: by path.
    wanted: locations, 'PATH:input' or 'PATH:output'.
  """
  values: dict[str, Any] = {}
  paths = {
    id(module): path
    for path, module in submodules.items()
    if {path + INPUT, path + OUTPUT} & wanted
  }
  classes = {type(m) for m in submodules.values() if id(m) in paths}

  def capturing(call):
    @functools.wraps(call)
    def wrapper(self, *args, **kwargs):
      result = call(self, *args, **kwargs)
      if id(self) in paths:
        path = paths[id(self)]
        values[path + OUTPUT] = result
        values[path + INPUT] = [*args, *kwargs.values(), None][0]
      return result

    return wrapper

  own = {cls: vars(cls).get('__call__') for cls in classes}
  calls = {cls: cls.__call__ for cls in classes}
  try:
    for cls, call in calls.items():
      cls.__call__ = capturing(call)
    yield values
  finally:
    for cls, call in own.items():
      if call is None:  # inherited
        del cls.__call__
      else:
        cls.__call__ = call
