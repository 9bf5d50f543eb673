"""Networks that were not written for jaxkd: any Linen module, unedited.

`adapt` puts a module where a network of the catalogue can stand. Its variables
keep their names and initial values; what its parts return becomes taps. A tap
is chosen by the path of a module, under which its parameters lie:

  'encoder/block3'        what that module returned
  'encoder/block3:input'  the first argument that it was given

in the last call of its `__call__`. Features that a classifier 'head' reads are
'head:input'.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import traverse_util
from flax.core import FrozenDict

from jaxkd.catalog import COLLECTING, UnknownNameError, suggestion
from jaxkd.models.norms import NORMS
from jaxkd.types import Array, Outputs

INPUT, OUTPUT = ':input', ':output'
COLLECTIONS = ('params', 'batch_stats')
TAPS = 'jaxkd_taps'  # a collection, so that jax.checkpoint lets taps out

# Arguments of `__call__` that say the mode, and what they are in train mode.
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
  """Returns a Linen module as a network that can teach and be taught.

  Args:
    network: its `__call__` takes the image [B, H, W, C] first and returns
      logits [B, K], `Outputs`, or a tuple whose first entry is the logits.
    num_classes: K; None takes the module's attribute of that name.
    taps: name -> place, see above; beside those that it returns itself.
    mode: the argument of `__call__` that is True in train mode, 'not NAME' for
      one that is False, '' for none. By default, those that are in `MODES`.

  Raises:
    ValueError: not a Linen module; K or the argument for the mode is unknown.
  """
  kind = type(network).__name__
  if not isinstance(network, nn.Module):
    raise ValueError(
      f'adapt takes a Linen module, got {network!r}; networks of flax.nnx are'
      ' taken by from_nnx'
    )
  if num_classes is None:
    num_classes = getattr(network, 'num_classes', None)
  if num_classes is None:
    raise ValueError(f'{kind} has no attribute num_classes: give it to adapt')
  switches = switches_of(type(network).__call__, mode, kind)
  return Adapted(network, num_classes, places(taps or {}), switches)


class Adapted(nn.Module):
  """A Linen module in the place of a network; made by `adapt`.

  Attributes:
    inner: the module.
    num_classes: K.
    taps: name -> place.
    switches: arguments by which it is told the mode -> their value in train
      mode; None if none have been found.
  """

  inner: Any
  num_classes: int
  taps: Mapping[str, str] = FrozenDict()
  switches: Mapping[str, bool] | None = None

  def __hash__(self):
    """Leaves out the module, whose attributes may be lists."""
    return hash((type(self.inner), self.num_classes, self.taps))

  def __call__(self, image: Array, train: bool = False) -> Outputs:
    """Returns logits [B, K] and taps of the image [B, H, W, C].

    Raises:
      KeyError: a tap of a module that there is not, with suggestions.
      ValueError: variables or results that a network does not have.
    """
    # A clone is no part of this module, so that no names can be in conflict: it
    # is run on the same variables, with the same keys.
    network, keys = self.inner.clone(parent=None), keys_of(self)
    arguments, paths = told(self.switches, train), set()
    with nn.intercept_methods(_watch({*self.taps.values()}, paths)):
      if self.is_initializing():
        said, made = network.init_with_output(keys, image, **arguments)
      else:
        kept = filter(self.is_mutable_collection, (*COLLECTIONS, NORMS))
        said, made = network.apply(
          self.variables, image, rngs=keys, mutable=[*kept, TAPS], **arguments
        )
    sown: dict[Any, Any] = traverse_util.flatten_dict(made.get(TAPS, {}))
    seen = {path[-1]: value for path, (value,) in sown.items()}
    kind = type(self.inner).__name__
    if self.is_initializing():
      _check(made, self.switches, kind)
    put(self, {name: made.get(name, {}) for name in (*COLLECTIONS, NORMS)})
    return outputs_of(kind, said, self.num_classes, self.taps, seen, paths)

  @property
  def width(self) -> float:
    """The network's channel multiplier, if it has one."""
    return getattr(self.inner, 'width', 1)

  @property
  def branches(self) -> int:
    """Of the network's convolutions, if it has any."""
    return getattr(self.inner, 'branches', 1)

  @property
  def dtype(self) -> Any:
    """The network's compute type, if it says one."""
    return getattr(self.inner, 'dtype', None) or jnp.float32


def _watch(wanted: set[str], paths: set[str]) -> Callable[..., Any]:
  """Returns an interceptor that keeps what is wanted, and all modules' paths.

  Arrays go by way of the module's own collection, since those inside of a
  transformation such as `nn.remat` mean nothing outside of it.
  """

  def note(method, args, kwargs, context):
    said, module = method(*args, **kwargs), context.module
    if context.method_name == '__call__' and module.scope and module.path:
      path = '/'.join(module.path)
      paths.add(path)
      given = [*args, *kwargs.values(), None][0]
      for place, value in ((path + OUTPUT, said), (path + INPUT, given)):
        if place in wanted:
          module.sow(TAPS, place, value, reduce_fn=_last)
    return said

  return note


def _last(old: tuple[Any, ...], new: Any) -> tuple[Any, ...]:
  """Returns what a collection keeps of two calls."""
  del old
  return (new,)


