"""Saved networks, saved states, and the cache of teachers."""

import os
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import checkpoints, tree
from jaxkd.checkpoints import Card, native
from jaxkd.runs.cache import Cache
from jaxkd.training import mesh
from jaxkd.training.checkpoint import Checkpoints
from jaxkd.training.state import State

SETTINGS = {
  'teacher': {'name': 'resnet14', 'seed': 0, 'loss': 'brier'},
  'optimizer': {'learning_rate': 0.05, 'betas': [0.9, 0.999]},
  'epochs': 20,
}


def network(seed: int = 0) -> dict:
  """Returns variables with values that an inexact writer would change."""
  kernel = np.random.default_rng(seed).normal(size=(3, 3, 2, 4))
  odd = [np.nan, np.inf, -0.0, np.finfo(np.float32).smallest_subnormal]
  return {
    'params': {
      'stem': {'kernel': kernel.astype(np.float32)},
      'head': {'bias': np.array(odd, np.float32)},
    },
    'batch_stats': {'stem': {'var': np.ones(4, np.float32)}},
  }


CARD = Card('resnet8', results={'top1': 0.5})


def card_of(seed) -> Card:
  """Returns a card that tells seeds apart."""
  return CARD.replace(results={'seed': seed})


class TestNetwork:
  def test_round_trip_bit_for_bit(self, tmp_path):
    card = Card('resnet8', results={'top1': 0.1 + 0.2}, mean=(0.5,))
    checkpoints.save(tmp_path / 'a' / 'b', network(), card)
    variables, read = checkpoints.load(tmp_path / 'a' / 'b')
    assert read == card
    assert jax.tree.structure(variables) == jax.tree.structure(network())
    assert tree.digest(variables) == tree.digest(network())

  def test_without_batch_norm(self, tmp_path):
    variables = {**network(), 'batch_stats': {}}
    checkpoints.save(tmp_path, variables, CARD)
    loaded, _ = native.load(tmp_path)
    assert loaded['batch_stats'] == {}

  def test_is_replaced(self, tmp_path):
    for seed in (0, 1):
      checkpoints.save(tmp_path, network(seed), card_of(seed))
    variables, card = native.load(tmp_path)
    assert card == card_of(1)
    assert tree.digest(variables) == tree.digest(network(1))

  @pytest.mark.parametrize('share', [0.0, 0.3, 0.99])
  def test_truncated_arrays(self, tmp_path, share):
    checkpoints.save(tmp_path, network(), CARD)
    path = tmp_path / native.ARRAYS
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
      ValueError, match='is corrupt.* expected a file that a run'
    ):
      native.load(tmp_path)

  def test_changed_bytes(self, tmp_path):
    checkpoints.save(tmp_path, network(), CARD)
    path = tmp_path / native.ARRAYS
    content = network()['params']['stem']['kernel'].tobytes()
    data = path.read_bytes()
    assert data.count(content) == 1
    path.write_bytes(data.replace(content, content[::-1]))
    with pytest.raises(ValueError, match='is corrupt'):
      native.load(tmp_path)

  def test_truncated_card(self, tmp_path):
    checkpoints.save(tmp_path, network(), CARD)
    path = tmp_path / native.CARD
    path.write_text(path.read_text()[:10])
    with pytest.raises(ValueError, match='is corrupt'):
      native.load(tmp_path)

  @pytest.mark.parametrize('name', [native.CARD, native.ARRAYS])
  def test_missing_file(self, tmp_path, name):
    checkpoints.save(tmp_path, network(), CARD)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'{name} is missing'):
      native.load(tmp_path)


def variants() -> list[dict]:
  """Returns the settings with each of their values changed in turn."""
  named = tree.leaves(SETTINGS)
  changed = [
    tree.from_leaves({**named, name: f'not {value}'})
    for name, value in named.items()
  ]
  return [*changed, {**SETTINGS, 'extra': 0}]


