"""Paths of the command line and of configs: expanded, whoever reads them."""

import os
import pathlib

import data_files
import jax
import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, data, disk
from jaxkd import config as configs
from jaxkd.checkpoints import native
from jaxkd.runs import sections
from jaxkd.runs.cache import Cache
from jaxkd.runs.pretrained import load_pretrained


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
  """A home folder, also the folder $DATA, apart from the working one."""
  home = tmp_path / 'home'
  home.mkdir()
  monkeypatch.setenv('HOME', str(home))
  monkeypatch.setenv('DATA', str(home))
  for name in ('JAXKD_CACHE', 'JAXKD_DATA'):
    monkeypatch.delenv(name, raising=False)
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  yield home
  assert list((tmp_path / 'here').iterdir()) == []


each_form = pytest.mark.parametrize('form', ['~', '$DATA', '${DATA}'])


@pytest.mark.parametrize(
  ('path', 'want'),
  [
    ('~', '{home}'),
    ('~/x', '{home}/x'),
    ('$DATA/x', '{home}/x'),
    ('${DATA}x', '{home}x'),
    ('~root/x', os.path.expanduser('~root/x')),
    ('a/~/x', 'a/~/x'),
    ('./~', './~'),
    ('a$', 'a$'),
    ('/x', '/x'),
  ],
)
def test_a_path_is_as_a_shell_has_it(home, path, want):
  assert disk.expanded(path) == pathlib.Path(want.format(home=home))


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('$NO_SUCH/x', r'contains \$NO_SUCH, and this environment variable is not'),
    ('${NO_SUCH}/x', r'contains \$NO_SUCH'),
    ('~no.such.user/x', r"the path '~no.such.user/x' begins with a home"),
  ],
)
def test_an_unknown_name_is_refused(path, message):
  with pytest.raises(ValueError, match=message):
    disk.expanded(path)


def test_without_a_home_the_setting_is_named(monkeypatch):
  monkeypatch.setattr(os.path, 'expanduser', lambda path: path)
  with pytest.raises(ValueError, match='--config.cache=FOLDER.*JAXKD_CACHE'):
    Cache()
  with pytest.raises(ValueError, match='--config.data.dir=FOLDER.*JAXKD_DATA'):
    data.load('cifar10')
  assert Cache('/x').path({}).parent == pathlib.Path('/x/teachers')


@each_form
def test_the_cache(home, form, monkeypatch):
  for cache in (Cache(f'{form}/cache'), Cache(pathlib.Path(form, 'cache'))):
    assert cache.path({}).parent == home / 'cache' / 'teachers'
  monkeypatch.setenv('JAXKD_CACHE', f'{form}/cache')
  assert Cache().path({}).parent == home / 'cache' / 'teachers'


@each_form
def test_folders_of_images_keep_the_name_that_was_written(home, form):
  sizes = {split: {'a': 1, 'b': 1} for split in ('train', 'test')}
  data_files.write_folder(home / 'pictures', sizes)
  dataset = data.load(f'folder:{form}/pictures')
  assert dataset.name == f'folder:{form}/pictures'
  there = data.load(f'folder:{home}/pictures')
  assert dataset.fingerprint == there.fingerprint


@each_form
def test_the_folder_of_a_data_set(home, form):
  with pytest.raises(FileNotFoundError, match=f'is not in {home}/x'):
    data.load('cifar10', dir=f'{form}/x')


@each_form
def test_checkpoints_of_sections_and_methods(home, form):
  program = tiny.experiment().phases[0].program
  variables = program.init_network('teacher', jax.random.key(0))
  native.save_pretrained(home / 'network', 'mlp', variables, 3, (8, 8, 1))
  path = f'{form}/network'
  assert checkpoints.find(path) == home / 'network'
  assistant = dict(name='mlp', checkpoint=path)
  config = tiny.config(
    teacher__checkpoint=path,
    student__checkpoint=path,
    method=dict(name='dgkd', assistants=(assistant,)),
  )
  experiment = tiny.build(config)
  assert sections.read_out(config, 'teacher') == 'softmax'
  networks = load_pretrained(experiment)
  assert set(networks) == {'teacher', 'student', 'assistant0'}
  for each in networks.values():
    np.testing.assert_array_equal(
      each.variables['params']['head']['bias'],
      variables['params']['head']['bias'],
    )
  # Files of outputs and of programs, too, whose content decides what they are.
  with pytest.raises(FileNotFoundError, match=f'in {home}/x.store'):
    tiny.build(tiny.config(teacher__outputs=f'{form}/x.store'))
  (home / 'x.onnx').write_bytes(b'\x08\x0a\x12\x07pytorch\x1a\x05')
  assert checkpoints.is_function('', f'{form}/x.onnx')
  # A run can be resumed where the home is another one.
  recorded = configs.resolved(experiment.config)
  assert recorded['teacher']['checkpoint'] == path


def test_a_folder_that_cannot_be_written_to_is_refused(home):
  (home / 'file').touch()
  for folder in (home / 'file', home / 'file' / 'a' / 'b'):
    with pytest.raises(OSError, match='it, .*/file is not a folder'):
      disk.check_writable(folder, 'it')
  with pytest.raises(IsADirectoryError, match='name the file in it'):
    disk.check_output(home)
  disk.check_writable(home / 'a' / 'b', 'it')
  disk.check_output(home / 'a' / 'b')
  assert not (home / 'a').exists()