def _check(
  made: Mapping[str, Any], switches: Mapping[str, bool] | None, kind: str
) -> None:
  """Refuses variables that a training would not carry along, or not move."""
  for name in sorted({*made} - {*COLLECTIONS, TAPS}):
    raise ValueError(
      f'{kind} has variables in the collection {name!r}; a network can have'
      f' those in {" and ".join(COLLECTIONS)} only'
    )
  if 'batch_stats' in made and switches is None:
    raise ValueError(
      f'{kind} has batch statistics, but its __call__ takes none of'
      f" {', '.join(MODES)}: give mode='NAME' if the argument NAME is True in"
      " train mode, mode='not NAME' if it is False then, mode='' if none is"
    )


def places(taps: Mapping[str, str]) -> FrozenDict[str, str]:
  """Returns taps with their places in full: 'PATH:input' or 'PATH:output'.

  Raises:
    ValueError: not a place.
  """
  found = {}
  for name, place in taps.items():
    path, colon, side = str(place).partition(':')
    if not path or colon + side not in ('', INPUT, OUTPUT):
      raise ValueError(
        f'tap {name!r} is {place!r}; it has to be the path of a module, such as'
        f" 'encoder/block3', or 'encoder/block3{INPUT}'"
      )
    found[name] = path + (colon + side or OUTPUT)
  return FrozenDict(found)


def switches_of(
  call: Callable[..., Any], mode: str | None, kind: str
) -> FrozenDict[str, bool] | None:
  """Returns by which arguments a network is told the mode, see `Adapted`.

  Args:
    call: its `__call__`, unbound.
    mode: see `adapt`.
    kind: the name of its class.

  Raises:
    ValueError: `call` does not take the mode, or needs what nobody gives.
  """
  parameters = list(inspect.signature(call).parameters.values())
  behind = {p.name: p for p in parameters[2:]}  # of itself and the image
  found = {name: on for name, on in MODES.items() if name in behind}
  if mode is not None:
    name = mode.removeprefix('not ')
    found = {name: MODES.get(mode, mode == name)} if mode else {}
    collects = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if mode and name not in behind and not collects:
      raise ValueError(
        f'{kind}.__call__ takes no {name!r}. {suggestion(name, behind)}'
      )
  for name, parameter in behind.items():
    optional = parameter.default is not parameter.empty
    if not (optional or name in found or parameter.kind in COLLECTING):
      raise ValueError(
        f'{kind}.__call__ needs {name!r} beside the image: give mode={name!r}'
        f" if it is True in train mode, mode='not {name}' if it is False then;"
        ' if it is something else, adapt a module that calls this one with it'
      )
  return None if mode is None and not found else FrozenDict(found)


def told(switches: Mapping[str, bool] | None, train: bool) -> dict[str, bool]:
  """Returns the arguments that tell a network the mode."""
  return {name: on == train for name, on in (switches or {}).items()}


def keys_of(module: nn.Module) -> dict[str, Array]:
  """Returns the keys that a bound module was given, by stream."""
  scope: Any = module.scope
  return {name: key.as_jax_rng() for name, key in scope.rngs.items()}


def put(module: nn.Module, variables: Mapping[str, Mapping[str, Any]]) -> None:
  """Makes variables those of a bound module, where it may change them."""
  for collection, tree in variables.items():
    if module.is_mutable_collection(collection):
      for name, value in tree.items():
        module.put_variable(collection, name, value)


def outputs_of(
  kind: str,
  said: Any,
  num_classes: int,
  taps: Mapping[str, str],
  seen: Mapping[str, Any],
  paths: set[str],
) -> Outputs:
  """Returns a network's results as `Outputs`.

  Args:
    kind: the name of its class.
    said: what its `__call__` has returned.
    num_classes: K.
    taps: name -> place.
    seen: arrays by place.
    paths: of all of its modules.

  Raises:
    KeyError: a tap of a module that there is not, with suggestions.
    ValueError: no logits [B, K]; a tap that is no array, or is there already.
  """
  own, logits = {}, said
  if isinstance(said, Outputs):
    own, logits = said.taps, said.logits
  elif isinstance(said, tuple | list):
    logits = said[0]
  shape = getattr(logits, 'shape', None)
  if shape is None or len(shape) != 2 or shape[1] != num_classes:
    raise ValueError(
      f'{kind} returned {_what(logits)}, but logits are [B, {num_classes}], and'
      ' returned alone or first in a tuple'
    )
  found = dict(own)
  for name, place in taps.items():
    path = place.rpartition(':')[0]
    if name in own:
      raise ValueError(
        f'{kind} has a tap {name!r} of its own: take another name'
      )
    if path not in paths:
      raise UnknownNameError(
        f'tap {name!r}: {kind} has no module {path!r}.'
        f' {suggestion(path, paths)}'
      )
    if place not in seen:
      raise ValueError(
        f'tap {name!r}: what {path!r} does stays inside a transformation, such'
        ' as a scan over layers; tap the module that holds it'
      )
    if not hasattr(seen[place], 'shape'):
      raise ValueError(
        f'tap {name!r}: {place} is {_what(seen[place])}, no array'
      )
    found[name] = seen[place]
  return Outputs(logits.astype(jnp.float32), found)


def _what(value: Any) -> str:
  shape = getattr(value, 'shape', None)
  return f'a {type(value).__name__}' if shape is None else f'an array {shape}'
