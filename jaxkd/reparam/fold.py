"""Folding of biases into the BatchNorm that follows them.

BatchNorm in eval mode is affine, so the bias of a layer before it can be
subtracted from its running mean instead.
"""

import flax.linen as nn

from jaxkd import tree
from jaxkd.types import Variables


def batch_norms_after(
  net: nn.Module, input_shape: tuple[int, int, int]
) -> dict[str, str]:
  """Returns the name of the BatchNorm that follows each layer, by layer name.

  A BatchNorm follows a layer if it is called with the array that the layer
  returned, which is found by tracing. A layer that is followed by several is
  left out. (Other uses of a layer's output, such as a sum, are not noticed.)

  Args:
    net: any Linen module.
    input_shape: [H, W, C] of one image.
  """
  # Keeps the arrays, so that their ids stay unique.
  outputs: dict[int, tuple[str, object]] = {}
  following: dict[str, list[str]] = {}

  def intercept(method, args, kwargs, context):
    if context.method_name != '__call__':
      return method(*args, **kwargs)
    path = '/'.join(context.module.path)
    result = method(*args, **kwargs)
    if args and 'mean' in context.module.variables.get('batch_stats', {}):
      if id(args[0]) in outputs:
        following.setdefault(outputs[id(args[0])][0], []).append(path)
    elif 'kernel' in context.module.variables.get('params', {}):
      outputs.setdefault(id(result), (path, result))
    return result

  with nn.intercept_methods(intercept):
    tree.shapes(net, input_shape)
  return {
    layer: norms[0] for layer, norms in following.items() if len(norms) == 1
  }


def fold_biases(
  variables: Variables,
  net: nn.Module,
  input_shape: tuple[int, int, int],
  what: str = 'the network to be deployed',
) -> Variables:
  """Folds biases that a network does not have into its BatchNorms.

  The running mean becomes mean - bias, which is exact. (The published code
  drops such a bias, which changes the function if the bias is not zero.)

  Args:
    variables: 'params' and 'batch_stats', which may be missing, for example
      from `merge`.
    net: the network without the biases.
    input_shape: [H, W, C] of one image.
    what: the name of the variables in messages.

  Returns:
    Variables of `net`.

  Raises:
    ValueError: the variables do not fit `net`, for example because a bias has
      no BatchNorm after it.
  """
  shapes = tree.shapes(net, input_shape)
  params = tree.leaves(variables['params'])
  stats = tree.leaves(variables.get('batch_stats', {}))
  extra = params.keys() - tree.leaves(shapes['params']).keys()
  norms = batch_norms_after(net, input_shape) if extra else {}
  for name in extra:
    layer, _, last = name.rpartition('/')
    if last == 'bias' and layer in norms:
      mean = f'{norms[layer]}/mean'
      stats[mean] = stats[mean] - params.pop(name)  # not in place
  folded = {
    'params': tree.from_leaves(params),
    'batch_stats': tree.from_leaves(stats),
  }
  return tree.fit(folded, shapes, what)
