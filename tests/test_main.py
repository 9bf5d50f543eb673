"""The command line: its output, its messages, and its exit status."""

import errno
import json
import os
import pathlib
import re
import subprocess
import sys

import finished
import jax
import pytest
from absl import flags

from jaxkd import main
from jaxkd.commands import errors, visualize

# ml_collections reads config files in a way that Python 3.12 removes.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module.. method')
ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
  '--config.student.name=mlp',
  '--config.teacher.name=mlp',
  '--config.epochs=1',
)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
  """Runs the command in this process: (status, stdout, stderr)."""
  monkeypatch.chdir(ROOT)
  for name in ('JAXKD_CACHE', 'JAXKD_DATA'):
    monkeypatch.setenv(name, str(tmp_path / 'cache'))
  # The number of devices is this process's, and cannot be changed any more.
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', str(jax.device_count()))

  def run(*arguments, config='configs/kd_digits.py'):
    argv = ['jaxkd/main.py', *arguments]
    if config:
      argv.insert(1, f'--config={config}')
    capsys.readouterr()  # of what came before
    monkeypatch.setattr(sys, 'argv', argv)  # where --config.KEY is read
    try:
      with pytest.raises(SystemExit) as stopped:
        main.main()
    finally:
      reset_flags()
    status = stopped.value.code or 0
    out, err = capsys.readouterr()
    assert 'Traceback' not in err
    return status, out, err

  return run


def reset_flags():
  """Undoes what parsing a command line did to the process."""
  for name in list(flags.FLAGS):
    if name.startswith('config.'):
      delattr(flags.FLAGS, name)
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()


def test_stored_outputs_from_the_command_line(command, tmp_path):
  """Without a teacher nothing is written; the message names the remedy."""
  status, _, error = command('--mode=store', *SMALL)
  assert status == 1 and '--output=FILE is needed' in error
  output = tmp_path / 'x.store'
  status, _, error = command('--mode=store', f'--output={output}', *SMALL)
  assert status == 1 and '--config.teacher.checkpoint' in error
  assert not list(tmp_path.glob('x.store*'))


@pytest.mark.parametrize(
  'data',
  [
    ('--config.data.few_shot=16', '--config.batch_size=80'),  # of 10 classes
    pytest.param((), marks=pytest.mark.slow),
  ],
  ids=['few_shot', 'all'],
)
def test_a_run_from_start_to_evaluation(command, tmp_path, data):
  workdir = f'--workdir={tmp_path / "run"}'
  status, first, err = command(workdir, *SMALL, *data)
  assert status == 0, err
  assert re.search(r'student +mlp x0.5 +\d+\.\d\d %', first)
  assert str(tmp_path / 'run/summary.json') in first
  assert 'distil: teacher, frozen' in first
  status, again, _ = command(workdir, *SMALL, *data)
  assert status == 0 and 'This run is finished' in again
  table = again.split('\n\n')[1]
  assert 'top-1' in table and table in first
  summary = json.loads((tmp_path / 'run/summary.json').read_text())
  top1 = 100 * summary['networks']['student']['top1']
  status, evaluated, err = command(workdir, '--mode=eval')
  assert status == 0, err
  assert re.search(rf'^student, mlp x0.5 +test\ntop-1 +{top1:.2f} %', evaluated)
  assert re.search(r'\nagreement with teacher +\d+\.\d\d %', evaluated)
  assert f'confidence: {tmp_path / "run/reliability.png"}' in evaluated
  status, _, err = command(workdir, *SMALL[:2], *data, '--config.epochs=2')
  assert status == 1 and 'epochs: 1 -> 2' in err


def test_a_network_is_exported(command, tmp_path):
  workdir, file = f'--workdir={finished.run("kd")}', tmp_path / 'student.npz'
  export = workdir, '--mode=export'
  status, out, err = command(*export, f'--output={file}', config='')
  assert status == 0, err
  assert f'Written: {file}' in out and file.exists()
  status, out, _ = command(workdir, '--mode=eval', f'--output={file}')
  assert status == 0 and 'confidence:' not in out
  status, _, err = command(*export, config='')
  assert status == 1 and '--output=FILE is needed' in err


