"""Networks from PyTorch's state dicts, and state dicts of our networks.

    python -m jaxkd.commands.convert resnet32x4 IN.pth OUT

converts a file, and a network of jaxkd in the other direction. Only writing
.pth files needs PyTorch.
"""

import contextlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import models, reparam, tree
from jaxkd.catalog import lookup
from jaxkd.interop import names, unwrap
from jaxkd.interop.torch_pickle import FLOATS
from jaxkd.interop.unwrap import Weights
from jaxkd.models.mlp import MLP
from jaxkd.types import Variables


class Conversion(NamedTuple):
  """A network from a checkpoint of PyTorch.

  variables: as `from_state_dict` returns them.
  notes: sentences on what was taken and what was left out.
  """

  variables: Variables
  notes: tuple[str, ...]


def from_state_dict(
  name: str, state_dict: Any, weights: str = '', **settings: Any
) -> Variables:
  """Returns a network's variables from a PyTorch state dict.

  The numbers of classes, of input channels and of a ViT's positions are those
  of the state dict. BatchNorm's counters of batches are left out.

  Args:
    name: a key of `models.CATALOG`.
    state_dict: arrays of NumPy or PyTorch by the names of the benchmark
      (RepDistiller, mdistiller), torchvision, timm or Hugging Face, with any
      prefix; or a checkpoint that has them under any key.
    weights: which weights of a checkpoint that has several: 'average', 'raw',
      or their key; '': the average if there is one.
    **settings: attributes of the network, such as `width`.

  Returns:
    'params' and 'batch_stats', nested dicts of float32 NumPy arrays.

  Raises:
    KeyError: no such network.
    ValueError: the state dict is another network's; the message has every entry
      that is missing, extra or of another shape. Or there is more than one.
  """
  return convert(name, state_dict, weights, **settings).variables


def convert(
  name: str, checkpoint: Any, weights: str = '', **settings: Any
) -> Conversion:
  """Returns what `from_state_dict` does, and notes on it."""
  _check(name)
  net = models.build(name, 1, **settings)
  dialects = names.dialects(net)
  leaves = tree.leaves(_shapes(name, {}, settings))
  known = {
    dialect: frozenset(
      there
      for leaf, x in leaves.items()
      for there in _entries(leaf, x.shape, rules)
    )
    for dialect, rules in dialects.items()
  }

  def shapes(found: Weights) -> tuple[dict[str, Any], Variables]:
    """Returns the entries that the network needs, and its own leaves."""
    rules = dialects[found.dialect]
    whole = tree.leaves(_shapes(name, _sized(net, found, rules), settings))
    wanted: dict[str, Any] = {}
    for leaf, x in whole.items():
      wanted |= _entries(leaf, x.shape, rules)
    return wanted, whole

  def fits(found: Weights) -> bool:
    return not tree.differences(found.arrays, shapes(found)[0])

  chosen, notes = unwrap.choose(checkpoint, name, known, fits, weights)
  wanted, whole = shapes(chosen)
  tree.fit(chosen.arrays, wanted, f'the state dict of a {name}')
  arrays = {there: _array(there, chosen.arrays[there]) for there in wanted}
  rules = dialects[chosen.dialect]
  variables = tree.from_leaves(
    {
      leaf: np.ascontiguousarray(
        names.from_entries(_local(leaf), arrays, rules).reshape(x.shape)
      )
      for leaf, x in whole.items()
    }
  )
  return Conversion({'batch_stats': {}} | variables, notes)


