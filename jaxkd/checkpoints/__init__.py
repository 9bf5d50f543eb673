"""Networks on disk: model cards, files, and one loader for all of them.

`load` reads a network from any folder or file, `load_card` only its card, and
`load_function` the function that it computes, also from an exported program.
`read_function` reads functions of Python and programs of other tools.
"""

from jaxkd.checkpoints.card import Card, SavedNetwork, card_of, model_name
from jaxkd.checkpoints.functions import PREFIX as FUNCTION
from jaxkd.checkpoints.functions import Function, card_of_file, is_function
from jaxkd.checkpoints.functions import read as read_function
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
  'FUNCTION',
  'Card',
  'Function',
  'Kind',
  'SavedNetwork',
  'card_of',
  'card_of_file',
  'find',
  'hub_settings',
  'is_function',
  'kind_of',
  'load',
  'load_card',
  'load_function',
  'model_name',
  'read_function',
  'save',
  'save_pretrained',
]
