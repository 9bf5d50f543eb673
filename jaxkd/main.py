"""The command line: `python -m jaxkd.main --config=FILE --workdir=DIR`."""

import errno
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

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
  ['train', 'eval', 'export', 'pictures'],
  'train: run to the end, or go on with an interrupted run. eval: measure a'
  ' network of a run. export: write a network of a run to --output, without'
  ' what only its training needed, as arrays (.npz), as a PyTorch state dict'
  ' (.safetensors, .pth) or as a program (.stablehlo, .onnx). pictures: draw'
  ' what the students of a run and of --against know.',
)
NETWORK = flags.DEFINE_string(
  'network',
  '',
  'eval and export: which network of the run; its student (or else its'
  ' teacher) if not given. eval: several, with commas between, are measured as'
  ' an ensemble, whose probabilities are the mean of theirs.',
)
OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'export: the file to write, whose suffix says how. eval: an exported file to'
  " measure instead of the run's network. pictures: the folder for them; the"
  " run's if not given.",
)
AGAINST = flags.DEFINE_string(
  'against',
  None,
  'pictures: another run, whose student is drawn beside the first. Here, as in'
  ' --workdir, RUN/networks/NAME is another network of a run.',
)
DESCRIBE = flags.DEFINE_bool('describe', False, 'Print the graph and stop.')
DEBUG = flags.DEFINE_bool('debug', False, 'Show where an error comes from.')

MISTAKES = (
  AttributeError,
  ImportError,  # of what an extra would install
  KeyError,
  OSError,
  TypeError,
  ValueError,
)


def _train() -> None:
  from jaxkd.runs.experiment import build
  from jaxkd.runs.results import result_table
  from jaxkd.runs.run import Run
  from jaxkd.runs.study import is_study

  config = _config()
  if is_study(config):
    _study(config)
    return
  run = Run(build(config), pathlib.Path(_workdir()))
  summary, path = run.summary, run.workdir / 'summary.json'
  if summary:
    print(f'This run is finished: {path}\n')
  else:
    summary = run.finish()
    print(f'\nFinished. Results: {path}\n')
  print(result_table(summary))
  picture = run.draw()
  if picture:
    print(f'\nAccuracy, loss and gap by epoch: {picture}')


def _study(config) -> None:
  from jaxkd.runs.study import Study

  study = Study(config, pathlib.Path(_workdir()))
  summary, path = study.summary, study.workdir / 'summary.json'
  if summary:
    print(f'This study is finished: {path}\n')
  else:
    summary = study.finish()
    print(f'\nFinished. Results: {path}\n')
  print(study.report(summary))
  picture = study.draw(summary)
  if picture:
    print(f'\nOutcome by {config.study.against}: {picture}')


def _describe() -> str:
  from jaxkd.runs.experiment import build
  from jaxkd.runs.study import describe, is_study

  config = _config()
  return describe(config) if is_study(config) else build(config).describe()


def _config():
  from jaxkd.config import check
  from jaxkd.train.mesh import use_cores

  if CONFIG.value is None:
    raise ValueError('--config=FILE is needed, e.g. configs/kd_digits.py')
  check(CONFIG.value)
  use_cores(CONFIG.value.batch_size)
  return CONFIG.value


def _workdir() -> str:
  if not WORKDIR.value:
    raise ValueError('--workdir=DIR is needed, the folder of the run')
  return WORKDIR.value


def _eval() -> None:
  from jaxkd.commands.evaluate import draw, measure

  file = pathlib.Path(OUTPUT.value) if OUTPUT.value else None
  workdir = pathlib.Path(_workdir())
  found = measure(workdir, NETWORK.value, file, CONFIG.value)
  print(found)
  picture = None if file else draw(found, workdir)
  if picture:
    print(f'Accuracy by confidence: {picture}')


def _export() -> None:
  from jaxkd.commands.export import export

  if not OUTPUT.value:
    raise ValueError('--output=FILE is needed, the file to write')
  output = pathlib.Path(OUTPUT.value)
  print(export(pathlib.Path(_workdir()), output, NETWORK.value))
  print(f'Written: {output}')


def _pictures() -> None:
  from jaxkd.commands.visualize import draw

  first = pathlib.Path(_workdir())
  second = pathlib.Path(AGAINST.value) if AGAINST.value else None
  output = pathlib.Path(OUTPUT.value or first)
  print(draw(first, second, output, config=CONFIG.value))


def _main(argv: list[str]) -> None:
  if argv[1:]:
    raise ValueError(f'not understood: {" ".join(argv[1:])}')
  # orbax logs whole tracebacks of errors that it also raises.
  logging.set_verbosity(logging.WARNING if DEBUG.value else logging.FATAL)
  if DESCRIBE.value:
    print(_describe())
  elif MODE.value == 'eval':
    _eval()
  elif MODE.value == 'export':
    _export()
  elif MODE.value == 'pictures':
    _pictures()
  else:
    _train()


def main() -> None:
  """Runs the command; a mistake of the user's ends in a message and status 1.

  --debug shows a traceback instead.
  """
  try:
    app.run(_main, flags_parser=_parse)
  except MISTAKES as error:
    if '--debug' in sys.argv:  # flags may not have been parsed
      raise
    print(f'\njaxkd: {_explain(error)}\n(--debug shows where)', file=sys.stderr)
    sys.exit(1)
  except KeyboardInterrupt:
    print('\njaxkd: interrupted; the same command goes on', file=sys.stderr)
    sys.exit(130)


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags; returns the arguments that are not flags.

  Raises:
    ValueError: a flag that does not exist, or with a value of another type.
  """
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    hint = ''
    if 'as a ConfigDict' in str(error):
      hint = (
        '. The config file has a mapping there, which only another mapping'
        " replaces, like \"{'name': 'dkd'}\" or \"{'kd': 0.9, 'crd': 0.8}\""
      )
    raise ValueError(f'{error}{hint}. (--helpshort lists the flags)') from error


def _explain(error: Exception) -> str:
  """Returns the message, with a remedy where the system has given none."""
  keys = isinstance(error, KeyError | TypeError)
  if keys and not flags.FLAGS.is_parsed():
    return (
      f'--config... names a section that the config does not have: {error}. One'
      ' that is new to it is given as a whole, like'
      " --config.method.objective=\"{'kd': 0.9, 'crd': 0.8}\""
    )
  if not isinstance(error, OSError) or error.errno is None:
    return str(error)
  if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
    return (
      f'{error}. What has been saved is intact: make room, and the same command'
      ' goes on'
    )
  return f'{error}. Is the path right, and may you write there?'


if __name__ == '__main__':
  main()
