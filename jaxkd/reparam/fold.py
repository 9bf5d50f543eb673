"""Folding: what stands before or in a BatchNorm becomes part of its neighbour.

BatchNorm in eval mode is linear, so a bias in front of it can move into its
mean, and all of it can move into the convolution in front of it.
"""

from typing import NamedTuple

import flax.linen as nn
import jax

from jaxkd import tree
from jaxkd.types import Array, Variables


class Affine(NamedTuple):
  """A convolution's or linear layer's arrays.

  kernel: [..., O].
  bias: [O].
  """

  kernel: Array
  bias: Array


def fold_batch_norm(
  layer: Affine,
  scale: Array,
  bias: Array,
  mean: Array,
  var: Array,
  epsilon: float = 1e-5,
) -> Affine:
  """Returns the layer that does what `layer` and BatchNorm in eval mode do.

  K' = K a and b' = bias + (b - mean) a, with a = scale / sqrt(var + epsilon).

  Args:
    layer: what BatchNorm reads; a bias of zeros if it has none.
    scale: of BatchNorm, [O].
    bias: of BatchNorm, [O].
    mean: its running mean, [O].
    var: its running variance, [O].
    epsilon: its own.
  """
  a = scale * jax.lax.rsqrt(var + epsilon)
  kernel = layer.kernel * a.reshape((1,) * (layer.kernel.ndim - 1) + (-1,))
  return Affine(kernel, bias + (layer.bias - mean) * a)


def followers(
  net: nn.Module, input_shape: tuple[int, int, int]
) -> dict[str, str]:
  """Returns which BatchNorm reads which layer's result, by their names.

  Found by tracing: the normalisation is called with the very array that the
  layer has returned. A layer that several of them read is left out. (A reader
  of another kind, a sum for example, is not seen.)

  Args:
    net: any Linen module.
    input_shape: [H, W, C] of one image.
  """
  made: dict[int, tuple[str, object]] = {}  # keeps the array, hence its id
  found: dict[str, list[str]] = {}

  def watch(method, args, kwargs, context):
    if context.method_name != '__call__':
      return method(*args, **kwargs)
    path = '/'.join(context.module.path)
    result = method(*args, **kwargs)
    if args and 'mean' in context.module.variables.get('batch_stats', {}):
      if id(args[0]) in made:
        found.setdefault(made[id(args[0])][0], []).append(path)
    elif 'kernel' in context.module.variables.get('params', {}):
      made.setdefault(id(result), (path, result))
    return result

  with nn.intercept_methods(watch):
    tree.shapes(net, input_shape)
  return {layer: norms[0] for layer, norms in found.items() if len(norms) == 1}


def fold_biases(
  variables: Variables,
  net: nn.Module,
  input_shape: tuple[int, int, int],
  what: str = 'the network to be deployed',
) -> Variables:
  """Returns variables of `net`, whose layers may lack a bias that these have.

  mean' = mean - b: exact. (Dropping such a bias instead, as the published code
  does, changes the network as soon as the bias is not zero.)

  Args:
    variables: such as `merge` returns.
    net: the network they are for.
    input_shape: [H, W, C] of one image.
    what: how to call the variables in a message.

  Raises:
    ValueError: the variables do not fit; a bias has no BatchNorm behind it.
  """
  wanted = tree.shapes(net, input_shape)
  params = tree.leaves(variables['params'])
  stats = tree.leaves(variables['batch_stats'])
  extra = params.keys() - tree.leaves(wanted['params']).keys()
  behind = followers(net, input_shape) if extra else {}
  for name in extra:
    layer, _, last = name.rpartition('/')
    if last == 'bias' and layer in behind:
      mean = f'{behind[layer]}/mean'
      stats[mean] = stats[mean] - params.pop(name)  # not in the caller's array
  found = {
    'params': tree.from_leaves(params),
    'batch_stats': tree.from_leaves(stats),
  }
  return tree.fit(found, wanted, what)
