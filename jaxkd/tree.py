"""Trees of arrays by name: list, select, compare, count, digest."""

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
  """Returns the nested dicts that `leaves` took apart."""
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
    'params' and 'batch_stats', the latter {} if it has none, and what else it
    has.
  """
  image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  found = jax.eval_shape(net.init, jax.random.key(0), image)
  return {'batch_stats': {}, **found}


def select(tree: Tree, pattern: str) -> Tree:
  """Returns a tree of bools: does the regular expression occur in the name?"""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: bool(
      re.search(pattern, jax.tree_util.keystr(path, simple=True, separator='/'))
    ),
    tree,
  )


def count(tree: Tree) -> int:
  """Returns how many numbers the tree holds."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def differences(found: Tree, wanted: Tree) -> list[str]:
  """Returns a line for each leaf that is missing, extra or of another shape."""
  have = {name: tuple(leaf.shape) for name, leaf in leaves(found).items()}
  want = {name: tuple(leaf.shape) for name, leaf in leaves(wanted).items()}
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


def fit(found: Tree, wanted: Tree, what: str) -> Tree:
  """Returns `found` in the structure of `wanted`, or explains why it cannot.

  Args:
    found: a tree of arrays, as read from a file.
    wanted: a tree of arrays or of `jax.ShapeDtypeStruct`.
    what: how to call `found` in the message.

  Raises:
    ValueError: with every leaf that is missing, extra or of another shape.
  """
  lines = differences(found, wanted)
  if lines:
    raise ValueError(f'{what} does not fit the model:\n' + '\n'.join(lines))
  have = leaves(found)
  _, structure = jax.tree.flatten(wanted)
  return jax.tree.unflatten(structure, [have[name] for name in leaves(wanted)])


def digest(tree: Tree) -> str:
  """Returns the SHA-256 of names, types, shapes and bytes, names in order.

  Two trees have the same digest exactly if they are equal bit for bit.
  """
  sha = hashlib.sha256()
  for name, leaf in sorted(leaves(tree).items()):
    array = np.asarray(leaf)
    sha.update(f'{name} {array.dtype} {array.shape}\n'.encode())
    sha.update(np.ascontiguousarray(array).tobytes())
  return sha.hexdigest()
