"""Converts networks between PyTorch and jaxkd.

python -m jaxkd.commands.convert resnet32x4 IN.pth OUT
"""

import argparse
import pathlib
from collections.abc import Sequence

from jaxkd import checkpoints, disk, tree
from jaxkd.checkpoints import Card, Kind
from jaxkd.commands import errors
from jaxkd.interop import files
from jaxkd.interop.torch import to_state_dict

LARGE = ('imagenet_', 'vit_', 'deit_', 'rvt_')  # of images of 224 x 224
EPILOG = """\
IN and OUT: a PyTorch state dict (.pth, .safetensors, .npz, or a folder of the
Hugging Face hub) and a network of jaxkd (a folder, or an .npz file), or the
other way round. The content of IN decides the direction, the suffix of OUT its
format.
"""


def main(arguments: list[str] | None = None) -> None:
  """Runs the command; a failure ends in a message and a status.

  Args:
    arguments: of the command line; None takes the process's.
  """
  parser = argparse.ArgumentParser(
    prog='python -m jaxkd.commands.convert',
    description='Converts networks between PyTorch and jaxkd.',
    epilog=EPILOG,
  )
  parser.add_argument('model', help='a name such as resnet32x4')
  parser.add_argument('source', metavar='IN')
  parser.add_argument('target', metavar='OUT')
  parser.add_argument(
    '--image-shape',
    nargs=3,
    type=int,
    metavar=('H', 'W', 'C'),
    help='of the images that a network of jaxkd is for; by default that in IN,'
    ' or else 224 224 3 for ImageNet networks and transformers, and 32 32 3 for'
    ' others',
  )
  parser.add_argument('--width', type=float, default=1.0, help='multiplier')
  parser.add_argument(
    '--weights',
    default='',
    help="of a file that has several: 'average', 'raw', or their key in the"
    ' file; the average, if there is one, by default',
  )
  parser.add_argument(
    '--debug', action='store_true', help='show where an error comes from'
  )
  flags = parser.parse_args(arguments)

  def run():
    source, target = disk.expanded(flags.source), disk.expanded(flags.target)
    print(
      convert(
        *(flags.model, source, target),
        *(flags.image_shape, flags.width, flags.weights),
      )
    )

  errors.run(run, debug=flags.debug)


def convert(
  model: str,
  source: pathlib.Path,
  target: pathlib.Path,
  image_shape: Sequence[int] | None = None,
  width: float = 1.0,
  weights: str = '',
) -> str:
  """Converts a network from PyTorch's format to jaxkd's, or back.

  Args:
    model: a key of `models.CATALOG`.
    source: of either kind.
    target: of the other kind; replaced if it exists.
    image_shape: [H, W, C] of the images that it will be used with; None takes
      that in the source, or else the usual one of the model.
    width: of a state dict's network, unless its file has a card.
    weights: of a state dict's file that has several, see `checkpoints.load`.

  Returns:
    A report of one line, and one for each note on what was taken.

  Raises:
    FileNotFoundError: there is no source.
    ImportError: a .pth file is written, and PyTorch is absent.
    KeyError: no such model; a target of another kind.
    ValueError: the source is corrupt, or another model.
  """
  if not source.exists():
    raise FileNotFoundError(f'no such file: {source}')
  disk.check_writable(target.parent, 'the folder of the output')
  if checkpoints.kind_of(source) is Kind.STATE_DICT:
    if target.suffix in files.WRITERS and target.suffix != '.npz':
      raise ValueError(
        f'{source} is a state dict, and so would {target} be: a network of'
        ' jaxkd is a folder or an .npz file'
      )
    shape = image_shape or _image_shape(source, model)
    rows, columns, channels = shape
    variables, card = checkpoints.load(
      source, model, (rows, columns, channels), weights, width=width
    )
    _check(source, model, card)
    checkpoints.save(target, variables, card)
  else:
    variables, card = checkpoints.load(source)
    _check(source, model, card)
    state_dict = to_state_dict(model, variables, **card.arguments)
    files.write(target, state_dict, card.to_json())
  count = len(tree.leaves(dict(variables)))
  report = (
    f'{model}, {card.num_classes} classes, {card.params:,} parameters:'
    f' {count} arrays written to {target}'
  )
  return '\n'.join([report, *(f'{source.name}: {x}' for x in card.notes)])


def _image_shape(source: pathlib.Path, model: str) -> tuple[int, ...]:
  card = checkpoints.load_card(source)
  if card and card.image_shape:
    return card.image_shape
  side = 224 if model.startswith(LARGE) else 32
  return side, side, 3


def _check(source: pathlib.Path, model: str, card: Card) -> None:
  if card.model != model:
    raise ValueError(f'{source} is a {card.model}, not a {model}')


if __name__ == '__main__':
  main()
