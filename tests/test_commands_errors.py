"""Messages and exit statuses of commands that fail."""

import errno
import importlib.metadata
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import pytest

from jaxkd import catalog, disk
from jaxkd.commands import convert, errors
from jaxkd.training import mesh

ROOT = pathlib.Path(__file__).parents[1]


def status_of(command, capsys, **settings):
  """Returns the exit status of a command, and what it says."""
  with pytest.raises(SystemExit) as ended:
    errors.run(command, **settings)
  return ended.value.code, capsys.readouterr().err


def fails(error):
  def command():
    raise error

  return command


def test_a_mistake_has_its_message(capsys):
  def command():
    catalog.lookup('method', {'kd': 1}, 'kdd')

  status, text = status_of(command, capsys)
  assert status == 1
  assert "no method 'kdd'. Did you mean 'kd'?" in text
  assert '--debug shows where' in text and 'fault of jaxkd' not in text


# Calls that no command makes: an operation in jaxkd fails.
FAULTS = {
  'TypeError': lambda: catalog.suggestion('a', None),  # type: ignore
  'AttributeError': lambda: disk.check_output(None),  # type: ignore
}


@pytest.mark.parametrize('name', sorted(FAULTS))
def test_an_operation_that_fails_is_a_fault(capsys, name, monkeypatch):
  # This file is a user's; only jaxkd and libraries are on the error's way then.
  monkeypatch.setattr(errors, '_place_of_user', lambda error: '')
  status, text = status_of(FAULTS[name], capsys)
  assert status == 70
  assert f'{name}: ' in text and 'please report it' in text
  kept = re.search(r'also in (\S+\.txt)', text)
  assert kept
  path = pathlib.Path(kept[1])
  assert 'Traceback' in path.read_text() and name in path.read_text()
  path.unlink()
  assert 'Traceback' not in text and text.count('\n') < 10


def test_a_failed_assertion_is_a_fault(monkeypatch):
  monkeypatch.setattr(errors, '_place_of_user', lambda error: '')
  monkeypatch.setattr(errors, 'PACKAGE', pathlib.Path(__file__).parent)
  for error, want in (
    (AssertionError('no'), None),
    (RuntimeError('no'), None),
    (ValueError('no'), 'no'),
  ):
    try:
      raise error
    except Exception as raised:
      assert errors.explain(raised) == want


def test_an_error_of_a_users_code_has_its_place(capsys, tmp_path):
  module = tmp_path / 'mine.py'
  module.write_text('def network():\n  return {}["width"]\n')
  names = {}
  exec(compile(module.read_text(), str(module), 'exec'), names)
  status, text = status_of(names['network'], capsys)
  assert status == 1
  assert f"KeyError in {module}, line 2: 'width'" in text


def test_debug_raises():
  with pytest.raises(ZeroDivisionError):
    errors.run(lambda: 1 // 0, debug=True)


def test_old_libraries_are_named(monkeypatch):
  def version(name):
    return '0.4.1' if name == 'jax' else real(name)

  real = importlib.metadata.version
  assert errors._outdated() == []
  monkeypatch.setattr(errors, '_place_of_user', lambda error: '')
  monkeypatch.setattr(importlib.metadata, 'version', version)
  monkeypatch.setattr(
    importlib.metadata,
    'requires',
    lambda _: ['jax>=0.10.2', 'numpy', 'absl-py'],
  )
  try:
    FAULTS['AttributeError']()
  except AttributeError as error:
    text = errors.explain(error)
  assert text and 'jax 0.4.1 is installed, not jax>=0.10.2' in text


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EMFILE, errno.EROFS])
def test_each_lack_of_the_system_has_its_own_remedy(capsys, number):
  error = OSError(number, os.strerror(number), 'file')
  status, text = status_of(fails(error), capsys)
  assert status == 1 and errors.REMEDIES[number] in text
  assert 'Check the path' not in text


def test_handlers_of_signals_are_put_back():
  before = signal.getsignal(signal.SIGTERM)
  errors.run(lambda: None)
  assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP', 'SIGINT'])
def test_a_signal_ends_a_command_cleanly(capsys, name):
  number, done = getattr(signal, name), []

  def command():
    try:
      os.kill(os.getpid(), number)
      time.sleep(10)
    finally:
      done.append(True)

  status, text = status_of(command, capsys)
  assert done and status == 128 + number
  assert 'the same command resumes it' in text


def test_a_reader_that_ends_early_is_no_error():
  """As in `python -m jaxkd.main --describe | head -1`."""
  code = (
    'from jaxkd.commands import errors\n'
    'def command():\n'
    '  while True: print("x" * 10_000, flush=True)\n'
    'errors.run(command)\n'
  )
  with subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=ROOT,
  ) as process:
    assert process.stdout and process.stderr
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b''
  assert process.returncode == 128 + signal.SIGPIPE


def test_convert_has_the_same_messages(capsys, tmp_path):
  with pytest.raises(SystemExit) as ended:
    convert.main(['resnet8', str(tmp_path / 'no.pth'), str(tmp_path / 'out')])
  assert ended.value.code == 1
  assert 'no such file' in capsys.readouterr().err


@pytest.mark.parametrize(
  'error', [AssertionError(), RuntimeError('Unable to initialize backend')]
)
def test_a_platform_that_is_not_there_is_explained(monkeypatch, error, capsys):
  monkeypatch.setattr(jax, 'devices', fails(error))
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  status, text = status_of(mesh.check_devices, capsys)
  assert status == 1
  assert (
    f'no device for JAX_PLATFORMS=cuda{" (Una" if str(error) else ":"}'
    in (text)
  )
