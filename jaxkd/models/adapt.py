"""Networks that were not written for jaxkd: any Linen module, unedited.

`adapt` makes a network of a module. The variables keep their names and initial
values; the inputs and outputs of submodules can be taps. A tap is located by
the path of a submodule, which is also the path of its parameters:

  'encoder/block3'        the output of that module
  'encoder/block3:input'  its first argument

in the last call of its `__call__`. The features that the classifier 'head'
reads are 'head:input'.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import traverse_util
from flax.core import FrozenDict

from jaxkd.catalog import UnknownNameError, is_required, suggestion
from jaxkd.models.norms import NORMS
from jaxkd.models.wrapper import Wrapper
from jaxkd.types import Array, Outputs

INPUT, OUTPUT = ':input', ':output'
COLLECTIONS = ('params', 'batch_stats')
TAPS = 'jaxkd_taps'  # a collection, so that jax.checkpoint returns taps

# Arguments of `__call__` that select the mode, and their values in train mode.
MODES = {
  'train': True,
  'training': True,
  'is_training': True,
  'deterministic': False,
  'use_running_average': False,
}


def adapt(
  network: nn.Module,
  num_classes: int | None = None,
  taps: Mapping[str, str] | None = None,
  mode: str | None = None,
) -> 'Adapted':
  """Returns a Linen module as a network that can be a learner or a guide.

  Args:
    network: its `__call__` takes the image [B, H, W, C] first and returns
      logits [B, K], `Outputs`, or a tuple whose first entry is the logits.
    num_classes: K; by default the module's attribute of that name.
    taps: name -> location, see above; in addition to the module's own taps.
    mode: the argument of `__call__` that is True in train mode, 'not NAME' for
      one that is False in train mode, '' for none. By default, those that are
      in `MODES`.

  Raises:
    ValueError: not a Linen module; K or the train flag is unknown.
  """
  class_name = type(network).__name__
  if not isinstance(network, nn.Module):
    raise ValueError(
      f'adapt takes a Linen module, got {network!r}; for modules of flax.nnx'
      ' use from_nnx'
    )
  if num_classes is None:
    num_classes = getattr(network, 'num_classes', None)
  if num_classes is None:
    raise ValueError(
      f'{class_name} has no attribute num_classes: pass num_classes to adapt'
    )
  train_flags = find_train_flags(type(network).__call__, mode, class_name)
  return Adapted(network, num_classes, locations(taps or {}), train_flags)


class Adapted(Wrapper, nn.Module):
  """A Linen module as a network; made by `adapt`.

  Attributes:
    inner: the module.
    num_classes: K.
    taps: name -> location.
    train_flags: arguments of `__call__` that select the mode -> their values in
      train mode; None if it is not known whether there are any.
  """

  inner: Any
  num_classes: int
  taps: Mapping[str, str] = FrozenDict()
  train_flags: Mapping[str, bool] | None = None

  def __hash__(self):
    """Leaves out the module, whose attributes may be lists."""
    return hash((type(self.inner), self.num_classes, self.taps))

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C].

    Raises:
      KeyError: a tap of a module that does not exist, with suggestions.
      ValueError: unsupported variables or outputs.
    """
    # A clone without a parent, so that names cannot conflict: it is applied to
    # the same variables, with the same random keys.
    network, rngs = self.inner.clone(parent=None), rngs_of(self)
    arguments, paths = mode_arguments(self.train_flags, train), set()
    with nn.intercept_methods(_sow_taps({*self.taps.values()}, paths)):
      if self.is_initializing():
        result, updated = network.init_with_output(rngs, image, **arguments)
      else:
        mutable = filter(self.is_mutable_collection, (*COLLECTIONS, NORMS))
        result, updated = network.apply(
          self.variables,
          image,
          rngs=rngs,
          mutable=[*mutable, TAPS],
          **arguments,
        )
    sown: dict[Any, Any] = traverse_util.flatten_dict(updated.get(TAPS, {}))
    values = {path[-1]: value for path, (value,) in sown.items()}
    class_name = type(self.inner).__name__
    if self.is_initializing():
      _check_collections(updated, self.train_flags, class_name)
    put_variables(
      self, {name: updated.get(name, {}) for name in (*COLLECTIONS, NORMS)}
    )
    return to_outputs(
      class_name, result, self.num_classes, self.taps, values, paths
    )

  @property
  def wrapped(self) -> Any:
    """The module."""
    return self.inner


def _sow_taps(wanted: set[str], paths: set[str]) -> Callable[..., Any]:
  """Returns an interceptor that sows taps and records the modules' paths.

  An array is sown in a collection of the module itself, because values from
  inside a transformation such as `nn.remat` cannot be used outside of it.

  Args:
    wanted: locations, 'PATH:input' or 'PATH:output'.
    paths: the path of each module that is called is added to it.
  """

  def intercept(method, args, kwargs, context):
    result, module = method(*args, **kwargs), context.module
    if context.method_name == '__call__' and module.scope and module.path:
      path = '/'.join(module.path)
      paths.add(path)
      first = [*args, *kwargs.values(), None][0]
      for location, value in ((path + OUTPUT, result), (path + INPUT, first)):
        if location in wanted:
          module.sow(TAPS, location, value, reduce_fn=_last)
    return result

  return intercept


def _last(old: tuple[Any, ...], new: Any) -> tuple[Any, ...]:
  """Reduces the values that several calls of a module sow to the last one."""
  del old
  return (new,)


