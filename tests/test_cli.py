"""The command `jaxkd`: its commands, its messages, and its exit status."""

import pathlib
import shlex
import subprocess
import sys

import finished
import jax
import pytest
from absl import flags
from ml_collections import config_flags

from jaxkd import cli
from jaxkd import config as configs
from jaxkd.cli.program import parser_of
from jaxkd.cli.verbs import COMMANDS
from jaxkd.commands import config_files, describe, evaluate, store, train

# ml_collections reads config files in a way that Python 3.12 removes.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module.. method')
ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = [
  (name, example.replace('\\\n', ''))
  for name, command in COMMANDS.items()
  for example in command.examples
]


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
  """Runs a command in an empty folder: (status, stdout, stderr)."""
  (tmp_path / 'empty').mkdir()
  monkeypatch.chdir(tmp_path / 'empty')
  monkeypatch.setattr(sys, 'path', sys.path[:])
  for name in ('JAXKD_CACHE', 'JAXKD_DATA'):
    monkeypatch.setenv(name, str(tmp_path / 'cache'))
  # The number of devices is this process's, and cannot be changed any more.
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', str(jax.device_count()))

  def run(*words):
    capsys.readouterr()  # of what came before
    status = 0
    try:
      cli.main(list(words))
    except SystemExit as stopped:
      status = stopped.code or 0
    out, err = capsys.readouterr()
    assert 'Traceback' not in err
    return status, out, err

  return run


def test_help_names_every_command_and_imports_no_library():
  code = (
    'import sys; from jaxkd import cli; cli.main(["--help"]);'
    'print({"jax", "numpy", "absl", "ml_collections"} & {*sys.modules})'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  )
  *shown, imported = done.stdout.splitlines()
  assert imported == 'set()'
  for name, command in COMMANDS.items():
    assert f'  {name:8}  {command.summary}' in shown


@pytest.mark.parametrize('words', [(), ('--help',), ('-h',), ('help',)])
def test_help_without_a_command(command, words):
  status, out, err = command(*words)
  assert (status, err) == (0, '') and out.startswith('usage: jaxkd COMMAND')


@pytest.mark.parametrize('name', sorted(COMMANDS))
def test_help_of_a_command_has_its_examples(command, name):
  status, out, _ = command(name, '--help')
  assert status == 0
  for example in COMMANDS[name].examples:
    assert f'  {example}' in out
  assert command('help', name)[1] == out


@pytest.mark.parametrize(('name', 'example'), EXAMPLES)
def test_examples_are_commands(name, example):
  words = shlex.split(example.partition(' > ')[0])
  assert words[0] == 'jaxkd' and words[1] in (name, 'train')
  parser = parser_of(words[1], COMMANDS[words[1]])
  parser.check_options(words[2:])
  args = parser.parse_intermixed_args(words[2:])
  if getattr(args, 'config', ''):
    config = config_files.load(args.config)
    config_files.change(config, args.settings)
    configs.check(config)


def test_version(command):
  from jaxkd import __version__

  assert command('--version') == (0, f'jaxkd {__version__}\n', '')


# What a config becomes


def by_flags(name: str, settings: list[str]):
  """Returns a config as `python -m jaxkd.main` reads it."""
  words = [
    'jaxkd',
    f'--config={ROOT}/configs/{name}',
    *(f'--config.{x}' for x in settings),
  ]
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    'config',
    flag_values=values,
    lock_config=False,
    accept_new_attributes=True,
    sys_argv=words,
  )
  values(words)
  return values['config'].value


