"""Config files: found by name, listed, and refused if they are none."""

import pathlib

import pytest

from jaxkd import config as configs
from jaxkd.commands import config_files

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / 'configs').glob('*.py'))


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)


def test_every_file_is_found_by_its_name():
  assert {*config_files.names()} == {path.stem for path in FILES}
  for path in FILES:
    own = f'configs/{path.name}'
    for name in (path.stem, path.name, own, own.removesuffix('.py'), str(path)):
      assert config_files.find(name).samefile(path)


def test_own_files_come_first(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  own = pathlib.Path('configs')
  own.mkdir()
  for name in ('kd_digits', 'mine', '_shared'):
    (own / f'{name}.py').write_text('"""My own.\n\nLong."""\n')
  assert config_files.find('kd_digits') == own / 'kd_digits.py'
  assert config_files.find('~/configs/mine.py').samefile('configs/mine.py')
  assert {*config_files.names()} - {path.stem for path in FILES} == {'mine'}
  assert config_files.description(own / 'mine.py') == 'My own.'
  pathlib.Path('kd_digits.py').touch()  # nearer still
  assert config_files.find('kd_digits') == pathlib.Path('kd_digits.py')


def test_the_list_describes_every_file():
  table = config_files.listing().split('\n\n')[0].splitlines()[1:]
  described = dict(line.split(maxsplit=1) for line in table)
  assert {*described} == {path.stem for path in FILES}
  for path in FILES:
    assert path.read_text().startswith(f'"""{described[path.stem]}\n')


CONFIG = 'from jaxkd.config import default\n'


@pytest.mark.parametrize(
  ('text', 'argument', 'message'),
  [
    ('x = 1', '', r'has no get_config\(\)'),
    ('def f(:', '', r'own.py, line 1, is not Python: '),
    ('def get_config():\n  pass', '', 'must return a config.*NoneType'),
    ('def get_config():\n  return {}', '', 'must return a config.*dict'),
    ('def get_config(pair):\n  pass', '', 'needs an argument: own.py:ARGU'),
    ('def get_config():\n  pass', ':a', "no argument, and 'a' follows"),
  ],
)
def test_what_is_no_config_file_is_refused(text, argument, message):
  pathlib.Path('own.py').write_text(text)
  with pytest.raises(ValueError, match=message):
    config_files.load(f'own.py{argument}')


def test_a_file_of_another_suffix_is_refused():
  pathlib.Path('own.txt').touch()
  with pytest.raises(ValueError, match='its suffix is not .py'):
    config_files.load('own.txt')


def test_an_argument_may_have_colons():
  pathlib.Path('own.py').write_text(
    f'{CONFIG}def get_config(name):\n  config = default()\n'
    '  config.data.name = name\n  return config\n'
  )
  config = config_files.load('own:folder:pictures')
  assert config.data.name == 'folder:pictures'
  configs.check(config)
