"""Converts networks between PyTorch and jaxkd.

python -m jaxkd.commands.convert resnet32x4 IN.pth OUT
"""

import argparse
import pathlib
import sys
from typing import Any

from jaxkd import tree
from jaxkd.checkpoints import load, native
from jaxkd.interop import files
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
    prog='python -m jaxkd.commands.convert',
    description='Converts networks between PyTorch and jaxkd.',
    epilog=EPILOG,
  )
  parser.add_argument('model', help='a name such as resnet32x4')
  parser.add_argument('source', metavar='IN', type=pathlib.Path)
  parser.add_argument('target', metavar='OUT', type=pathlib.Path)
  parser.add_argument(
    '--image-shape',
    nargs=3,
    type=int,
    metavar=('H', 'W', 'C'),
    help='of the images that a network of jaxkd is for; 224 224 3 for ImageNet'
    ' networks and transformers, 32 32 3 for others, if not given',
  )
  parser.add_argument('--width', type=float, default=1.0, help='multiplier')
  given = parser.parse_args(arguments)
  side = 224 if given.model.startswith(LARGE) else 32
  height, width, channels = given.image_shape or (side, side, 3)
  shape = height, width, channels
  try:
    print(convert(given.model, given.source, given.target, shape, given.width))
  except MISTAKES as error:
    sys.exit(f'\njaxkd: {error}')


def convert(
  model: str,
  source: pathlib.Path,
  target: pathlib.Path,
  image_shape: tuple[int, int, int],
  width: float = 1.0,
) -> str:
  """Writes a network in the other of PyTorch's and jaxkd's ways.

  Args:
    model: a key of `models.CATALOG`.
    source: of either kind.
    target: of the other kind; made anew.
    image_shape: [H, W, C] of the images that its card is about.
    width: of a network whose state dict does not say it.

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
    is_file = target.suffix in files.WRITERS
    if is_file and target.suffix != '.npz':
      raise ValueError(
        f'{source} is a state dict, and so would {target} be: one of jaxkd'
        ' is a folder or an .npz file'
      )
    variables, card = load.load(source, model, image_shape, width=width)
    _check(source, model, card)
    save = native.save_file if is_file else native.save_network
    save(target, variables, card)
  else:
    variables, card = native.load_checkpoint(source)
    _check(source, model, card)
    settings = {'width': card.get('width', 1), **card.get('settings', {})}
    files.write(target, to_state_dict(model, variables, **settings), card)
  count = len(tree.leaves(dict(variables)))
  return (
    f'{model}, {card["num_classes"]} classes, {card["params"]:,} parameters:'
    f' {count} arrays written to {target}'
  )


def _check(source: pathlib.Path, model: str, card: dict[str, Any]) -> None:
  if card['model'] != model:
    raise ValueError(f'{source} is a {card["model"]}, not a {model}')


if __name__ == '__main__':
  main()