def _check_collections(
  variables: Mapping[str, Any],
  train_flags: Mapping[str, bool] | None,
  class_name: str,
) -> None:
  """Checks that a training can update all of a module's variables."""
  for name in sorted({*variables} - {*COLLECTIONS, TAPS}):
    raise ValueError(
      f'{class_name} has variables in the collection {name!r}; only'
      f' {" and ".join(COLLECTIONS)} are supported'
    )
  if 'batch_stats' in variables and train_flags is None:
    raise ValueError(
      f'{class_name} has batch statistics, but its __call__ takes none of'
      f" {', '.join(MODES)}: pass mode='NAME' if the argument NAME is True in"
      " train mode, mode='not NAME' if it is False in train mode, or mode='' if"
      ' no argument selects the mode'
    )


def locations(taps: Mapping[str, str]) -> FrozenDict[str, str]:
  """Returns taps with full locations: 'PATH:input' or 'PATH:output'.

  Raises:
    ValueError: a malformed location.
  """
  full = {}
  for name, location in taps.items():
    path, colon, side = str(location).partition(':')
    if not path or colon + side not in ('', INPUT, OUTPUT):
      raise ValueError(
        f'tap {name!r} must be the path of a module, such as'
        f" 'encoder/block3' or 'encoder/block3{INPUT}', got {location!r}"
      )
    full[name] = path + (colon + side or OUTPUT)
  return FrozenDict(full)


def find_train_flags(
  call: Callable[..., Any], mode: str | None, class_name: str
) -> FrozenDict[str, bool] | None:
  """Returns the arguments that select train or eval mode, see `Adapted`.

  Args:
    call: the `__call__` of a module, unbound.
    mode: see `adapt`.
    class_name: the name of the module's class.

  Raises:
    ValueError: `call` does not take the argument `mode`, or has another
      argument without a default.
  """
  parameters = list(inspect.signature(call).parameters.values())
  others = {p.name: p for p in parameters[2:]}  # after self and the image
  flags = {name: value for name, value in MODES.items() if name in others}
  if mode is not None:
    name = mode.removeprefix('not ')
    flags = {name: MODES.get(mode, mode == name)} if mode else {}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if mode and name not in others and not takes_any:
      raise ValueError(
        f'{class_name}.__call__ takes no {name!r}. {suggestion(name, others)}'
      )
  for name, parameter in others.items():
    if is_required(parameter) and name not in flags:
      raise ValueError(
        f'{class_name}.__call__ needs {name!r} in addition to the image: pass'
        f" mode={name!r} if it is True in train mode, mode='not {name}' if it"
        ' is False in train mode; otherwise adapt a module that calls this one'
        ' with it'
      )
  return None if mode is None and not flags else FrozenDict(flags)


def mode_arguments(
  train_flags: Mapping[str, bool] | None, train: bool
) -> dict[str, bool]:
  """Returns the keyword arguments of `__call__` that select the mode."""
  return {name: on == train for name, on in (train_flags or {}).items()}


def rngs_of(module: nn.Module) -> dict[str, Array]:
  """Returns the random keys of a bound module by stream."""
  scope: Any = module.scope
  return {name: key.as_jax_rng() for name, key in scope.rngs.items()}


def put_variables(
  module: nn.Module, variables: Mapping[str, Mapping[str, Any]]
) -> None:
  """Sets the variables of a bound module in its mutable collections."""
  for collection, tree in variables.items():
    if module.is_mutable_collection(collection):
      for name, value in tree.items():
        module.put_variable(collection, name, value)


def to_outputs(
  class_name: str,
  result: Any,
  num_classes: int,
  taps: Mapping[str, str],
  values: Mapping[str, Any],
  paths: set[str],
) -> Outputs:
  """Returns the result of a module's `__call__` as `Outputs`.

  Args:
    class_name: the name of the module's class.
    result: logits, `Outputs` or a tuple whose first entry is the logits.
    num_classes: K.
    taps: name -> location.
    values: inputs and outputs of submodules by location.
    paths: of all submodules.

  Raises:
    KeyError: a tap of a module that does not exist, with suggestions.
    ValueError: logits that are not [B, K]; a tap that is not an array, or that
      the module has already.
  """
  own, logits = {}, result
  if isinstance(result, Outputs):
    own, logits = result.taps, result.logits
  elif isinstance(result, tuple | list):
    logits = result[0]
  shape = getattr(logits, 'shape', None)
  if shape is None or len(shape) != 2 or shape[1] != num_classes:
    raise ValueError(
      f'{class_name} must return logits [B, {num_classes}], alone or first in a'
      f' tuple, got {_describe(logits)}'
    )
  all_taps = dict(own)
  for name, location in taps.items():
    path = location.rpartition(':')[0]
    if name in own:
      raise ValueError(
        f'{class_name} already has a tap {name!r}: choose another name'
      )
    if path not in paths:
      raise UnknownNameError(
        f'tap {name!r}: {class_name} has no module {path!r}.'
        f' {suggestion(path, paths)}'
      )
    if location not in values:
      raise ValueError(
        f'tap {name!r}: the values in {path!r} stay inside a transformation,'
        ' such as a scan over layers; tap the module that contains it'
      )
    if not hasattr(values[location], 'shape'):
      raise ValueError(
        f'tap {name!r}: {location} must be an array, got'
        f' {_describe(values[location])}'
      )
    all_taps[name] = values[location]
  return Outputs(logits.astype(jnp.float32), all_taps)


def _describe(value: Any) -> str:
  shape = getattr(value, 'shape', None)
  return f'a {type(value).__name__}' if shape is None else f'an array {shape}'