@pytest.mark.parametrize(
  'settings',
  [
    [],
    ['epochs=3', 'student.width=1', 'baseline=False', 'data.name=cifar10'],
    ['schedule.milestones=(0.5, 0.75)', 'study.seeds=(0,1)'],
    ["method.objective={'kd': 0.9, 'dkd': 0.1}", 'method.name=distil'],
    ["method={'name': 'distil', 'objective': 'dkd'}"],
    ['method.objective=dkd', 'epochs=3', 'epochs=4', 'student.name=a=b'],
    ["teacher.classes={'cat': 'tiger cat'}", 'optimizer.rates.student=0.1'],
    ['data.settings.size=8', "data.settings.mode='x'", 'data.dir=~/x'],
  ],
)
def test_settings_mean_what_they_mean_to_the_other_command(settings):
  config = config_files.load('kd_cifar:resnet20,resnet8')
  config_files.change(config, settings)
  want = by_flags('kd_cifar.py:resnet20,resnet8', settings)
  assert configs.resolved(config) == configs.resolved(want)
  if settings:
    first = config_files.load('kd_cifar:resnet20,resnet8')
    assert configs.resolved(config) != configs.resolved(first)


def test_train_passes_the_config_and_the_folder(command, monkeypatch, tmp_path):
  calls = []
  monkeypatch.setattr(train, 'run', lambda *args: calls.append(args))
  monkeypatch.setenv('HOME', str(tmp_path))
  words = ('kd_digits', 'epochs=3', '--workdir=~/run', 'student.name=mlp')
  pasted = ('kd_digits', '--config.epochs=3', '--config.student.name=mlp')
  for each in (words, (*pasted, '--workdir', '~/run')):
    status, _, err = command('train', *each)
    assert status == 0, err
  (config, workdir), again = calls
  assert workdir == again[1] == tmp_path / 'run'
  assert config.epochs == 3 and config.student.name == 'mlp'
  assert configs.resolved(config) == configs.resolved(again[0])


def test_describe_prints_what_the_other_command_does(command):
  status, out, err = command('describe', 'kd_digits', 'student.name=mlp')
  assert status == 0, err
  config = config_files.load('kd_digits')
  config.student.name = 'mlp'
  assert out == f'{describe.run(config)}\n'


def test_modules_of_the_folder_can_be_networks(command):
  pathlib.Path('own_networks_of_mine.py').write_text(
    'from jaxkd.models import CATALOG\nnetwork = CATALOG["mlp"]\n'
  )
  own = 'student.name=own_networks_of_mine:network'
  status, out, err = command('describe', 'kd_digits', own)
  assert status == 0, err
  assert 'own_networks_of_mine:network' in out


# Finished runs


def test_a_run_is_evaluated_and_exported(command, tmp_path):
  run, file = finished.run('kd'), tmp_path / 'student.npz'
  status, out, err = command('eval', str(run))
  assert status == 0, err
  assert out == f'{evaluate.run(run)}\n'
  status, out, err = command('export', str(run), str(file))
  assert status == 0, err
  assert f'Written: {file}' in out
  status, out, err = command('eval', str(run), f'--file={file}')
  assert status == 0, err
  assert command('eval', str(file))[1] == out
  status, out, _ = command('eval', str(run), '--network=teacher')
  assert status == 0 and out.startswith('teacher, ')
  status, _, err = command('eval', str(run), 'data.dir=x', 'epochs=2')
  assert status == 1 and 'only data.dir can be another one here, got ep' in err
  status, _, err = command('eval', str(file), 'data.name=digits')
  assert status == 1 and 'name it by --config=CONFIG' in err


def test_pictures_are_drawn(command, monkeypatch):
  from jaxkd.commands import visualize

  calls = []
  monkeypatch.setattr(visualize, 'run', lambda *args: calls.append(args))
  command('pictures', 'a', '--against=b', '--output=c')
  command('pictures', 'a')
  a, b, c = map(pathlib.Path, 'abc')
  assert calls == [(a, b, c, None), (a, None, None, None)]


def test_store_names_settings_as_this_command_does(command, monkeypatch):
  said = 'Stored. --config.teacher.outputs=x; --mode=eval; --config=FILE'
  monkeypatch.setattr(store, 'run', lambda *args: said)
  status, out, _ = command('store', 'kd_digits', '--output=x')
  assert status == 0
  assert out == 'Stored. teacher.outputs=x; `jaxkd eval`; --config=FILE\n'


