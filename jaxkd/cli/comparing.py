"""The arguments of `jaxkd compare` and `jaxkd sweep`."""

import argparse
import pathlib

from jaxkd import disk
from jaxkd.cli import arguments


def _path(value: str | None) -> pathlib.Path | None:
  return disk.expanded(value) if value else None


def compare_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `jaxkd compare`."""
  parser.add_argument(
    'runs',
    metavar='RUN',
    nargs='+',
    help='folders of runs or studies, folders with runs in them, or quoted'
    " patterns like 'runs/*'; runs of the same settings are grouped over seeds",
  )
  for name, what in (
    ('html', 'a page with a plot of every seed'),
    ('csv', 'a line for each recipe, with all digits'),
    ('latex', 'a table for the package booktabs'),
  ):
    parser.add_argument(f'--{name}', metavar='FILE', help=f'to write: {what}')
  parser.add_argument(
    '--per-seed', action='store_true', help='of --csv: a line for each run'
  )
  parser.add_argument(
    '--baseline',
    default='',
    metavar='RECIPE',
    help='that differences are taken from: words of its label, or one of its'
    ' runs; by default the first',
  )
  parser.add_argument(
    '--metric',
    default='',
    metavar='NETWORK/METRIC',
    help='such as student/nll; by default the headline, such as the accuracy',
  )


def compare(args: argparse.Namespace) -> None:
  """Compares runs."""
  from jaxkd.commands import compare as command

  print(
    command.run(
      args.runs,
      baseline=args.baseline,
      metric=args.metric,
      html=_path(args.html),
      csv=_path(args.csv),
      latex=_path(args.latex),
      per_seed=args.per_seed,
    )
  )


def sweep_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `jaxkd sweep`."""
  arguments.config(parser)
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='the folder of all runs; what is finished in it is not run again',
  )
  parser.add_argument(
    '--over',
    action='append',
    default=[],
    metavar='KEY=A,B',
    help='a setting and its values; several --over are combined. Commas in'
    ' brackets or quotes belong to a value, as in'
    ' schedule.milestones=(0.5,0.75),(0.9,)',
  )
  parser.add_argument(
    '--seeds',
    default='',
    metavar='N',
    help='their number, 5 for 0 to 4; or a list like 3,7 (one: 7,)',
  )
  parser.add_argument(
    '--jobs',
    type=int,
    default=0,
    metavar='N',
    help='runs at a time, by default 1 (with slurm: all); they share the cores'
    ' or the GPUs of this machine',
  )
  parser.add_argument(
    '--launcher',
    choices=('process', 'slurm', 'local'),
    default='process',
    help='slurm submits each run as a job by submitit, and waits for them;'
    ' local does so on this machine',
  )
  parser.add_argument(
    '--slurm',
    action='append',
    default=[],
    metavar='KEY=VALUE',
    help="of slurm: a parameter of submitit's, such as timeout_min=600,"
    ' gpus_per_node=1 or slurm_partition=NAME',
  )
  parser.add_argument(
    '--print',
    action='store_true',
    help='print the commands, one in a line, and run nothing',
  )


def sweep(args: argparse.Namespace) -> int:
  """Runs a grid of settings; returns the exit status."""
  from jaxkd.commands import sweep as command

  return command.run(
    args.config,
    args.settings,
    disk.expanded(args.workdir),
    over=args.over,
    seeds=args.seeds,
    options=command.Options(args.jobs, args.launcher, args.slurm, args.print),
  )
