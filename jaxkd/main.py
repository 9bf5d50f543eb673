"""The command line: `python -m jaxkd.main --config=FILE --workdir=DIR`."""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from jaxkd import disk
from jaxkd.commands import config_files, errors

CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='A config file; --config.KEY=VALUE changes a setting in it.',
  # Unknown keys are explained by jaxkd.config.check, in files as in flags.
  lock_config=False,
  accept_new_attributes=True,
)
WORKDIR = flags.DEFINE_string('workdir', None, 'The folder of the run.')
MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'eval', 'export', 'pictures', 'report', 'store'],
  'train: start a run, or resume an interrupted one. eval: evaluate a network'
  ' of a run. export: write a network of a run to --output, without the parts'
  ' that only training needs, as arrays (.npz), as a PyTorch state dict'
  ' (.safetensors, .pth) or as a program (.stablehlo, .onnx). pictures: draw'
  ' features and class correlations of the students of a run and of --against.'
  ' report: write the page of a run or a study again, to --output.'
  " store: write the teacher's logits for the training images to --output, from"
  ' which --config.teacher.outputs trains without the teacher.',
)
NETWORK = flags.DEFINE_string(
  'network',
  '',
  'eval and export: the name of a network of the run; by default its student,'
  ' or else its teacher. eval: several, separated by commas, are evaluated as'
  ' an ensemble, whose probabilities are the mean of theirs.',
)
OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'export: the file to write, whose suffix is its format. store: the file to'
  ' write. eval: an exported'
  " file to evaluate instead of the run's network. pictures: their folder; by"
  " default the run's. report: the file; by default report.html in the run.",
)
AGAINST = flags.DEFINE_string(
  'against',
  None,
  'pictures: another run, whose student is drawn beside the first. Here, and in'
  ' --workdir, RUN/networks/NAME is another network of a run.',
)
DESCRIBE = flags.DEFINE_bool('describe', False, 'Print the graph and stop.')
DEBUG = flags.DEFINE_bool('debug', False, 'Show where an error comes from.')


def _config():
  """Returns the checked config, after making its devices."""
  if CONFIG.value is None:
    raise ValueError('--config=FILE is needed, e.g. configs/kd_digits.py')
  return config_files.prepare(CONFIG.value)


def _workdir() -> pathlib.Path:
  """Returns the folder of a run that is evaluated, exported or drawn."""
  from jaxkd.training.mesh import check_devices

  check_devices()
  return _folder()


def _folder() -> pathlib.Path:
  if not WORKDIR.value:
    raise ValueError('--workdir=DIR is needed, the folder of the run')
  return disk.expanded(WORKDIR.value)


def _main(argv: list[str]) -> None:
  """Runs the command of the flags; only its libraries are imported."""
  if argv[1:]:
    raise ValueError(f'unknown arguments: {" ".join(argv[1:])}')
  # orbax logs whole tracebacks of errors that it also raises.
  logging.set_verbosity(logging.WARNING if DEBUG.value else logging.FATAL)
  output = disk.expanded(OUTPUT.value) if OUTPUT.value else None
  if DESCRIBE.value:
    from jaxkd.commands import describe

    print(describe.run(_config()))
  elif MODE.value == 'eval':
    from jaxkd.commands import evaluate

    print(evaluate.run(_workdir(), NETWORK.value, output, CONFIG.value))
  elif MODE.value == 'export':
    from jaxkd.commands import export

    if output is None:
      raise ValueError('--output=FILE is needed, the file to write')
    print(export.run(_workdir(), output, NETWORK.value))
  elif MODE.value == 'pictures':
    from jaxkd.commands import visualize

    against = disk.expanded(AGAINST.value) if AGAINST.value else None
    print(visualize.run(_workdir(), against, output, CONFIG.value))
  elif MODE.value == 'report':
    from jaxkd.commands import report

    print(report.run(_workdir(), output))
  elif MODE.value == 'store':
    from jaxkd.commands import store

    if output is None:
      raise ValueError('--output=FILE is needed, the file to write')
    print(store.run(_config(), output))
  else:
    from jaxkd.commands import train

    train.run(_config(), _folder())


def main(argv: list[str] | None = None) -> None:
  """Runs the command; a failure ends in a message and a status.

  See `errors.run` for the statuses. --debug shows a traceback instead.

  Args:
    argv: the command line, its first word the program's name; None takes the
      process's.
  """
  argv = sys.argv if argv is None else argv
  errors.run(
    lambda: app.run(_main, argv, flags_parser=_parse),
    debug='--debug' in argv,  # flags may not have been parsed
    parsed=flags.FLAGS.is_parsed,
  )


def _expanded(argv: list[str]) -> list[str]:
  """Returns a command line with ~ and variables in --config=FILE replaced."""
  words = list(argv)
  for n, word in enumerate(words):
    name, equals, value = word.partition('=')
    if name in ('--config', '-config'):
      if equals:
        words[n] = f'{name}={disk.expanded(value)}'
      elif n + 1 < len(words):
        words[n + 1] = str(disk.expanded(words[n + 1]))
  return words


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags; returns the arguments that are not flags.

  Raises:
    ValueError: a flag that does not exist, or with a value of another type; a
      config file that has no get_config(). What it raises is raised as it is.
  """
  try:
    return flags.FLAGS(_expanded(argv))
  except AttributeError as error:
    if 'get_config' not in str(error):
      raise
    raise ValueError(
      'the file of --config has no function get_config(), which returns a'
      ' config like that of jaxkd.config.default()'
    ) from error
  except flags.Error as error:
    first = errors.first_of(error)
    if errors.place_of_user(first):  # an error in the config file
      raise first from None
    hint = config_files.hint(error)
    raise ValueError(f'{error}{hint}. (--helpshort lists the flags)') from error


if __name__ == '__main__':
  main()