def test_pictures_are_drawn(command, tmp_path):
  runs = finished.run('kd'), finished.run('plain')
  status, out, err = command(
    *('--mode=pictures', f'--workdir={runs[0]}', f'--against={runs[1]}'),
    f'--output={tmp_path}',
    config='',
  )
  assert status == 0, err
  assert out.split() == str(visualize.draw(*runs, tmp_path)).split()


def test_the_graph_is_described_without_data(command):
  status, out, err = command('--describe', config='configs/kd_cifar.py')
  assert status == 0, err
  for line in (
    r'Phase 1: teacher \(240 epochs x 782 steps, sgd at 0\.05',
    r'teacher +resnet32x4 +frozen +7,433,860 +1,083\.0 M',
    r'student +resnet8x4 +learns +1,233,540 +177\.1 M',
    r'teacher +-> +student +0\.9 +kd\(temperature=4\.0\)',
    r'labels +-> +student +0\.1 +cross_entropy\(\)',
  ):
    assert re.search(line, out), (line, out)


MISTAKES = [
  (['--workdir=x', '--config.epocs=3'], "'epocs'. Did you mean 'epochs'?"),
  (
    ['--workdir=x', '--config.method.temprature=2'],
    "'temprature'. Did you mean 'temperature'?",
  ),
  (
    ['--workdir=x', '--config.method.objectives.crd=0.8'],
    'A new one is set as a whole, like',
  ),
  (['--workdir=x', '--config.epochs=three'], '--config.epochs=three'),
  ([], '--workdir=DIR is needed'),
  (['--workdir=x', 'word'], 'unknown arguments: word'),
  (
    ['--workdir=x', '--config.data.name=cifar100'],
    r'download cifar-100-python.tar.gz',
  ),
  (['--workdir=/dev/null/run'], 'Check the path'),
  (['--workdir=/dev/null', '--mode=eval'], 'no run in /dev/null'),
  (['--workdir=x', '--config=no.py'], "No such file or directory: 'no.py'"),
]


@pytest.mark.parametrize(('arguments', 'message'), MISTAKES)
def test_a_mistake_is_explained_on_one_screen(command, arguments, message):
  status, _, err = command(*arguments)
  assert status == 1
  assert message in err
  assert err.count('\n') < 15
  assert not (ROOT / 'x').exists()


@pytest.mark.parametrize('flag', ['--workdir=~/x', '--workdir=$HOME/x'])
def test_a_path_is_expanded(command, monkeypatch, tmp_path, flag):
  """As bash passes it."""
  monkeypatch.setenv('HOME', str(tmp_path))
  status, _, err = command('--mode=eval', flag, config='')
  assert status == 1 and f'no run in {tmp_path}/x' in err
  for words in (['--config=~/no.py'], ['--config', '~/no.py']):
    status, _, err = command(*words, '--describe', config='')
    assert status == 1 and f'{tmp_path}/no.py' in err


def test_an_interruption_can_be_resumed(command, monkeypatch):
  def interrupted(argv):
    raise KeyboardInterrupt

  monkeypatch.setattr(main, '_main', interrupted)
  status, _, err = command()
  assert status == 130 and 'the same command resumes it' in err


def test_the_module_is_a_program():
  arguments, message = MISTAKES[0]
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'jaxkd.main', '--config=configs/kd_digits.py'),
      *arguments,
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
    env=os.environ,
  )
  assert done.returncode == 1
  assert message in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize(
  ('error', 'remedy'),
  [
    (
      OSError(errno.ENOSPC, 'No space left'),
      'free some space, and the same command',
    ),
    (OSError(errno.EACCES, 'Permission denied'), 'Choose a place that'),
    (OSError(errno.EMFILE, 'Too many open files'), '`ulimit -n'),
    (MemoryError('Unable to allocate 9 TiB'), 'a smaller --config.batch_size'),
    (RuntimeError('RESOURCE_EXHAUSTED: Out of memory'), 'smaller --config.ba'),
    (OSError(errno.ENOENT, 'No such file'), 'Check the path'),
    (OSError('of a library'), 'of a library'),
    (ValueError('epochs must be 1'), 'epochs must be 1'),
    (KeyError('new'), 'new'),
  ],
)
def test_errors_of_the_system_have_a_remedy(error, remedy):
  assert remedy in errors.explain(error)
