"""Trees of arrays by name: list, select, count, compare, fit and digest."""

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any  # nested dicts of arrays, as in `jaxkd.types`


def leaves(tree: Tree) -> dict[str, Any]:
  """Returns the tree's leaves by name, 'a/b/c', in the tree's order."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in flat
  }


def from_leaves(named: dict[str, Any]) -> Tree:
  """Returns nested dicts of leaves by name, 'a/b/c': inverts `leaves`."""
  tree: Tree = {}
  for name, leaf in named.items():
    *parents, last = name.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def shapes(net: Any, input_shape: tuple[int, int, int]) -> Tree:
  """Returns the shapes of a Linen module's variables; nothing is computed.

  Args:
    net: the module.
    input_shape: [H, W, C] of one image.

  Returns:
    The module's collections as trees of `jax.ShapeDtypeStruct`: 'params',
    'batch_stats' ({} if it has none) and any others.
  """
  image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  variables = jax.eval_shape(net.init, jax.random.key(0), image)
  return {'batch_stats': {}, **variables}


def select(tree: Tree, pattern: str) -> Tree:
  """Returns a tree of bools: whether a regular expression matches the name."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: bool(
      re.search(pattern, jax.tree_util.keystr(path, simple=True, separator='/'))
    ),
    tree,
  )


def count(tree: Tree) -> int:
  """Returns the number of entries of all arrays of a tree."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def differences(tree: Tree, model: Tree) -> list[str]:
  """Returns a line for each leaf that is missing, extra or of another shape.

  Args:
    tree: a tree of arrays, as read from a checkpoint.
    model: the tree of arrays or of `jax.ShapeDtypeStruct` that it should be.
  """
  have = {name: tuple(leaf.shape) for name, leaf in leaves(tree).items()}
  want = {name: tuple(leaf.shape) for name, leaf in leaves(model).items()}
  lines = [f'  - {n} {want[n]}: missing' for n in want if n not in have]
  lines += [
    f'  + {n} {have[n]}: not in the model' for n in have if n not in want
  ]
  lines += [
    f'  ! {n}: checkpoint {have[n]}, model {want[n]}'
    for n in want
    if n in have and have[n] != want[n]
  ]
  return lines


def fit(tree: Tree, model: Tree, what: str) -> Tree:
  """Returns the leaves of `tree` in the structure of `model`.

  Args:
    tree: a tree of arrays, as read from a checkpoint.
    model: a tree of arrays or of `jax.ShapeDtypeStruct`.
    what: the name of `tree` in the message.

  Raises:
    ValueError: a leaf is missing, extra or of another shape; the message lists
      all of them.
  """
  lines = differences(tree, model)
  if lines:
    raise ValueError(f'{what} does not fit the model:\n' + '\n'.join(lines))
  named = leaves(tree)
  _, structure = jax.tree.flatten(model)
  return jax.tree.unflatten(structure, [named[name] for name in leaves(model)])


def digest(tree: Tree) -> str:
  """Returns the SHA-256 of the leaves' sorted names, types, shapes and bytes.

  Two trees have the same digest if and only if they are equal bit for bit.
  """
  sha = hashlib.sha256()
  for name, leaf in sorted(leaves(tree).items()):
    array = np.asarray(leaf)
    sha.update(f'{name} {array.dtype} {array.shape}\n'.encode())
    sha.update(np.ascontiguousarray(array).tobytes())
  return sha.hexdigest()
