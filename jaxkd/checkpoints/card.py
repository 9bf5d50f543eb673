"""The model card of a network: what it is, and the module that it describes."""

from typing import Any

import flax.linen as nn

from jaxkd import models, tree
from jaxkd.types import DTYPES, Variables


def card_of(
  name: str,
  variables: Variables,
  num_classes: int,
  image_shape: tuple[int, int, int],
  **settings: Any,
) -> dict[str, Any]:
  """Returns the card of a network of which no more is known than it itself.

  Args:
    name: of the network, see `build`.
    variables: its arrays.
    num_classes: K.
    image_shape: [H, W, C].
    **settings: arguments of the network.
  """
  particular = {k: x for k, x in settings.items() if k != 'width'}
  return {
    'model': name,
    'width': float(settings.get('width', 1)),
    **({'settings': particular} if particular else {}),
    'num_classes': num_classes,
    'image_shape': list(image_shape),
    'params': tree.count(variables['params']),
    'macs': models.macs(
      models.build(name, num_classes, **settings), image_shape
    ),
    'params_sha256': tree.digest(variables),
  }


def module_of(card: dict[str, Any], **changes: Any) -> nn.Module:
  """Returns the module that a card describes, with some attributes changed."""
  settings = {key: card.get(key, 1) for key in ('width', 'branches')}
  settings['dtype'] = DTYPES[card.get('compute_dtype', 'float32')]
  settings['read_out'] = card.get('read_out', 'softmax')
  settings['taps'] = card.get('taps')
  settings['reused'] = card.get('reused')
  settings |= card.get('settings', {}) | changes
  return models.build(card['model'], card['num_classes'], **settings)


def fitted(
  variables: Variables, card: dict[str, Any], what: str = 'the network'
) -> Variables:
  """Returns the variables in the structure of the card's module.

  Raises:
    ValueError: with every array of `what` that does not fit.
  """
  shapes = tree.shapes(module_of(card), tuple(card['image_shape']))
  return tree.fit(variables, shapes, what)