class TestCache:
  def test_returns_what_was_stored(self, tmp_path):
    cache = Cache(tmp_path)
    assert cache.load(SETTINGS) is None
    folder = cache.store(SETTINGS, network(), CARD)
    assert folder == cache.path(SETTINGS)
    variables, card = Cache(tmp_path).load(SETTINGS)
    assert card == CARD
    assert tree.digest(variables) == tree.digest(network())

  def test_every_setting_counts(self, tmp_path):
    cache = Cache(tmp_path)
    paths = {cache.path(settings) for settings in [SETTINGS, *variants()]}
    assert len(paths) == 1 + len(variants())

  def test_the_order_of_settings_does_not_count(self, tmp_path):
    cache = Cache(tmp_path)
    turned = {name: SETTINGS[name] for name in reversed(SETTINGS)}
    assert cache.path(turned) == cache.path(SETTINGS)

  def test_the_first_teacher_is_kept(self, tmp_path):
    cache = Cache(tmp_path)
    for seed in (0, 1):
      folder = cache.store(SETTINGS, network(seed), card_of(seed))
    assert cache.load(SETTINGS).card == card_of(0)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]

  def test_two_writers_at_once(self, tmp_path, monkeypatch):
    """Both have seen an empty cache, and have written their teacher."""
    cache, barrier = Cache(tmp_path), threading.Barrier(2)
    pids, replace = iter((11, 12)), os.replace

    def wait_and_replace(source, target):
      if pathlib.Path(source).is_dir():
        barrier.wait(10)
      replace(source, target)

    monkeypatch.setattr(os, 'getpid', lambda: next(pids))
    monkeypatch.setattr(os, 'replace', wait_and_replace)
    writers = [
      threading.Thread(
        target=cache.store, args=(SETTINGS, network(seed), card_of(seed))
      )
      for seed in (0, 1)
    ]
    for writer in writers:
      writer.start()
    for writer in writers:
      writer.join()
    variables, card = cache.load(SETTINGS)
    assert tree.digest(variables) == tree.digest(network(card.results['seed']))
    assert len(list(cache.path(SETTINGS).parent.iterdir())) == 1

  def test_an_unfinished_store_is_invisible(self, tmp_path, monkeypatch):
    cache = Cache(tmp_path)

    def killed(path, value):
      raise KeyboardInterrupt

    with monkeypatch.context() as patch:
      patch.setattr(native, 'write_json', killed)
      with pytest.raises(KeyboardInterrupt):
        cache.store(SETTINGS, network(), card_of(0))
    assert list(tmp_path.rglob(native.ARRAYS))
    assert cache.load(SETTINGS) is None
    cache.store(SETTINGS, network(), card_of(1))
    assert cache.load(SETTINGS).card == card_of(1)

  @pytest.mark.parametrize('folder', [None, ''])
  def test_the_environment_sets_its_folder(self, tmp_path, monkeypatch, folder):
    monkeypatch.setenv('JAXKD_CACHE', str(tmp_path))
    assert Cache(folder).path(SETTINGS).is_relative_to(tmp_path)


def make_state(step: int) -> State:
  """Returns a state with several types, one bank split over the devices."""
  devices = mesh.make_mesh()
  params = {
    'student': {'kernel': jnp.full((3, 2), 1 / 3 + step)},
    'teacher': {'kernel': jnp.full((2,), step, jnp.bfloat16)},
  }
  state = State(
    step=jnp.asarray(step, jnp.int32),
    params=params,
    objectives={},
    stats={'student': {}, 'teacher': {'mean': jnp.arange(2.0)}},
    memory={},
    opt=optax.sgd(0.1, momentum=0.9).init(params),
    ema={},
  )
  bank = jnp.arange(8 * mesh.make_mesh().size, dtype=jnp.uint8)
  state = jax.device_put(state, mesh.whole(devices))
  split = mesh.batch_split(devices, len(bank))
  return state._replace(memory={'crd': jax.device_put(bank, split)})


@pytest.fixture
def saves(tmp_path):
  opened = Checkpoints(tmp_path / 'distil')
  yield opened
  opened.close()


class TestCheckpoints:
  def test_state_and_record_come_back(self, saves):
    record = {'best': {'student': 0.5}, 'seconds': 0.1 + 0.2, 'last': {}}
    saves.save(make_state(3), record)
    got, read = saves.restore(make_state(0))
    want = make_state(3)
    assert read == record
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert tree.digest(got) == tree.digest(want)

    def same_place(a, b):
      assert a.dtype == b.dtype
      assert a.sharding == b.sharding

    jax.tree.map(same_place, got, want)
    assert len({str(x.sharding) for x in jax.tree.leaves(got)}) == 2

  def test_restores_into_shapes(self, saves):
    saves.save(make_state(3), {})
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      make_state(0),
    )
    got, _ = saves.restore(shapes)
    assert tree.digest(got) == tree.digest(make_state(3))

  def test_keeps_the_last_two(self, saves, tmp_path):
    assert saves.latest() is None
    for step in (2, 4, 6):
      saves.save(make_state(step), {'step': step})
    assert saves.latest() == 6
    kept = {path.name for path in (tmp_path / 'distil').iterdir()}
    assert kept == {'4', '6'}
    got, record = saves.restore(make_state(0))
    assert (int(got.step), record) == (6, {'step': 6})

  def test_another_process_reads_them(self, saves, tmp_path):
    saves.save(make_state(2), {})
    again = Checkpoints(tmp_path / 'distil')
    assert again.latest() == 2
    assert int(again.restore(make_state(0))[0].step) == 2
    again.close()

  def test_another_structure_is_of_another_version(self, saves, tmp_path):
    saves.save(make_state(2), {})
    own = {'student->teacher:ft': {'bias': jnp.zeros(2)}}
    other = make_state(0)._replace(objectives=own)
    message = (
      'cannot be resumed: it was saved by another version of jaxkd, or is'
      ' corrupt. Choose a new --workdir'
    )
    with pytest.raises(ValueError, match=message):
      saves.restore(other)

  def test_an_interrupted_save_leaves_the_previous_one(self, tmp_path, saves):
    saves.save(make_state(2), {})

    def killed(*args, **kwargs):
      raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(os, 'rename', killed)
      patch.setattr(os, 'replace', killed)
      patch.setattr(pathlib.Path, 'rename', killed)
      with pytest.raises(KeyboardInterrupt):
        saves.save(make_state(4), {})
    again = Checkpoints(tmp_path / 'distil')
    assert again.latest() == 2
    got, _ = again.restore(make_state(0))
    assert tree.digest(got) == tree.digest(make_state(2))
    again.close()
