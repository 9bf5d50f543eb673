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
from jaxkd.types import Variables

# Networks of images of 224 x 224.
LARGE = (
  'imagenet_',
  'efficientnet_',
  'convnext_',
  'vit_',
  'deit_',
  'rvt_',
)
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
  add_arguments(parser)
  parser.add_argument(
    '--debug', action='store_true', help='show where an error comes from'
  )
  flags = parser.parse_args(arguments)
  errors.run(lambda: print(run(flags)), debug=flags.debug)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of the command to a parser."""
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
  for name, of in (('mean', 'means'), ('std', 'standard deviations')):
    parser.add_argument(
      f'--{name}',
      nargs='+',
      type=float,
      default=(),
      metavar='X',
      help=f'the {of} of the channels, on a scale of 0 to 1, by which the'
      ' images in the training of a PyTorch network were normalised',
    )


def run(flags: argparse.Namespace) -> str:
  """Converts as the arguments say; see `convert`."""
  return convert(
    flags.model,
    disk.expanded(flags.source),
    disk.expanded(flags.target),
    flags.image_shape,
    flags.width,
    flags.weights,
    (tuple(flags.mean), tuple(flags.std)),
  )


def convert(
  model: str,
  source: pathlib.Path,
  target: pathlib.Path,
  image_shape: Sequence[int] | None = None,
  width: float = 1.0,
  weights: str = '',
  normalisation: tuple[tuple[float, ...], tuple[float, ...]] = ((), ()),
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
    normalisation: mean and std of the images of a state dict's network, per
      channel and on the scale of 0 to 1; (): those on its card, if any.

  Returns:
    A report of one line, and one for each note on what was taken.

  Raises:
    FileNotFoundError: there is no source.
    ImportError: a .pth file is written, and PyTorch is absent.
    KeyError: no such model; a target of another kind.
    ValueError: the source is corrupt, or another model; a normalisation of
      other channels, or of a network of jaxkd, whose card has one.
  """
  if not source.exists():
    raise FileNotFoundError(f'no such file: {source}')
  disk.check_writable(target.parent, 'the folder of the output')
  kind = checkpoints.kind_of(source)
  if kind is Kind.STATE_DICT:
    rows, columns, channels = image_shape or _image_shape(source, model)
    variables, card = checkpoints.load(
      source, model, (rows, columns, channels), weights, width=width
    )
    _check(source, model, card)
    card = _normalised(card, *normalisation)
    _save(source, target, variables, card)
  else:
    if any(normalisation) and kind in (None, Kind.NETWORK):
      raise ValueError(
        f'{source} is a network of jaxkd: --mean and --std are for state dicts'
      )
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


def _save(
  source: pathlib.Path, target: pathlib.Path, variables: Variables, card: Card
) -> None:
  """Writes a network that was read from a state dict.

  Raises:
    ValueError: the target is a state dict, too.
  """
  if target.suffix in files.WRITERS and target.suffix != '.npz':
    raise ValueError(
      f'{source} is a state dict, and so would {target} be: a network of'
      ' jaxkd is a folder or an .npz file'
    )
  checkpoints.save(target, variables, card)


def _image_shape(source: pathlib.Path, model: str) -> tuple[int, ...]:
  card = checkpoints.load_card(source)
  if card and card.image_shape:
    return card.image_shape
  side = 224 if model.startswith(LARGE) else 32
  return side, side, 3


def _normalised(
  card: Card, mean: tuple[float, ...], std: tuple[float, ...]
) -> Card:
  """Returns the card with another normalisation of images, if one is given."""
  if not (mean or std):
    return card
  channels = card.image_shape[-1]
  if not (len(mean) == len(std) == channels):
    raise ValueError(
      f'--mean and --std need a number for each of the {channels} channels, got'
      f' {len(mean)} and {len(std)}'
    )
  if min(std) <= 0:
    raise ValueError(f'--std must be positive, got {min(std)}')
  return card.replace(mean=mean, std=std, scale=255.0)


def _check(source: pathlib.Path, model: str, card: Card) -> None:
  if card.model != model:
    raise ValueError(f'{source} is a {card.model}, not a {model}')


if __name__ == '__main__':
  main()
