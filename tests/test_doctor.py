"""The report on the installation: what it shows, and what breaks it."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from jaxkd.commands import doctor

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
  for name in ('cache', 'data', 'compiled'):
    (tmp_path / name).mkdir()
  monkeypatch.setenv('JAXKD_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('JAXKD_DATA', str(tmp_path / 'data'))
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'compiled'))


@pytest.fixture
def requirements(monkeypatch):
  """Requirements of packages, which the tests set, by package."""
  needed = {'jaxkd': []}
  monkeypatch.setattr(importlib.metadata, 'requires', needed.__getitem__)
  return needed


def test_what_works_is_shown(requirements, tmp_path, capsys):
  (tmp_path / 'cache/teachers').mkdir()
  (tmp_path / 'cache/teachers/file').write_bytes(bytes(1500))
  (tmp_path / 'data/cifar-100-python').mkdir()
  assert doctor.run() == 0
  report = capsys.readouterr().out
  assert 'Everything that jaxkd requires works.' in report
  for line in (
    f'jax               {jax.__version__}',
    '    teachers         2 kB',
    'cifar100   cifar-100-python',
    'cifar10    not there: download cifar-10-python.tar.gz',
  ):
    assert line in report
  assert re.search(rf'\n  cpu \(cpu\) +{jax.device_count()}\n', report)


@pytest.mark.parametrize(
  ('needed', 'extra', 'want'),
  [
    (['numpy>=1', 'no-such; extra == "a"'], '', []),
    (['no-such>=1'], '', ['no-such is not installed']),
    (['no-such; sys_platform == "none"'], '', []),
    (['numpy<1'], '', ['numpy {numpy} does not fit <1']),
    (['no-such', 'numpy<1; extra == "a"'], 'a', ['numpy {numpy} does no']),
    (['no-such', 'numpy; extra == "a"'], 'a', []),
    (['numpy[b]; extra == "a"'], 'a', ['inner is not installed']),
    (['numpy[b]'], '', ['inner is not installed']),
  ],
)
def test_requirements_that_are_not_met(requirements, needed, extra, want):
  requirements['jaxkd'] = needed
  requirements['numpy'] = ['no-such', 'inner; extra == "b"']
  got = doctor.unmet('jaxkd', extra)
  assert len(got) == len(want)
  version = importlib.metadata.version('numpy')
  for line, beginning in zip(got, want, strict=True):
    assert line.startswith(beginning.format(numpy=version))


def test_a_package_that_is_not_installed(monkeypatch):
  assert doctor.unmet('no-such-package', '') == [
    'no-such-package is not installed'
  ]


def breaks(monkeypatch, tmp_path: pathlib.Path, what: str) -> str:
  """Breaks something, and returns its remedy."""
  if what == 'requirement':
    monkeypatch.setattr(importlib.metadata, 'requires', lambda _: ['no-such'])
    return "no-such is not installed: pip install --upgrade 'jaxkd'"
  if what == 'library':
    monkeypatch.setitem(doctor.LIBRARIES, 'no-such', 'no_such')
    return "no-such cannot be imported: pip install --upgrade 'jaxkd'"
  if what == 'device':

    def fails():
      raise RuntimeError('Unable to initialize backend')

    monkeypatch.setattr(jax, 'devices', fails)
    return 'set JAX_PLATFORMS=cpu'
  (tmp_path / 'file').touch()
  monkeypatch.setenv('JAXKD_CACHE', str(tmp_path / 'file'))
  return '(set JAXKD_CACHE)'


@pytest.mark.parametrize('what', ['requirement', 'library', 'device', 'cache'])
def test_what_is_broken_is_named_with_its_remedy(
  requirements, monkeypatch, tmp_path, capsys, what
):
  remedy = breaks(monkeypatch, tmp_path, what)
  assert doctor.run() == 1
  report = capsys.readouterr().out
  assert remedy in report.split('To be mended:\n')[1]


def test_a_library_that_fails_to_load_does_not_stop_the_report(tmp_path):
  (tmp_path / 'jax.py').write_text('raise RuntimeError("of other versions")')
  path = os.pathsep.join([str(tmp_path), str(ROOT)])
  done = subprocess.run(
    [sys.executable, '-m', 'jaxkd.cli', 'doctor'],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': path},
  )
  assert (done.returncode, done.stderr) == (1, '')
  assert 'cannot be imported: of other versions' in done.stdout
  assert (
    "  jax cannot be imported: pip install --upgrade 'jaxkd'" in done.stdout
  )
  assert 'Extras\n' in done.stdout
