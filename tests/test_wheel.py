"""The wheel: modules, templates and configs are in it; it works by itself."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import jaxkd

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE')


def setuptools_version() -> int:
  """Returns the version of setuptools, 0 if there is none."""
  try:
    return int(importlib.metadata.version('setuptools').split('.')[0])
  except importlib.metadata.PackageNotFoundError:
    return 0


pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    setuptools_version() < 77,
    reason='the wheel is built without a network by setuptools 77 or newer',
  ),
]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The path of the wheel, made of a copy of the checkout."""
  folder = tmp_path_factory.mktemp('wheel')
  source = folder / 'source'
  source.mkdir()
  for name in SOURCES:
    shutil.copy(ROOT / name, source)
  for name in ('jaxkd', 'configs'):
    shutil.copytree(
      ROOT / name,
      source / name,
      ignore=shutil.ignore_patterns('__pycache__'),
    )
  subprocess.run(
    [
      *(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps'),
      *('--no-build-isolation', '--no-index', '--wheel-dir', folder, source),
    ],
    check=True,
    cwd=folder,
    env=os.environ | {'PIP_DISABLE_PIP_VERSION_CHECK': '1'},
  )
  (path,) = folder.glob('jaxkd-*.whl')
  return path


@pytest.fixture(scope='module')
def installed(wheel):
  """Runs Python in an empty folder, with the wheel in front of its path."""
  place = wheel.parent / 'place'
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(place)
  empty = wheel.parent / 'empty'
  empty.mkdir()

  def run(*words):
    done = subprocess.run(
      [sys.executable, *words],
      capture_output=True,
      text=True,
      check=False,
      cwd=empty,
      env=os.environ | {'PYTHONPATH': str(place)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  return run


def test_modules_templates_and_configs_are_in_it(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = {x for x in archive.namelist() if '.dist-info/' not in x}
    (metadata,) = (
      x for x in archive.namelist() if x.endswith('entry_points.txt')
    )
    assert 'jaxkd = jaxkd.cli:main' in archive.read(metadata).decode()
  modules = {
    str(path.relative_to(ROOT))
    for kind in ('py', 'j2')
    for path in (ROOT / 'jaxkd').rglob(f'*.{kind}')
  }
  own = {f'jaxkd/configs/{x.name}' for x in (ROOT / 'configs').glob('*.py')}
  templates = (ROOT / 'jaxkd' / 'reports' / 'templates').glob('*')
  data = {str(x.relative_to(ROOT)) for x in templates}
  data |= {'jaxkd/catalog/published.json'}
  assert names == modules | own | data
  assert f'jaxkd-{jaxkd.__version__}-' in wheel.name


def test_its_configs_are_found_in_an_empty_folder(installed):
  place = installed('-c', 'import jaxkd; print(jaxkd.__file__)').strip()
  listed = installed('-m', 'jaxkd.cli', 'configs')
  assert f'They are in {pathlib.Path(place).parent}/configs.' in listed
  for path in (ROOT / 'configs').glob('*.py'):
    assert f'\n{path.stem} ' in listed
  shown = installed('-m', 'jaxkd.cli', 'configs', 'gpd_cifar')
  assert shown == (ROOT / 'configs/gpd_cifar.py').read_text()


def test_every_config_can_be_loaded(installed):
  """With nothing but the wheel on the path: they import jaxkd alone."""
  code = (
    'from jaxkd.commands import config_files as x\n'
    'print(*sorted(n for n in x.names() if len(x.load(n)) > 0))'
  )
  names = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))
  assert installed('-c', code).split() == names


def test_a_first_distillation(installed):
  out = installed(
    *('-m', 'jaxkd.cli', 'train', 'kd_digits', '--workdir=runs/kd'),
    *('epochs=1', 'student.name=mlp', 'teacher.name=mlp', 'cache=cache'),
  )
  assert 'Finished. Results: runs/kd/summary.json' in out
  assert 'Report: runs/kd/report.html' in out
  out = installed('-m', 'jaxkd.cli', 'export', 'runs/kd', 'student.npz')
  assert 'Written: student.npz' in out
