"""Converts networks between PyTorch and jaxkd.

python -m jaxkd.commands.convert resnet32x4 IN.pth OUT
"""

import argparse
import pathlib

from jaxkd import checkpoints, disk, tree
from jaxkd.checkpoints import Card, Kind
from jaxkd.commands import errors
from jaxkd.interop import files
from jaxkd.interop.torch import to_state_dict

LARGE = ('imagenet_', 'vit_', 'deit_', 'rvt_')  # of images of 224 x 224
EPILOG = """\
IN and OUT: a PyTorch state dict (.pth, .pt, .safetensors, .npz) and a network
of jaxkd (a folder, or an .npz file), or the other way round. The kind of IN
decides the direction.
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
    help='of the images that a network of jaxkd is for; 224 224 3 for ImageNet'
    ' networks and transformers, 32 32 3 for others, by default',
  )
  parser.add_argument('--width', type=float, default=1.0, help='multiplier')
  parser.add_argument(
    '--debug', action='store_true', help='show where an error comes from'
  )
  flags = parser.parse_args(arguments)
  side = 224 if flags.model.startswith(LARGE) else 32
  height, width, channels = flags.image_shape or (side, side, 3)
  shape = height, width, channels

  def run():
    source, target = disk.expanded(flags.source), disk.expanded(flags.target)
    print(convert(flags.model, source, target, shape, flags.width))

  errors.run(run, debug=flags.debug)


def convert(
  model: str,
  source: pathlib.Path,
  target: pathlib.Path,
  image_shape: tuple[int, int, int],
  width: float = 1.0,
) -> str:
  """Converts a network from PyTorch's format to jaxkd's, or back.

  Args:
    model: a key of `models.CATALOG`.
    source: of either kind.
    target: of the other kind; replaced if it exists.
    image_shape: [H, W, C] of the images that it will be used with.
    width: of a state dict's network, unless its file has a card.

  Returns:
    A report of one line.

  Raises:
    FileNotFoundError: there is no source.
    ImportError: PyTorch is needed and absent.
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
    variables, card = checkpoints.load(source, model, image_shape, width=width)
    _check(source, model, card)
    checkpoints.save(target, variables, card)
  else:
    variables, card = checkpoints.load(source)
    _check(source, model, card)
    state_dict = to_state_dict(model, variables, **card.arguments)
    files.write(target, state_dict, card.to_json())
  count = len(tree.leaves(dict(variables)))
  return (
    f'{model}, {card.num_classes} classes, {card.params:,} parameters:'
    f' {count} arrays written to {target}'
  )


def _check(source: pathlib.Path, model: str, card: Card) -> None:
  if card.model != model:
    raise ValueError(f'{source} is a {card.model}, not a {model}')


if __name__ == '__main__':
  main()
