"""Networks on disk: model cards, files, and one door to all of them.

`load` reads a network from wherever one lies, `load_card` its card alone, and
`load_function` what it computes, which is all that an exported program has.
"""

from jaxkd.checkpoints.card import Card, SavedNetwork, card_of, model_name
from jaxkd.checkpoints.load import (
  Kind,
  find,
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
  'kind_of',
  'load',
  'load_card',
  'load_function',
  'model_name',
  'save',
  'save_pretrained',
]
