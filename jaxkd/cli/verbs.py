"""The commands of `jaxkd`, one for each thing to do.

A command's libraries are imported when it runs, so that help comes at once.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from jaxkd import disk
from jaxkd.cli import arguments, comparing


@dataclasses.dataclass(frozen=True)
class Command:
  """A verb of the command line.

  summary: one line.
  examples: how it is used.
  arguments: adds its arguments to a parser.
  run: does it, and returns the exit status, None for 0.
  """

  summary: str
  examples: tuple[str, ...]
  arguments: Callable[[argparse.ArgumentParser], Any]
  run: Callable[[argparse.Namespace], int | None]


def _path(value: str | None) -> pathlib.Path | None:
  return disk.expanded(value) if value else None


def _train_arguments(parser: argparse.ArgumentParser) -> None:
  arguments.config(parser)
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='the folder of the run, which is made; an interrupted run is resumed',
  )


def _train(args: argparse.Namespace) -> None:
  config = arguments.loaded(args.config, args.settings)
  from jaxkd.commands import train

  train.run(config, disk.expanded(args.workdir))


def _describe(args: argparse.Namespace) -> None:
  config = arguments.loaded(args.config, args.settings)
  from jaxkd.commands import describe

  print(describe.run(config))


def _store_arguments(parser: argparse.ArgumentParser) -> None:
  arguments.config(parser)
  parser.add_argument(
    '--output', required=True, metavar='FILE', help='the file to write'
  )


def _store(args: argparse.Namespace) -> None:
  config = arguments.loaded(args.config, args.settings)
  from jaxkd.commands import store

  print(arguments.reworded(store.run(config, disk.expanded(args.output))))


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
  arguments.run(parser, f'{arguments.RUN} or of a network, or an exported file')
  arguments.elsewhere(parser)
  arguments.network(
    parser, '; several, separated by commas, are evaluated as an ensemble'
  )
  parser.add_argument(
    '--file',
    metavar='FILE',
    help="an exported file, to be evaluated on the run's data",
  )


def _eval(args: argparse.Namespace) -> None:
  config = arguments.data_config(args)
  from jaxkd.commands import evaluate

  workdir, file = disk.expanded(args.run), _path(args.file)
  print(evaluate.run(workdir, args.network, file, config))


def _export_arguments(parser: argparse.ArgumentParser) -> None:
  arguments.run(parser)
  parser.add_argument(
    'file',
    metavar='FILE',
    help='to write; its suffix is the format: .npz, .safetensors, .pth,'
    ' .stablehlo or .onnx',
  )
  arguments.network(parser)


def _export(args: argparse.Namespace) -> None:
  from jaxkd.commands import export
  from jaxkd.training import mesh

  mesh.check_devices()
  workdir, file = disk.expanded(args.run), disk.expanded(args.file)
  print(export.run(workdir, file, args.network))


def _pictures_arguments(parser: argparse.ArgumentParser) -> None:
  arguments.run(parser, f'{arguments.RUN}, or RUN/networks/NAME')
  arguments.elsewhere(parser)
  parser.add_argument(
    '--against', metavar='RUN2', help='another run, which is drawn beside it'
  )
  parser.add_argument(
    '--output', metavar='DIR', help="of the pictures; by default the run's"
  )


def _pictures(args: argparse.Namespace) -> None:
  config = arguments.data_config(args)
  from jaxkd.commands import visualize

  places = disk.expanded(args.run), _path(args.against), _path(args.output)
  print(visualize.run(*places, config))


def _report_arguments(parser: argparse.ArgumentParser) -> None:
  arguments.run(parser, f'{arguments.RUN} or of a study')
  parser.add_argument(
    '--output',
    metavar='FILE',
    help='to write; by default report.html in the folder',
  )


def _report(args: argparse.Namespace) -> None:
  from jaxkd.commands import report
  from jaxkd.training import mesh

  mesh.check_devices()
  print(report.run(disk.expanded(args.run), _path(args.output)))


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
  from jaxkd.commands import convert

  convert.add_arguments(parser)


def _convert(args: argparse.Namespace) -> None:
  from jaxkd.commands import convert

  print(convert.run(args))


def _configs_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'name', metavar='NAME', nargs='?', help='of a config, to print its file'
  )


def _configs(args: argparse.Namespace) -> None:
  from jaxkd.commands import config_files

  if args.name:
    print(config_files.find(args.name).read_text(), end='')
  else:
    print(config_files.listing())


def _doctor(args: argparse.Namespace) -> int:
  del args
  from jaxkd.commands import doctor

  return doctor.run()


COMMANDS = {
  'train': Command(
    'train the networks of a config, or resume that',
    (
      'jaxkd train kd_digits --workdir=runs/kd',
      'jaxkd train gpd_cifar --workdir=runs/gpd epochs=10 student.name=resnet8',
      'jaxkd train kd_cifar:resnet20,resnet8 --workdir=runs/two \\\n'
      "      \"method={'name': 'distil', 'objective': {'kd': 0.9,"
      " 'crd': 0.8}}\"",
    ),
    _train_arguments,
    _train,
  ),
  'eval': Command(
    'evaluate a network of a run, or an exported file',
    (
      'jaxkd eval runs/kd',
      'jaxkd eval runs/kd --network=teacher,student',
      'jaxkd eval runs/kd --file=student.onnx',
      'jaxkd eval resnet50.npz --config=kd_cifar data.name=folder:pictures',
    ),
    _eval_arguments,
    _eval,
  ),
  'compare': Command(
    'compare finished runs over their seeds',
    (
      'jaxkd compare runs/sweep',
      "jaxkd compare 'runs/kd_*' 'runs/gpd_*' --baseline=kd --html=kd.html",
      'jaxkd compare runs/seeds --metric=student/nll --csv=nll.csv',
    ),
    comparing.compare_arguments,
    comparing.compare,
  ),
  'export': Command(
    'write a network without what only training needs',
    (
      'jaxkd export runs/kd student.onnx',
      'jaxkd export runs/kd teacher.safetensors --network=teacher',
    ),
    _export_arguments,
    _export,
  ),
  'describe': Command(
    'print the phases, networks and transfers of a config',
    ('jaxkd describe gpd_cifar', 'jaxkd describe kd_digits student.width=0.25'),
    arguments.config,
    _describe,
  ),
  'convert': Command(
    'convert networks between PyTorch and jaxkd',
    (
      'jaxkd convert resnet32x4 teacher.pth teacher.npz',
      'jaxkd convert resnet8 runs/kd/networks/student student.safetensors',
    ),
    _convert_arguments,
    _convert,
  ),
  'sweep': Command(
    'run a grid of settings over seeds, and compare them',
    (
      'jaxkd sweep kd_digits --workdir=runs/sweep --seeds=3 \\\n'
      "      --over 'method.temperature=1,4' --over 'teacher.loss=cross_entropy"
      ",brier'",
      'jaxkd sweep dkd_cifar:vgg13,vgg8 --workdir=runs/beta --seeds=3,7 \\\n'
      "      --over 'method.objective.beta=2,6' epochs=60 --jobs=2",
      'jaxkd sweep kd_cifar --workdir=runs/kd --seeds=5 --print > commands.sh',
      'jaxkd sweep kd_cifar --workdir=runs/kd --seeds=5 --launcher=slurm \\\n'
      '      --slurm timeout_min=900 --slurm gpus_per_node=1',
    ),
    comparing.sweep_arguments,
    comparing.sweep,
  ),
  'store': Command(
    "write a teacher's logits, to train without the teacher",
    (
      'jaxkd store kd_digits --output=teacher.store store.views=4',
      'jaxkd train kd_digits --workdir=runs/stored'
      ' teacher.outputs=teacher.store',
    ),
    _store_arguments,
    _store,
  ),
  'pictures': Command(
    'draw the features and class correlations of students',
    ('jaxkd pictures runs/kd --against=runs/plain --output=pictures',),
    _pictures_arguments,
    _pictures,
  ),
  'report': Command(
    'write the page of a run or of a study again',
    ('jaxkd report runs/kd', 'jaxkd report runs/seeds --output=seeds.html'),
    _report_arguments,
    _report,
  ),
  'configs': Command(
    'list the configs, or print one',
    ('jaxkd configs', 'jaxkd configs gpd_cifar > my_config.py'),
    _configs_arguments,
    _configs,
  ),
  'doctor': Command(
    'show what is installed, what is missing, and what is where',
    ('jaxkd doctor',),
    lambda parser: None,
    _doctor,
  ),
}
