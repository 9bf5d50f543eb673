"""Networks on disk: model cards, files, and one loader for all of them.

`load` reads a network from any folder or file, `load_card` only its card, and
`load_function` the function that it computes, also from an exported program.
"""

from jaxkd.checkpoints.card import Card, SavedNetwork, card_of, model_name
from jaxkd.checkpoints.load import (
  Kind,
  find,
  hub_settings,
  kind_of,
  load,
  load_card,
  load_function,
)
from jaxkd.checkpoints.native import save, save_pretrained

__all__ = [
  'Card',
  'Kind',
  'SavedNetwork',
  'card_of',
  'find',
  'hub_settings',
  'kind_of',
  'load',
  'load_card',
  'load_function',
  'model_name',
  'save',
  'save_pretrained',
]
