"""What can be checked before the first step is checked there."""

import contextlib
import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest
import tiny

from jaxkd import data
from jaxkd.checkpoints import native
from jaxkd.commands import export, visualize
from jaxkd.data import batches
from jaxkd.runs import preflight
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study
from jaxkd.training import phase as phases
from jaxkd.training.initial import initial_key

WIDE = dict(student__settings=dict(features=(8, 8)))


@pytest.fixture(autouse=True)
def no_training(monkeypatch, tmp_path):
  """Training fails: whatever is refused here is refused before it."""

  def trains(*_, **__):
    raise AssertionError('it trains')

  monkeypatch.setattr('jaxkd.runs.run.train_phase', trains)
  monkeypatch.setenv('JAXKD_CACHE', str(tmp_path / 'cache'))


def saved(folder: pathlib.Path, name='student', **changes) -> str:
  """Writes a network of `tiny` and returns its path."""
  program = tiny.experiment(**changes).phases[-1].program
  variables = program.init_network(name, jax.random.key(0))
  native.save_pretrained(folder, 'mlp', variables, 3, (8, 8, 1))
  return str(folder)


def damaged(path: str) -> str:
  """Takes an array out of a network."""
  network = native.load(pathlib.Path(path))
  del network.variables['params']['head']['bias']
  native.save(path, *network)
  return path


@pytest.mark.parametrize('section', ['student__checkpoint', 'teacher__start'])
def test_a_checkpoint_that_does_not_fit(tmp_path, section):
  path = damaged(saved(tmp_path / 'network'))
  run = Run(tiny.experiment(**{section: path}), tmp_path / 'run')
  with pytest.raises(ValueError, match='(?s)not fit the model.*bias.*missing'):
    run.finish()
  assert not (tmp_path / 'run').exists()


def test_a_checkpoint_that_fits_one_phase_only(tmp_path):
  """A network is checked in each phase until one of them has trained it."""
  experiment = tiny.experiment(baseline=True)
  checked = []
  network = native.load(pathlib.Path(saved(tmp_path / 'network')))

  def note(program, initial, seed):
    del seed
    checked.append((sorted(program.graph.trained), sorted(initial)))
    return {}

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(preflight, 'module_variables', note)
    preflight.check(experiment, {'student': network, 'teacher': network})
  assert checked == [
    (['teacher'], ['student', 'teacher']),
    (['plain_student'], ['student']),
    (['student'], ['student']),
  ]


@pytest.mark.parametrize('branches', [(6, 1), (1, 6)])
def test_branches_are_added_and_merged_without_computing(tmp_path, branches):
  changes = dict(student__name='resnet8', student__width=0.25)
  of_file, of_run = (
    tiny.experiment(**changes, student__branches=n, method=dict(name='plain'))
    for n in branches
  )
  program = of_file.phases[-1].program
  init = functools.partial(program.init_network, 'student')
  shapes = jax.eval_shape(init, jax.random.key(0))
  fit = functools.partial(
    phases.module_variables, of_run.phases[-1].program, seed=0
  )
  got = jax.eval_shape(fit, {'student': shapes})
  want = of_run.phases[-1].program.init_network
  want = jax.eval_shape(functools.partial(want, 'student'), jax.random.key(0))
  assert jax.tree.map(np.shape, got['student']) == jax.tree.map(np.shape, want)


@pytest.mark.parametrize('below', ['', 'a/b'])
def test_a_cache_that_is_a_file(tmp_path, below):
  (tmp_path / 'file').touch()
  cache = str(tmp_path / 'file' / below)
  run = Run(tiny.experiment(cache=cache), tmp_path / 'run')
  with pytest.raises(OSError, match='the cache of teachers .*is not a folder'):
    run.finish()
  plain = tiny.experiment(cache=cache, method=dict(name='plain'))
  with pytest.raises(AssertionError, match='it trains'):  # needs no cache
    Run(plain, tmp_path / 'plain').finish()


def test_a_study_checks_the_checkpoints_of_all_its_runs(tmp_path):
  """Those of its own earlier runs may be written yet."""
  own = f'{tmp_path}/study/runs/a/seed0'
  recipes = dict(
    a=dict(method=dict(name='plain')),
    b=dict(student=dict(checkpoint=own)),
    c=dict(student=dict(checkpoint=f'{tmp_path}/no')),
  )
  config = tiny.config(study__recipes=recipes)
  message = f"recipe 'c': there is no checkpoint of 'student' in {tmp_path}/no"
  with pytest.raises(ValueError, match=message):
    Study(config, tmp_path / 'study').finish()
  assert not (tmp_path / 'study').exists()
  config.study.only = ('a', 'b')
  with pytest.raises(AssertionError, match='it trains'):
    Study(config, tmp_path / 'study').finish()


def test_outputs_of_commands(tmp_path):
  (tmp_path / 'file').touch()
  (tmp_path / 'folder.npz').mkdir()
  with pytest.raises(OSError, match='file is not a folder'):
    export.export(tmp_path / 'no', tmp_path / 'file' / 'student.npz')
  with pytest.raises(IsADirectoryError, match='name the file in it to write'):
    export.export(tmp_path / 'no', tmp_path / 'folder.npz')
  with pytest.raises(
    OSError, match='the folder of the pictures, .*/file, cann'
  ):
    visualize.draw(tmp_path / 'no', None, tmp_path / 'file')


@pytest.mark.parametrize('seed', [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_each_seed_has_its_own_draws(seed):
  """Up to the largest that is allowed, whatever it is passed as."""
  experiment = tiny.experiment(seed=seed, method=dict(name='plain'))
  (phase,) = experiment.phases
  assert phase.seed == seed
  words = np.asarray(jax.random.key_data(jax.random.key(seed)))
  np.testing.assert_array_equal(words, np.array([0, seed], np.uint32))
  rbg = np.asarray(jax.random.key_data(initial_key(seed)))
  assert seed in rbg
  assert len(batches.order(seed, 0, 5)) == 5
  index, view = np.arange(9, dtype=np.int32), experiment.dataset.view
  number = functools.partial(data.view_number, index, 0, view=view)
  traced = jax.jit(lambda seed: number(seed=seed))
  # As `train_together` passes it.
  got = traced(np.array([seed])[0])
  np.testing.assert_array_equal(got, number(seed=seed))


def test_a_network_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
  run = Run(tiny.experiment(student__width=10000), tmp_path / 'run')
  message = "network 'student' has .* GiB of parameters, and the memory is"
  with pytest.raises(ValueError, match=message):
    run.finish()
  assert not (tmp_path / 'run').exists()
  fits = {'w': jax.ShapeDtypeStruct((100,), 'float32')}
  for memory, refused in ((0, False), (400, False), (399, True)):
    monkeypatch.setattr(preflight, 'memory_bytes', lambda n=memory: n)
    with pytest.raises(ValueError) if refused else contextlib.nullcontext():
      preflight.check_memory('student', fits)


def test_a_single_class_is_refused():
  dataset = tiny.experiment().dataset
  one = dataclasses.replace(dataset, class_names=('cat',))
  with pytest.raises(ValueError, match="has only the class 'cat', so that"):
    preflight.check_data(one, 8)
  several = dataclasses.replace(one, problem='multi_label')
  preflight.check_data(several, 8)
