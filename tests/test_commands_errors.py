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

from jaxkd import catalog, config, disk
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
  monkeypatch.setattr(errors, 'place_of_user', lambda error: '')
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
  monkeypatch.setattr(errors, 'place_of_user', lambda error: '')
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
  monkeypatch.setattr(errors, 'place_of_user', lambda error: '')
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


CONFIGS = {  # the file, and what is said about it
  'return {}["x"]': "KeyError in {}, line 2: 'x'",
  'return 1 + "a"': 'TypeError in {}, line 2: unsupported operand',
  'raise ValueError("mine")': 'ValueError in {}, line 2: mine',
}


@pytest.mark.parametrize('body', [*CONFIGS, None])
def test_a_mistake_in_a_config_file_has_its_place(body, tmp_path, capsys):
  path = tmp_path / 'mine.py'
  path.write_text(f'def get_config():\n  {body}\n' if body else 'x = 1\n')
  words = ['main.py', f'--config={path}', f'--workdir={tmp_path}']
  script = f'from jaxkd.main import main; main({words!r})'
  ended = subprocess.run(
    [sys.executable, '-c', script],
    capture_output=True,
    text=True,
    cwd=ROOT,
    check=False,
  )
  want = CONFIGS[body] if body else r'no function get_config\(\)'
  assert ended.returncode == 1
  assert re.search(want.replace('{}', re.escape(str(path))), ended.stderr)
  assert 'Traceback' not in ended.stderr and ended.stderr.count('\n') < 6


def test_a_config_of_another_type_is_refused():
  with pytest.raises(
    ValueError, match=r'get_config\(\) must return .* got int'
  ):
    config.check(3)


def test_code_beside_the_package_is_its_owners(tmp_path, monkeypatch):
  for folder in ('jaxkd', 'jaxkd_mine', 'venv/lib/site-packages', 'venv'):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
  monkeypatch.setattr(errors, 'PACKAGE', tmp_path / 'jaxkd')
  libraries = (tmp_path / 'venv/lib/site-packages',)
  monkeypatch.setattr(errors, 'LIBRARIES', libraries)
  for folder, own in (
    ('jaxkd', False),
    ('jaxkd_mine', True),
    ('venv', True),
    ('venv/lib/site-packages', False),
  ):
    path = tmp_path / folder / 'code.py'
    path.write_text('1 // 0\n')
    try:
      exec(compile(path.read_text(), str(path), 'exec'), {})
    except ZeroDivisionError as error:
      found = errors.place_of_user(error)
    assert found.startswith(str(path)) == own, folder
