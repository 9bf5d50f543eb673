"""Teachers whose outputs are stored or cached: students are the same."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import chex
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from data_files import write_folder

from jaxkd import checkpoints, problems
from jaxkd.commands import store as command
from jaxkd.data import augment, batches
from jaxkd.disk import PARTIAL
from jaxkd.graph.program import predict
from jaxkd.problems import CLASSIFICATION
from jaxkd.runs import pretrained
from jaxkd.runs.experiment import build
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study
from jaxkd.stores import Store
from jaxkd.training import cached, precomputed
from jaxkd.training.checkpoint import Checkpoints
from jaxkd.training.phase import feed_of, start

DATA = dict(data__augment='crop_flip', data__settings__test_size=60)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Holds a trained teacher, and a student that it has taught as it is."""
  folder = tmp_path_factory.mktemp('precomputed')
  finish(folder / 'teacher', method=dict(name='teacher'), cache=cache(folder))
  finish(folder / 'live', cache=cache(folder))
  return folder


def cache(folder):
  return str(folder / 'cache')


def finish(workdir, **changes):
  experiment = tiny.experiment(**{**DATA, **changes})
  return Run(experiment, pathlib.Path(workdir)).finish()


def student(workdir):
  return checkpoints.load(workdir).variables


def stored(folder, file, **changes):
  """Stores outputs of the teacher, and returns the path of the file."""
  settings = {'cache': cache(folder), **DATA, **changes}
  command.run(tiny.config(**settings), pathlib.Path(file))
  return str(file)


@pytest.fixture(scope='module')
def exact(folder):
  """A file with what the live teacher said: float32, a view for each epoch."""
  views = dict(store__views=2, store__dtype='float32')
  return stored(folder, folder / 'exact.store', **views)


def test_a_row_is_the_teachers_logits_of_that_epochs_view(folder, exact):
  network, dataset = checkpoints.load(folder / 'teacher'), data()
  index = np.arange(len(dataset.train), dtype=np.int32)
  for slot in range(2):
    views = augment.train_view(
      jnp.array(dataset.train.image),
      jnp.array(index),
      slot,
      seed=0,
      view=dataset.view,
    )
    want = predict(network.card.module(), network.variables, views).logits
    got = Store(exact).read(slot, index)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def data(**changes):
  return build(tiny.config(**{**DATA, **changes})).dataset


def test_training_from_exact_outputs_is_training_with_the_teacher(
  folder, exact, tmp_path
):
  """The file is enough: neither checkpoint nor cache has the teacher."""
  summary = finish(tmp_path / 'a', teacher__outputs=exact, cache=str(tmp_path))
  chex.assert_trees_all_close(
    student(tmp_path / 'a'), student(folder / 'live'), rtol=1e-5, atol=1e-6
  )
  live = json.loads((folder / 'live/summary.json').read_text())
  assert summary['networks']['teacher'] == pytest.approx(
    live['networks']['teacher']
  )
  assert not (tmp_path / 'a/networks/teacher').exists()


def test_further_epochs_show_the_views_again(exact):
  """Views are those of the store's seed; the order of examples is the run's."""
  experiment = tiny.experiment(**DATA, teacher__outputs=exact, seed=5)
  (phase,) = experiment.phases
  task = phase.task(experiment.dataset)

  def record(state, batch):
    return state, {**batch, 'logits': batch['precomputed']['teacher'].logits}

  feed = dataclasses.replace(feed_of(task), step=record)
  state: Any = jnp.zeros(())
  calls = []
  for call in feed.calls(3, 0):
    state, batch = call.run(state)
    calls.append(batch)
  shown = {
    key: np.concatenate([np.concatenate(call[key]) for call in calls])
    for key in ('image', 'index', 'logits')
  }
  index, dataset = batches.order(5, 3, 40), experiment.dataset
  np.testing.assert_array_equal(shown['index'], index)
  np.testing.assert_array_equal(shown['logits'], Store(exact).read(1, index))
  pixels = jnp.array(dataset.train.image)[index]
  want = augment.train_view(
    pixels, jnp.array(index), 1, seed=0, view=dataset.view
  )
  np.testing.assert_allclose(shown['image'], want, atol=1e-6)


def test_chunks_of_steps_read_the_same_rows(folder, exact):
  """As on accelerators, where one call makes many steps."""
  experiment = tiny.experiment(**DATA, teacher__outputs=exact)
  (phase,) = experiment.phases
  task, states = phase.task(experiment.dataset), []
  for chunk in (1, 2):
    feed = feed_of(task, chunk)
    state, _ = start(task, {}, Checkpoints(folder / f'chunk{chunk}'))
    for call in feed.calls(1, 0):
      state, _ = call.run(state)
    states.append(state.params)
  chex.assert_trees_all_close(*states, rtol=1e-5, atol=1e-6)


