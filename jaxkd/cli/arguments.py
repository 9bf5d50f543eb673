"""Arguments that several commands share, and what they stand for."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from jaxkd import disk

RUN = 'the folder of a run'


def reworded(text: str) -> str:
  """Returns a text with the flags of jaxkd.main as this command has them."""
  text = re.sub(r'--mode=(\w+)', r'`jaxkd \1`', text)
  return re.sub(r'--config\.(?=\w)', '', text)


def config(parser: argparse.ArgumentParser) -> None:
  """Adds a config and its settings."""
  parser.add_argument(
    'config',
    metavar='CONFIG',
    help='a name that `jaxkd configs` lists, or a file; NAME:ARGUMENT passes an'
    ' argument to its get_config, as in kd_cifar:resnet20,resnet8',
  )
  settings(parser)


def settings(parser: argparse.ArgumentParser) -> None:
  """Adds settings of a config."""
  parser.add_argument(
    'settings',
    metavar='KEY=VALUE',
    nargs='*',
    help='changes a setting of the config, as in student.name=resnet8; tuples'
    ' and mappings are quoted: "method.objective={\'kd\': 0.9}"',
  )


def loaded(name: str, changes: Sequence[str]) -> Any:
  """Returns the config of a name, changed and checked; see `config`."""
  from jaxkd.commands import config_files

  own = config_files.load(name)
  config_files.change(own, changes)
  return config_files.prepare(own)


def run(parser: argparse.ArgumentParser, what: str = RUN) -> None:
  """Adds a run."""
  parser.add_argument('run', metavar='RUN', help=what)


def network(parser: argparse.ArgumentParser, more: str = '') -> None:
  """Adds the name of a network of a run."""
  parser.add_argument(
    '--network',
    default='',
    metavar='NAME',
    help='of the run; by default its student, or else its teacher' + more,
  )


def elsewhere(parser: argparse.ArgumentParser) -> None:
  """Adds the settings of data and network, for networks outside of runs."""
  settings(parser)
  parser.add_argument(
    '--config',
    default='',
    metavar='CONFIG',
    help='for a network outside of runs: a config with its data, and with how'
    ' it is connected to them (section teacher)',
  )


def data_config(args: argparse.Namespace) -> Any:
  """Returns the config of the options of `elsewhere`, or None without any."""
  from jaxkd import config as configs
  from jaxkd.commands import config_files
  from jaxkd.runs import layout
  from jaxkd.training import mesh

  mesh.check_devices()
  if not (args.config or args.settings):
    return None
  is_run = layout.is_run(disk.expanded(args.run))
  others = [x for x in args.settings if not x.startswith('data.dir=')]
  if is_run and others:
    raise ValueError(
      f'{args.run} is a run, which has its own settings: only data.dir can be'
      f' another one here, got {others[0]}'
    )
  if not (args.config or is_run):
    raise ValueError(
      f'{args.run} is not a run, and {args.settings[0]} changes a config: name'
      ' it by --config=CONFIG'
    )
  own = config_files.load(args.config) if args.config else configs.default()
  config_files.change(own, args.settings)
  configs.check(own)
  return own
