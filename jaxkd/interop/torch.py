"""Networks from PyTorch's state dicts, and state dicts of our networks.

    python -m jaxkd.commands.convert resnet32x4 IN.pth OUT

converts a file, and a network of jaxkd in the other direction. Only .pth files
need PyTorch.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import models, reparam, tree
from jaxkd.catalog import lookup
from jaxkd.interop import names
from jaxkd.models.mlp import MLP
from jaxkd.types import Variables

# Keys under which a checkpoint may have the state dict: 'model' in RepDistiller
# and mdistiller, 'state_dict' in timm and in jaxkd's own files.
WRAPPERS = ('model', 'state_dict', 'net')
# Prefixes that nn.DataParallel and torch.compile add to every name.
PREFIXES = ('module.', '_orig_mod.')
COUNTER = 'num_batches_tracked'  # of a BatchNorm; nothing here depends on it
HEAD = 'head/kernel'


def from_state_dict(
  name: str, state_dict: Mapping[str, Any], **settings: Any
) -> Variables:
  """Returns a network's variables from a PyTorch state dict.

  The numbers of classes, of input channels and of a ViT's positions are those
  of the state dict. BatchNorm's counters of batches are left out.

  Args:
    name: a key of `models.CATALOG`.
    state_dict: arrays of NumPy or PyTorch by the names of the benchmark
      (RepDistiller, mdistiller), torchvision or timm; or a checkpoint that has
      them under 'model' or 'state_dict'.
    **settings: attributes of the network, such as `width`.

  Returns:
    'params' and 'batch_stats', nested dicts of float32 NumPy arrays.

  Raises:
    KeyError: no such network.
    ValueError: the state dict is another network's; the message has every entry
      that is missing, extra or of another shape.
  """
  _check(name)
  entries = arrays_of(state_dict)
  net = models.build(name, 1, **settings)
  rules = _recognised(net, entries)
  sized = {
    leaf: names.from_torch(leaf, entries[name_there])
    for leaf in (names.first_kernel(net), HEAD, names.POSITIONS)
    if (name_there := names.translate(leaf, rules)) in entries
  }
  leaves = tree.leaves(_shapes(name, sized, settings))
  theirs = {leaf: names.translate(_local(leaf), rules) for leaf in leaves}
  wanted = {
    theirs[leaf]: jax.ShapeDtypeStruct(
      names.to_torch(leaf, np.empty(x.shape)).shape, jnp.float32
    )
    for leaf, x in leaves.items()
  }
  tree.fit(entries, wanted, f'the state dict of a {name}')
  return {'batch_stats': {}} | tree.from_leaves(
    {
      leaf: np.ascontiguousarray(
        names.from_torch(leaf, entries[theirs[leaf]]).reshape(x.shape)
      )
      for leaf, x in leaves.items()
    }
  )


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
    dialect: whose names: 'benchmark', 'timm', 'torchvision', 'akamaster' or
      'authors', if they have the network; '' takes the first of these that
      does.
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
    names.translate(_local(leaf), rules): np.array(
      names.to_torch(leaf, np.asarray(x)), np.float32, order='C'
    )
    for leaf, x in leaves.items()
  }


def _check(name: str) -> None:
  """Refuses a network by import path: PyTorch has no counterpart of it."""
  if models.is_path(name):
    raise ValueError(
      f'{name!r} is a network of your own, whose names in PyTorch are unknown:'
      ' --mode=export writes .npz, .stablehlo and .onnx files of it'
    )


def arrays_of(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns the arrays of a checkpoint by name, unwrapped, without prefixes.

  Args:
    state_dict: see `from_state_dict`.

  Raises:
    ValueError: something in it is not an array.
  """
  for key in WRAPPERS:
    if isinstance(state_dict.get(key), Mapping):
      return arrays_of(state_dict[key])
  odd = [k for k, x in state_dict.items() if not hasattr(x, 'shape')]
  if odd or not state_dict:
    raise ValueError(
      'a state dict has arrays by name, perhaps under one of the keys'
      f' {", ".join(map(repr, WRAPPERS))}; this one'
      + (
        f' has {odd[0]!r}, of type {type(state_dict[odd[0]]).__name__}'
        if odd
        else ' is empty'
      )
    )
  entries = dict(state_dict)
  for prefix in PREFIXES:
    if all(name.startswith(prefix) for name in entries):
      entries = {k.removeprefix(prefix): x for k, x in entries.items()}
  return {
    name: _array(x)
    for name, x in entries.items()
    if name.rpartition('.')[2] != COUNTER
  }


def _array(x: Any) -> np.ndarray:
  """Returns a float32 copy of NumPy's or PyTorch's array, wherever it lies.

  PyTorch may change its array in place later.
  """
  if hasattr(x, 'detach'):
    x = x.detach().float().cpu().numpy()
  return np.array(x, np.float32)


def _recognised(
  net: nn.Module, entries: Mapping[str, np.ndarray]
) -> names.Rules:
  """Returns the dialect whose names of the first and last layer are there."""
  ends = (names.first_kernel(net), HEAD)

  def matches(rules):
    return sum(names.translate(leaf, rules) in entries for leaf in ends)

  return max(names.dialects(net).values(), key=matches)


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
  num_classes = sized[HEAD].shape[-1] if HEAD in sized else 1
  net = models.build(name, **{'num_classes': num_classes, **settings})
  first = sized.get(names.first_kernel(net), np.empty((3, 1)))
  channels = first.shape[-2]
  if isinstance(net, MLP):
    return tree.shapes(net, (1, 1, channels))
  patches = 2  # a side; any number that the network accepts
  if names.POSITIONS in sized:
    patches = math.isqrt(sized[names.POSITIONS].shape[1] - 1)
  side = patches * getattr(net, 'patch', 16)
  return tree.shapes(net, (side, side, channels))


def _local(leaf: str) -> str:
  """Returns the name of a leaf without its collection."""
  return leaf.partition('/')[2]