def to_state_dict(
  name: str, variables: Variables, dialect: str = '', **settings: Any
) -> dict[str, np.ndarray]:
  """Returns a network's arrays by PyTorch's names, in PyTorch's layout.

  PyTorch's own module loads them with `strict=True`, each through
  `torch.from_numpy`: it counts batches from 0 where BatchNorm's counters are
  missing. An 'mlp' reads its image in the order [H, W, C].

  Args:
    name: a key of `models.CATALOG`.
    variables: as `from_state_dict` returns them.
    dialect: whose names: 'benchmark', 'timm', 'torchvision', 'huggingface', ...
      if they have the network, see `names.dialects`; '' takes the first.
    **settings: attributes of the network, such as `width`.

  Raises:
    KeyError: no such network or dialect, with suggestions.
    ValueError: the variables are another network's, or have branches, which
      PyTorch's module does not have.
  """
  _check(name)
  if reparam.branched_prefixes(variables['params']):
    raise ValueError(
      f'this {name} has convolutions with branches, and its PyTorch module has'
      ' none: merge them by --mode=export, or by jaxkd.reparam.merge'
    )
  wanted = _shapes(name, tree.leaves(variables['params']), settings)
  leaves = tree.leaves(tree.fit(variables, wanted, f'the network {name!r}'))
  dialects = names.dialects(models.build(name, 1, **settings))
  rules = lookup('dialect', dialects, dialect or next(iter(dialects)))
  return {
    there: np.array(array, np.float32, order='C')
    for leaf, x in leaves.items()
    for there, array in names.to_entries(
      _local(leaf), np.asarray(x), rules
    ).items()
  }


def _check(name: str) -> None:
  """Refuses a network by import path: PyTorch has no counterpart of it."""
  if models.is_path(name):
    raise ValueError(
      f'{name!r} is a network of your own, whose names in PyTorch are unknown:'
      ' --mode=export writes .npz, .stablehlo and .onnx files of it'
    )


def _array(name: str, x: Any) -> np.ndarray:
  """Returns a float32 copy of NumPy's or PyTorch's array, wherever it lies.

  PyTorch may change its array in place later.

  Raises:
    ValueError: it has no floating-point numbers.
  """
  if hasattr(x, 'detach'):
    x = x.detach()
    # NumPy lacks some of PyTorch's types of numbers.
    x = (x.float() if x.dtype.is_floating_point else x).cpu().numpy()
  if x.dtype.kind != 'f' and x.dtype.name not in FLOATS:
    raise ValueError(
      f'{name} has numbers of type {x.dtype.name}, expected floating-point'
      ' ones: the network is quantised, or is none. Save it before it is'
      ' quantised'
    )
  return np.array(x, np.float32)


def _entries(
  leaf: str, shape: tuple[int, ...], rules: names.Rules
) -> dict[str, Any]:
  """Returns the entries of a state dict for one of our leaves, without values.

  Args:
    leaf: its name, with the collection.
    shape: here.
    rules: of a dialect.
  """
  blank = np.broadcast_to(np.float32(0), shape)
  return {
    there: jax.ShapeDtypeStruct(x.shape, jnp.float32)
    for there, x in names.to_entries(_local(leaf), blank, rules).items()
  }


def _sized(
  net: nn.Module, found: Weights, rules: names.Rules
) -> dict[str, np.ndarray]:
  """Returns blanks for the arrays whose shapes depend on images and classes.

  Args:
    net: the network.
    found: its weights.
    rules: of their dialect.

  Returns:
    By our names; they have no values, only shapes.
  """
  blanks = {
    name: np.broadcast_to(np.float32(0), tuple(x.shape))
    for name, x in found.arrays.items()
  }
  sized = {}
  for leaf in (names.first_kernel(net), names.HEAD, names.POSITIONS):
    # One that is missing or of another rank is reported later, with all others.
    with contextlib.suppress(KeyError, ValueError):
      sized[leaf] = names.from_entries(leaf, blanks, rules)
  return sized


def _shapes(
  name: str, sized: Mapping[str, Any], settings: dict[str, Any]
) -> Variables:
  """Returns the shapes of a network's variables.

  Args:
    name: of the network.
    sized: arrays by name; those whose shapes depend on the image and the
      classes are enough.
    settings: attributes of the network.
  """
  num_classes = sized[names.HEAD].shape[-1] if names.HEAD in sized else 1
  net = models.build(name, **{'num_classes': num_classes, **settings})
  first = sized.get(names.first_kernel(net), np.empty((3, 1)))
  channels = first.shape[-2]
  if isinstance(net, MLP):
    return tree.shapes(net, (1, 1, channels))
  patches = 2  # a side; any number that the network accepts
  if names.POSITIONS in sized:
    patches = math.isqrt(sized[names.POSITIONS].shape[1] - len(net.TOKENS))
  side = patches * getattr(net, 'patch', 16)
  return tree.shapes(net, (side, side, channels))


def _local(leaf: str) -> str:
  """Returns the name of a leaf without its collection."""
  return leaf.partition('/')[2]
