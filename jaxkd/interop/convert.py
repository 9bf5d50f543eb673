"""The command line of `jaxkd.interop.torch`."""

import argparse
import pathlib
import sys

from jaxkd import saved, tree
from jaxkd.interop import checkpoints, files
from jaxkd.interop.torch import to_state_dict

MISTAKES = (ImportError, KeyError, OSError, ValueError)
LARGE = ('imagenet_', 'vit_', 'deit_', 'rvt_')  # what takes images of 224 x 224
EPILOG = """\
IN and OUT: a PyTorch state dict (.pth, .pt, .safetensors, .npz) and a network
of jaxkd (a folder, or an .npz file), or the other way round. What IN is decides
the direction.
"""


def main(arguments: list[str] | None = None) -> None:
  """Runs the command; a mistake of the user's ends in a message and status 1.

  Args:
    arguments: of the command line; None takes the process's.
  """
  parser = argparse.ArgumentParser(
    prog='python -m jaxkd.interop.torch',
    description='Converts networks between PyTorch and jaxkd.',
    epilog=EPILOG,
  )
  parser.add_argument('model', help='a name such as resnet32x4')
  parser.add_argument('source', metavar='IN', type=pathlib.Path)
  parser.add_argument('target', metavar='OUT', type=pathlib.Path)
  parser.add_argument(
    '--image-size',
    type=int,
    help='side of the images, which the MACs on the card are for; 224 for'
    ' ImageNet networks and transformers, 32 for others, if not given',
  )
  given = parser.parse_args(arguments)
  side = given.image_size or (224 if given.model.startswith(LARGE) else 32)
  try:
    print(convert(given.model, given.source, given.target, side))
  except MISTAKES as error:
    sys.exit(f'\njaxkd: {error}')


def convert(
  model: str, source: pathlib.Path, target: pathlib.Path, side: int
) -> str:
  """Writes a network in the other of PyTorch's and jaxkd's ways.

  Args:
    model: a key of `models.CATALOG`.
    source: of either kind.
    target: of the other kind; made anew.
    side: of the images that its card is about, in pixels.

  Returns:
    What has been done, in a line.

  Raises:
    FileNotFoundError: there is no source.
    ImportError: PyTorch is needed and absent.
    KeyError: no such model; a target of another kind.
    ValueError: the source is damaged, or another model.
  """
  if not source.exists():
    raise FileNotFoundError(f'no such file: {source}')
  if files.is_state_dict(source):
    variables, card = checkpoints.load(source, model, (side, side, 3))
    save = saved.save_file if target.suffix else saved.save_network
    save(target, variables, card)
  else:
    variables, card = saved.load_checkpoint(source)
    if card['model'] != model:
      raise ValueError(f'{source} is a {card["model"]}, not a {model}')
    width = card.get('width', 1)
    files.write(target, to_state_dict(model, variables, width=width), card)
  count = len(tree.leaves(dict(variables)))
  return (
    f'{model}, {card["num_classes"]} classes, {card["params"]:,} parameters:'
    f' {count} arrays written to {target}'
  )
