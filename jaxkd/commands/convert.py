"""Converts networks between PyTorch and jaxkd.

python -m jaxkd.commands.convert resnet32x4 IN.pth OUT
"""

import argparse
import pathlib
import sys

from jaxkd import checkpoints, tree
from jaxkd.checkpoints import Card, Kind
from jaxkd.interop import files
from jaxkd.interop.torch import to_state_dict

MISTAKES = (ImportError, KeyError, OSError, ValueError)
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
IN and OUT: a PyTorch state dict (.pth, .pt, .safetensors, .npz) and a network
of jaxkd (a folder, or an .npz file), or the other way round. The kind of IN
decides the direction.
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
    ' networks and transformers, 32 32 3 for others, by default',
  )
  parser.add_argument('--width', type=float, default=1.0, help='multiplier')
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
  flags = parser.parse_args(arguments)
  side = 224 if flags.model.startswith(LARGE) else 32
  height, width, channels = flags.image_shape or (side, side, 3)
  shape = height, width, channels
  try:
    print(
      convert(
        flags.model,
        flags.source,
        flags.target,
        shape,
        flags.width,
        (tuple(flags.mean), tuple(flags.std)),
      )
    )
  except MISTAKES as error:
    sys.exit(f'\njaxkd: {error}')


def convert(
  model: str,
  source: pathlib.Path,
  target: pathlib.Path,
  image_shape: tuple[int, int, int],
  width: float = 1.0,
  normalisation: tuple[tuple[float, ...], tuple[float, ...]] = ((), ()),
) -> str:
  """Converts a network from PyTorch's format to jaxkd's, or back.

  Args:
    model: a key of `models.CATALOG`.
    source: of either kind.
    target: of the other kind; replaced if it exists.
    image_shape: [H, W, C] of the images that it will be used with.
    width: of a state dict's network, unless its file has a card.
    normalisation: mean and std of the images of a state dict's network, per
      channel and on the scale of 0 to 1; (): those on its card, if any.

  Returns:
    A report of one line.

  Raises:
    FileNotFoundError: there is no source.
    ImportError: PyTorch is needed and absent.
    KeyError: no such model; a target of another kind.
    ValueError: the source is corrupt, or another model; a normalisation of
      other channels, or of a network of jaxkd, whose card has one.
  """
  if not source.exists():
    raise FileNotFoundError(f'no such file: {source}')
  if checkpoints.kind_of(source) is Kind.STATE_DICT:
    if target.suffix in files.WRITERS and target.suffix != '.npz':
      raise ValueError(
        f'{source} is a state dict, and so would {target} be: a network of'
        ' jaxkd is a folder or an .npz file'
      )
    variables, card = checkpoints.load(source, model, image_shape, width=width)
    _check(source, model, card)
    card = _normalised(card, *normalisation)
    checkpoints.save(target, variables, card)
  else:
    if any(normalisation):
      raise ValueError(
        f'{source} is a network of jaxkd: --mean and --std are for state dicts'
      )
    variables, card = checkpoints.load(source)
    _check(source, model, card)
    state_dict = to_state_dict(model, variables, **card.arguments)
    files.write(target, state_dict, card.to_json())
  count = len(tree.leaves(dict(variables)))
  return (
    f'{model}, {card.num_classes} classes, {card.params:,} parameters:'
    f' {count} arrays written to {target}'
  )


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