def test_the_view_cache_is_exact_and_is_filled_once(folder, tmp_path, capsys):
  settings = dict(teacher__cache='disk', cache=cache(folder))
  finish(tmp_path / 'a', **settings)

  def refuse(self, missing, stored):
    assert not len(missing), 'the teacher was run'

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cached.Cached, '_fill', refuse)
    assert 'images/s, 0% from the view cache' in capsys.readouterr().out
    finish(tmp_path / 'b', **settings)
    assert 'images/s, 100% from the view cache' in capsys.readouterr().out
    with pytest.raises(AssertionError, match='was run'):  # on other views
      finish(tmp_path / 'c', seed=1, teacher__seed=0, **settings)
  for name in 'ab':
    chex.assert_trees_all_close(
      student(tmp_path / name), student(folder / 'live'), rtol=1e-5, atol=1e-6
    )


def test_a_damaged_row_of_the_cache_is_computed_again(folder, tmp_path):
  settings = dict(teacher__cache='disk', teacher__cache_dtype='float16')
  settings |= dict(data__augment='none', cache=str(tmp_path / 'cache'))
  settings |= dict(teacher__checkpoint=str(folder / 'teacher'), epochs=1)
  finish(tmp_path / 'a', **settings)
  (path,) = (tmp_path / 'cache/outputs').glob('*.store')
  whole = path.read_bytes()
  path.write_bytes(whole[:-3] + b'???')
  finish(tmp_path / 'b', **settings)
  assert path.read_bytes() == whole
  chex.assert_trees_all_equal(student(tmp_path / 'a'), student(tmp_path / 'b'))


def test_an_interrupted_file_is_finished_and_never_looks_complete(
  folder, exact, tmp_path, monkeypatch
):
  monkeypatch.setattr(command, 'BATCH', 3)
  file, writes = tmp_path / 'x.store', []
  write = Store.write

  def interrupted(self, *arguments):
    writes.append(arguments)
    if len(writes) == 5:
      raise KeyboardInterrupt
    write(self, *arguments)

  settings = dict(store__views=2, store__dtype='float32')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Store, 'write', interrupted)
    with pytest.raises(KeyboardInterrupt):
      stored(folder, file, **settings)
  with pytest.raises(FileNotFoundError, match='unfinished'):
    finish(tmp_path / 'a', teacher__outputs=str(file))
  partial = file.with_name(file.name + PARTIAL)
  shutil.copy(partial, tmp_path / 'other')
  with pytest.raises(ValueError, match='is incomplete'):
    finish(tmp_path / 'a', teacher__outputs=str(tmp_path / 'other'))
  with pytest.raises(ValueError, match=r'slots: 2 -> 1'):
    stored(folder, file, store__views=1, store__dtype='float32')
  with pytest.MonkeyPatch.context() as patch:
    rest = []
    patch.setattr(
      Store, 'write', lambda self, *x: (rest.append(x), write(self, *x))
    )
    stored(folder, file, **settings)
  assert len(writes) + len(rest) - 1 == 2 * 4  # of 12 examples each
  assert not partial.exists()
  assert file.read_bytes() == pathlib.Path(exact).read_bytes()
  with pytest.raises(FileExistsError, match='exists already'):
    stored(folder, file, **settings)


@pytest.mark.parametrize(
  'method',
  [
    pytest.param(dict(name='gpd'), marks=pytest.mark.slow),
    pytest.param(dict(name='slkd', order='batch'), marks=pytest.mark.slow),
    dict(
      name='distil',
      objective='dkd',
      fuse=True,
      teachers={'teacher': 0.5, 'second': {'weight': 0.5, 'outputs': 'HERE'}},
    ),
  ],
  ids=lambda method: method['name'],
)
def test_every_method_with_a_frozen_teacher_takes_its_outputs(
  exact, tmp_path, method
):
  text = json.dumps(method).replace('HERE', exact)
  settings = dict(epochs=1, method=json.loads(text), student__width=0.5)
  summary = finish(tmp_path / 'a', teacher__outputs=exact, **settings)
  names = [n for n in summary['networks'] if n in ('teacher', 'second')]
  card = Store(exact).header.card
  for name in names:
    assert summary['networks'][name]['params_sha256'] == card['params_sha256']
  assert len(names) == 1 + (method['name'] == 'distil')


@pytest.mark.slow
def test_images_that_are_decoded_as_they_are_read(tmp_path):
  """Their views are drawn on the host, by the seed of the store."""
  names = {'a': 20, 'bb': 20}
  write_folder(tmp_path / 'images', {'train': names, 'test': names})
  settings = dict(
    data__name=f'folder:{tmp_path}/images',
    data__settings={'memory': 0},
    data__image_size=8,
    cache=cache(tmp_path),
    epochs=1,
  )
  finish(tmp_path / 'teacher', method=dict(name='teacher'), **settings)
  own = dict(settings, teacher__checkpoint=str(tmp_path / 'teacher'))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('jaxkd.runs.pretrained._check_accuracy', lambda *_: None)
    finish(tmp_path / 'live', **own)
    file = stored(tmp_path, tmp_path / 'x', store__dtype='float32', **settings)
    finish(tmp_path / 'b', teacher__outputs=file, **settings)
    chex.assert_trees_all_close(
      student(tmp_path / 'live'), student(tmp_path / 'b'), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="cache='disk' needs images in"):
      finish(tmp_path / 'c', teacher__cache='disk', **own)
    settings['data__settings'] = {'memory': 1}
    with pytest.raises(ValueError, match=r'settings\.memory: 0 -> 1'):
      finish(tmp_path / 'd', teacher__outputs=file, **settings)


