"""What the runs of a study share: compiled programs and data."""

import jax
import pytest
import tiny
from jax.experimental.compilation_cache import compilation_cache

from jaxkd import sharing
from jaxkd.runs import programs
from jaxkd.training.checkpoint import Checkpoints
from jaxkd.training.phase import feed_of, start

SETTINGS = (
  'jax_compilation_cache_dir',
  'jax_compilation_cache_max_size',
  'jax_persistent_cache_min_compile_time_secs',
)


@pytest.fixture
def unset(monkeypatch):
  """A process in which nobody has configured a cache of programs."""
  old = {name: getattr(jax.config, name) for name in SETTINGS}
  monkeypatch.delenv(programs.FOLDER_VARIABLE, raising=False)
  monkeypatch.delenv(programs.VARIABLE, raising=False)
  jax.config.update('jax_compilation_cache_dir', None)
  yield
  for name, value in old.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def test_programs_are_kept_up_to_a_size(unset, tmp_path):
  place = programs.keep(tmp_path)
  assert place == tmp_path / 'programs' / programs.machine()
  assert jax.config.jax_compilation_cache_dir == str(place)
  assert jax.config.jax_compilation_cache_max_size == programs.SIZE
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.jit(lambda x: x * 3.25 + 1)(1.0)
  assert any(place.iterdir())


def test_a_cache_that_is_configured_is_left_alone(unset, tmp_path, monkeypatch):
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'own'))
  assert programs.keep(tmp_path) is None
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'own')
  jax.config.update('jax_compilation_cache_dir', None)
  monkeypatch.setenv(programs.FOLDER_VARIABLE, str(tmp_path / 'own'))
  assert programs.keep(tmp_path) is None


def test_it_can_be_turned_off(unset, tmp_path, monkeypatch):
  monkeypatch.setenv(programs.VARIABLE, 'off')
  assert programs.keep(tmp_path) is None
  assert not jax.config.jax_compilation_cache_dir
  assert not list(tmp_path.iterdir())
  monkeypatch.setenv(programs.VARIABLE, 'perhaps')
  with pytest.raises(ValueError, match='must be on or off'):
    programs.keep(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_no_error(unset, tmp_path):
  (tmp_path / 'file').write_text('')
  assert programs.keep(tmp_path / 'file') is None


def test_seeds_have_one_program(unset, tmp_path):
  """But not one result: the seed is an argument."""
  place = programs.keep(tmp_path / 'cache')
  assert place
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  kept, losses = [], []
  for seed in (0, 1):
    changes = dict(seed=seed, data__augment='crop_flip', method={'name': 'dml'})
    experiment = tiny.experiment(**changes)
    task = experiment.phases[-1].task(experiment.dataset)
    feed = feed_of(task)
    state, _ = start(task, {}, Checkpoints(tmp_path / f'{seed}'))
    feed.compile(state)
    large = 'jit_init-*-cache', 'jit__run_stored-*-cache'
    kept.append([sorted(path.name for path in place.glob(x)) for x in large])
    call = next(feed.calls(0, 0))
    losses.append(float(call.run(state)[1]['loss'][0]))
  assert [len(names) for names in kept[0]] == [1, 1]
  assert kept[0] == kept[1]
  assert losses[0] != losses[1]


def test_runs_of_a_study_load_data_once():
  def load(**changes):
    return tiny.experiment(**changes).dataset

  assert load() is not load()
  with sharing.sharing():
    first = load()
    assert load(seed=1) is first
    assert load(data__few_shot=4) is not first
    assert load() is not first  # one data set is kept