# Mistakes

NO_CONFIG = (
  "no config 'gpd_cifr', neither in ./configs nor in jaxkd. Did you me"
)
MISTAKES = [
  ('trian kd_digits', "no command 'trian'. Did you mean 'train'?"),
  ('--workdir=x train', 'a command comes first, got --workdir=x'),
  ('train gpd_cifr --workdir=x', f"{NO_CONFIG}an 'gpd_cifar'"),
  ('describe no/file.py', 'no config file no/file.py: check the path'),
  ('train kd_digits --workdir=x epocs=3', "'epocs'. Did you mean 'epochs'?"),
  (
    'train kd_digits --workdir=x method.temprature=2',
    "'temprature'. Did you mean 'temperature'?",
  ),
  (
    'train kd_digits --workdir=x student.name=resnet9',
    "no model 'resnet9'. Did you mean 'resnet8'",
  ),
  ('train kd_digits --workdir=x epochs=three', 'The config has epochs=15'),
  ('train kd_digits --workdir=x epochs=-1', 'epochs must be'),
  (
    'train kd_digits --workdir=x student=mlp',
    'Change a setting in it, as in student.name=mlp',
  ),
  (
    'train kd_digits --workdir=x student={',
    "Failed to parse '{' as a ConfigDict",
  ),
  (
    'train kd_digits --workdir=x method.objectives.crd=0.8',
    'A new one is set as a whole, like method.objective=',
  ),
  ('train kd_digits --workdir=x word', "'word' is not a setting: write KEY=VA"),
  ('train kd_digits', 'are required: --workdir (`jaxkd train --help`'),
  (
    'train kd_digits --wordkir=x',
    'no option --wordkir. Did you mean --workdir?',
  ),
  ('train kd_digits --workdir=x --epochs=3', 'have no dashes: epochs=3 ('),
  ('train --config=a.py --workdir=x', 'comes by itself: jaxkd train a.py'),
  ('train --workdir=x', 'are required: CONFIG'),
  ('train kd_digits:mlp --workdir=x', "takes no argument, and 'mlp' follows"),
  ('train kd_cifar:mlp --workdir=x', "'mlp' is not a pair TEACHER,STUDENT"),
  (
    'train kd_cifar --workdir=x',
    'download cifar-100-python.tar.gz',
  ),
  ('train kd_cifar --workdir=x', 'or set data.dir to the folder'),
  (
    'train gpd_finetune_cifar --workdir=x',
    'this config needs student.checkpoint=...',
  ),
  ('eval x', 'no run in x: config.json is missing. Name the folder of a run'),
  ('export x', 'are required: FILE'),
  ('export x student.onx', "Did you mean '.onnx' or"),
  ('export x student', 'student has no suffix, which says the format: name i'),
  ('pictures x', 'no run in x'),
  ('store kd_digits --output=x', 'the teacher of this config has not been tr'),
  ('convert mlp no.pth out', 'no such file: no.pth'),
  ('convert mlp', 'are required: IN, OUT'),
  ('configs gpd_cifr', NO_CONFIG),
]


@pytest.mark.parametrize(('line', 'message'), MISTAKES)
def test_a_mistake_is_explained_on_one_screen(command, line, message):
  status, _, err = command(*shlex.split(line))
  assert status == 1, err
  assert message in err
  assert err.count('\n') < 10 and len(err) < 1600
  assert '--config.data' not in err and 'fault of jaxkd' not in err
  assert list(pathlib.Path().iterdir()) == []


def test_a_run_that_is_not_finished(command, tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/config.json').write_text(
    (finished.run('kd') / 'config.json').read_text()
  )
  for name in ('eval', 'export'):
    more = ['x.npz'] if name == 'export' else []
    status, _, err = command(name, str(tmp_path / 'run'), *more)
    assert status == 1 and 'finish the run first' in err


def test_debug_raises(command):
  with pytest.raises(KeyError, match='no config'):
    command('describe', 'gpd_cifr', '--debug')