def test_views_that_are_not_numbered_are_not_cached():
  dataset, own = data(), problems.CLASSIFICATION
  precomputed.check_cacheable(dataset, own, 'host')
  flipped = dataclasses.replace(
    own,
    train_view=lambda raw, epoch, seed, view: own.train_view(
      {**raw, 'image': raw['image'][:, ::-1]}, epoch, seed, view
    ),
  )
  with pytest.raises(ValueError, match='those of the problem classification'):
    precomputed.check_cacheable(dataset, flipped, 'host')


def test_every_part_of_the_view_tells_stores_apart():
  dataset, source = data(), precomputed.Source()
  view, mine = dataset.view, precomputed.data_entries(dataset, source)
  for changes in (
    dict(mean=(0.25,)),
    dict(std=(0.125,)),
    dict(pad=view.pad + 1),
    dict(flip=not view.flip),
    dict(scale=1.0),
  ):
    other = dataclasses.replace(view, **changes)
    other = dataclasses.replace(dataset, view=other)
    assert precomputed.data_entries(other, source) != mine, changes


class TestRefusals:
  """A mistake is named before anything is computed."""

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      (dict(data__augment='flip'), 'pad: 1 -> 0'),
      (dict(data__settings__train_size=48), 'images: 40 -> 48'),
      (dict(data__few_shot=4), 'data fingerprint: '),
      (dict(data__image_size=4), r'image shape: \[8, 8, 1\] -> \[4, 4, 1\]'),
    ],
  )
  def test_other_images(self, exact, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
      finish(tmp_path, teacher__outputs=exact, **changes)

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      (dict(teacher__checkpoint='x'), 'takes the place of a teacher'),
      (dict(method=dict(name='teacher')), 'takes the place of a teacher'),
      (dict(teacher__cache='disk'), 'has the outputs already'),
      (dict(method=dict(name='simkd')), 'logits alone'),
      (
        dict(method=dict(name='distil', objective='rkd')),
        "of teacher there are logits alone.*'pooled'",
      ),
    ],
  )
  def test_what_needs_more_than_outputs(self, exact, changes, message):
    with pytest.raises((KeyError, ValueError), match=message):
      build(tiny.config(**DATA, teacher__outputs=exact, **changes))

  def test_taps_of_a_cached_teacher(self):
    with pytest.raises(ValueError, match='of teacher there are logits alone'):
      settings = dict(teacher__cache='disk')
      method = dict(name='distil', objective='fitnet')
      build(tiny.config(**DATA, method=method, **settings))

  def test_stores_of_different_views(self, folder, exact, tmp_path):
    other = stored(folder, tmp_path / 'x', store__seed=3)
    teachers = {'teacher': 1, 'other': {'outputs': other}}
    method = dict(name='distil', teachers=teachers)
    with pytest.raises(ValueError, match='of different views.*seed=3.*seed=0'):
      finish(tmp_path / 'a', method=method, teacher__outputs=exact)

  def test_seeds_together(self, exact, tmp_path):
    study = dict(seeds=(0, 1), together=True, recipes={'a': {}})
    changes = {f'study__{key}': x for key, x in study.items()}
    config = tiny.config(**DATA, teacher__outputs=exact, **changes)
    with pytest.raises(ValueError, match='set study.together to False'):
      Study(config, tmp_path / 'study').finish()

  def test_a_teacher_that_is_not_trained(self, tmp_path):
    config = tiny.config(**DATA, cache=str(tmp_path))
    with pytest.raises(ValueError, match='has not been trained'):
      command.run(config, tmp_path / 'x')

  def test_a_teacher_that_guesses(self, folder, tmp_path, monkeypatch):
    always = dataclasses.replace(CLASSIFICATION, chance=lambda _: (1.0, 0.0))
    monkeypatch.setattr(pretrained.problems, 'of', lambda _: always)
    with pytest.raises(ValueError, match='it has nothing to teach'):
      stored(folder, tmp_path / 'x')
    assert not list(tmp_path.iterdir())
    stored(folder, tmp_path / 'x', teacher__allow_guessing=True)

  def test_other_outputs_than_the_run_began_with(self, folder, exact, tmp_path):
    shutil.copy(exact, tmp_path / 'x')
    settings = dict(teacher__outputs=str(tmp_path / 'x'), epochs=1)
    finish(tmp_path / 'a', **settings)
    (tmp_path / 'a/summary.json').unlink()
    (tmp_path / 'x').unlink()
    stored(folder, tmp_path / 'x', store__top=1)
    with pytest.raises(ValueError, match='another|began|differ|checkpoint'):
      finish(tmp_path / 'a', **settings)
