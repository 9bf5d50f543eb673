"""The view cache: bits, modes, what is refused, and what 'auto' decides."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, sharing
from jaxkd import config as configs
from jaxkd.catalog import UnknownNameError
from jaxkd.graph.reads import EVERYTHING, taps_read
from jaxkd.runs import folder as folders
from jaxkd.runs import view_cache
from jaxkd.runs.experiment import build
from jaxkd.runs.run import Run
from jaxkd.stores import Header, Memory, Rows
from jaxkd.training import cached, guides, precomputed, tables
from jaxkd.training import mesh as meshes
from jaxkd.training.checkpoint import Checkpoints
from jaxkd.training.phase import feed_of, start, train_phase

# 44 images are five batches and a smaller one.
DATA = dict(
  data__augment='crop_flip',
  data__settings__test_size=20,
  data__settings__train_size=44,
  epochs=3,
)
MODES = ('device', 'host', 'disk')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Holds a trained teacher, and a student that it has taught in each step."""
  folder = tmp_path_factory.mktemp('cache')
  method = dict(name='teacher')
  finish(folder / 'teacher', method=method, cache=str(folder / 'cache'))
  finish(folder / 'off', teacher__cache='off', **of(folder))
  return folder


def of(folder):
  """Settings of a run with the trained teacher and an empty view cache."""
  return dict(
    teacher__checkpoint=str(folder / 'teacher'), cache=str(folder / 'none')
  )


def finish(workdir, **changes):
  experiment = tiny.experiment(**{**DATA, **changes})
  return Run(experiment, pathlib.Path(workdir)).finish()


def student(workdir):
  return checkpoints.load(workdir).variables


class TestBits:
  """In float32 a student has the bits that the teacher in the step gives.

  With the compiler's own flags: those of the tests fuse less, and give a
  teacher in another program other last bits.
  """

  def test_every_mode_is_exact(self, tmp_path):
    bits(tmp_path, 'kd', 'mlp', 'mlp')

  @pytest.mark.slow
  @pytest.mark.parametrize('method', ['gpd', 'slkd', 'pooled'])
  def test_convolutions_and_methods(self, tmp_path, method):
    bits(tmp_path, method, 'resnet14', 'resnet8')

  @pytest.mark.parametrize('mode', MODES)
  def test_a_full_cache_runs_no_teacher(self, folder, tmp_path, mode):
    settings = dict(of(folder), teacher__cache=mode, cache=str(tmp_path / 'x'))
    with sharing.sharing():
      finish(tmp_path / 'empty', **settings)
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cached.Cache, '_batches', refuse_more)
        finish(tmp_path / 'full', **settings)
    full = student(tmp_path / 'full')
    chex.assert_trees_all_equal(student(tmp_path / 'empty'), full)
    chex.assert_trees_all_close(
      student(folder / 'off'), full, rtol=1e-4, atol=1e-5
    )

  @pytest.mark.parametrize('mode', ['device', 'host'])
  def test_a_run_is_resumed_to_the_same_bits(self, folder, tmp_path, mode):
    """With a table in memory, which is empty again."""
    settings = dict(of(folder), teacher__cache=mode)
    finish(tmp_path / 'whole', **settings)
    experiment = tiny.experiment(**{**DATA, **settings})
    (phase,) = experiment.phases
    task = phase.task(experiment.dataset)
    initial = {'teacher': student(folder / 'teacher')}

    def interrupt(epoch):
      raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
      train_phase(task, tmp_path / 'a', initial, callbacks=[interrupt])
    trained = train_phase(task, tmp_path / 'a', initial)
    chex.assert_trees_all_equal(
      trained.variables['student'], student(tmp_path / 'whole')
    )


def bits(folder, *arguments):
  """Runs `view_cache_bits.py`; every mode has to give the same digest."""
  script = pathlib.Path(__file__).with_name('view_cache_bits.py')
  root = str(script.parents[1])
  environment = {**os.environ, 'XLA_FLAGS': '', 'PYTHONPATH': root}
  ended = subprocess.run(
    [sys.executable, str(script), str(folder), *arguments],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stderr
  digests = json.loads(ended.stdout.splitlines()[-1])
  assert len(digests) == 2 * len(MODES) + 1
  assert len(set(digests.values())) == 1, digests


def refuse_more(self, missing):
  assert not len(missing), 'the teacher was run'
  return missing.reshape(0, self._size)


class TestDevice:
  @pytest.mark.parametrize('gigabytes', [4.0, 3e-5])  # all rows, or parts
  def test_chunks_of_steps_read_the_table(self, folder, tmp_path, gigabytes):
    """As on accelerators: one call makes many steps."""
    experiment = tiny.experiment(
      **{**DATA, **of(folder)},
      teacher__cache='device',
      teacher__cache_gigabytes=gigabytes,
    )
    (phase,) = experiment.phases
    task, states = phase.task(experiment.dataset), []
    initial = {'teacher': student(folder / 'teacher')}
    for chunk in (1, 2):
      feed = feed_of(task, chunk, initial)
      (rows,) = {x.sharding for x in jax.tree.leaves(feed._tables())}
      assert rows.is_fully_replicated == (gigabytes > 1)
      state, _ = start(task, initial, Checkpoints(tmp_path / f'{chunk}'))
      for call in feed.calls(1, 0):
        state, _ = call.run(state)
      states.append(state.params['student'])
    chex.assert_trees_all_close(*states, rtol=1e-5, atol=1e-6)

  @pytest.mark.parametrize('split', [False, True])
  @pytest.mark.parametrize('dtype', ['float32', 'float16'])
  def test_a_table_is_that_of_the_host(self, folder, split, dtype):
    experiment = tiny.experiment(
      **{**DATA, **of(folder)}, teacher__cache='device'
    )
    (phase,) = experiment.phases
    task = phase.task(experiment.dataset)
    live = precomputed.live(
      task.sources['teacher'],
      task.program,
      'teacher',
      student(folder / 'teacher'),
      dataset=task.dataset,
      problem=task.problem,
      mesh=task.mesh,
      seed=0,
    )
    header = Header(Rows((3,), dtype), 18, 44, {}, {}, {}, {})
    number = tables.numbers(task.dataset, 0)
    device = cached.DeviceTable(header, live, split)
    on_device = cached.OnDevice(live, number, device, 8)
    on_host = cached.Cached(live, number, Memory(header), 8)
    feed = feed_of(dataclasses.replace(task, sources={}))
    groups = [np.arange(40, dtype=np.int32).reshape(5, 8)]
    for each in (on_device, on_host):
      each.start(groups, 1, feed._stored)
      assert (each.hits, each.misses, each.share) == (0, 40, 0.0)
    positions = on_device(groups[0], feed._stored, None)
    read = jax.jit(jax.vmap(on_device.pick, in_axes=(None, 0)))
    text = read.lower(on_device.table, positions).compile().as_text()
    assert 'all-gather' not in text  # each device looks among its own rows
    chex.assert_trees_all_close(
      read(on_device.table, positions),
      on_host(groups[0], feed._stored, None),
      rtol=0 if dtype == 'float32' else 1e-5,
      atol=0 if dtype == 'float32' else 1e-5,
    )
    on_device.start(groups, 1, feed._stored)
    assert (on_device.hits, on_device.share) == (40, 1.0)


class TestDecisions:
  @pytest.mark.parametrize('slots', [1, 9, 162])
  def test_expected_hits(self, slots):
    """Against a simulation."""
    rng, epochs = np.random.default_rng(0), 50
    views = rng.integers(slots, size=(2000, epochs))
    distinct = np.mean([len(set(row)) for row in views.tolist()])
    hits = tables.expected_hits(slots, epochs)
    assert hits == pytest.approx(1 - distinct / epochs, abs=0.01)

  def test_automatic_takes_what_repeats_and_costs(self, folder, monkeypatch):
    experiment = tiny.experiment(**{**DATA, **of(folder), 'epochs': 20})
    (phase,) = experiment.phases
    assert not phase.sources and not phase.program.precomputed

    def mode(**changes):
      source = phase.candidates['teacher']
      budget = source.cache._replace(budget=changes.pop('budget', 10**9))
      changed = dataclasses.replace(
        phase,
        candidates={'teacher': dataclasses.replace(source, cache=budget)},
        **changes,
      )
      task = changed.cached_task(experiment.dataset)
      assert task.program.precomputed.keys() == task.sources.keys()
      return [x.cache.mode for x in task.sources.values()]

    assert mode() == []  # a tiny network
    monkeypatch.setattr(view_cache, 'MACS', 100)
    assert mode() == []  # compiling would take longer
    monkeypatch.setattr(view_cache, 'SAVED_ON_CPU', 1e5)
    assert mode() == ['host']
    assert mode(epochs=2) == []  # its views hardly repeat
    assert mode(budget=10_000) == []
    monkeypatch.setattr(view_cache, 'MEMORY', 1e-9)
    assert mode() == []

  def test_automatic_leaves_maps_to_the_step(self, monkeypatch):
    monkeypatch.setattr(view_cache, 'MACS', 100)
    monkeypatch.setattr(view_cache, 'SAVED_ON_CPU', 1e5)
    method = dict(name='distil', objective={'kd': 1, 'fitnet': 1})
    changes = dict(DATA, epochs=20, method=method)
    experiment = tiny.experiment(**changes)
    phase = experiment.phases[-1]
    assert not phase.cached_task(experiment.dataset).sources

  @pytest.mark.parametrize(
    ('objective', 'taps'),
    [
      ('kd', set()),
      ('rkd', {'pooled'}),
      ('fitnet', {'stage2'}),
      ({'kd': 1, 'rkd': 1}, {'pooled'}),
    ],
  )
  def test_taps_that_objectives_read(self, objective, taps):
    method = dict(name='distil', objective=objective)
    experiment = tiny.experiment(**DATA, method=method)
    phase = experiment.phases[-1]
    spec = experiment.source.problem.batch_spec((8, 8, 1), 2, 3)
    read = taps_read(phase.program, spec, phase.length)['teacher']
    assert read == taps or (EVERYTHING in read and taps - {'pooled'})


class TestRefusals:
  @pytest.mark.parametrize('mode', MODES)
  def test_objectives_of_maps(self, mode):
    method = dict(name='distil', objective='fitnet')
    with pytest.raises(ValueError, match='of teacher there are logits alone'):
      tiny.experiment(**DATA, method=method, teacher__cache=mode)

  def test_guides_that_learn(self):
    with pytest.raises(ValueError, match='learn, so that their outputs change'):
      tiny.experiment(**DATA, method={'name': 'dml'}, teacher__cache='host')

  def test_a_table_over_its_budget(self, tmp_path):
    """Before the teacher is trained."""
    settings = dict(teacher__cache_gigabytes=1e-6, cache=str(tmp_path / 'c'))
    for mode in MODES:
      with pytest.raises(ValueError, match='cache_gigabytes to 0.1'):
        finish(tmp_path / mode, teacher__cache=mode, **settings)
    assert not (tmp_path / 'c').exists()

  def test_a_folder_that_cannot_be_written_to(self, tmp_path):
    (tmp_path / 'file').write_text('')
    settings = dict(teacher__cache='disk', cache=str(tmp_path / 'file'))
    with pytest.raises(OSError, match='cannot be written to'):
      finish(tmp_path / 'a', **settings)

  def test_a_frozen_network_that_guides_nobody(self):
    """Its outputs are not computed in a step, and not for a cache either."""
    method = dict(name='distil', objective='kd', teachers={'teacher': 0.0})
    experiment = tiny.experiment(**DATA, teacher__cache='host', method=method)
    phase = experiment.phases[-1]
    guides = {x for t in phase.graph.transfers for x in t.guides}
    assert set(phase.sources) == guides & set(phase.graph.frozen)

  def test_unknown_modes_and_types(self):
    with pytest.raises(KeyError, match=r"did you mean 'host'|Did you mean"):
      tiny.experiment(teacher__cache='hots')
    with pytest.raises(KeyError, match='float32'):
      tiny.experiment(teacher__cache_dtype='float23')

  def test_its_name_in_earlier_versions(self):
    config = tiny.config()
    config.teacher.cache_outputs = True
    with pytest.raises(UnknownNameError, match="set teacher.cache, to 'disk'"):
      build(config)


class TestRecords:
  def test_configs_of_earlier_versions_are_read(self, tmp_path):
    new = configs.resolved(tiny.config())
    old = json.loads(json.dumps(new))
    for key in ('cache', 'cache_dtype', 'cache_gigabytes'):
      del old['teacher'][key]
    for value, mode, dtype in (
      (False, 'off', 'float32'),
      (True, 'disk', 'float16'),
    ):
      old['teacher']['cache_outputs'] = value
      path = tmp_path / 'config.json'
      path.write_text(json.dumps(old))
      read = folders.read_config(path)
      assert read['teacher']['cache'] == mode
      assert read['teacher']['cache_dtype'] == dtype
      assert bool(configs.differing(read, new)) == value

  def test_where_outputs_are_may_differ(self, folder, tmp_path):
    """It does not change a run, so that any mode resumes it."""
    settings = dict(of(folder), epochs=1)
    finish(tmp_path / 'a', teacher__cache='host', **settings)
    summary = finish(tmp_path / 'a', teacher__cache='off', **settings)
    assert summary['networks']['student']


class TestSharing:
  def test_values_are_shared_inside_and_nothing_is_kept(self):
    made = []

    def make():
      made.append(1)
      return object()

    first = sharing.shared('x', 'a', make)
    assert sharing.shared('x', 'a', make) is not first
    with sharing.sharing():
      one = sharing.shared('x', 'a', make)
      with sharing.sharing():
        assert sharing.shared('x', 'a', make) is one
      assert sharing.shared('x', 'a', make) is one
      assert sharing.shared('y', 'a', make) is not one
      assert sharing.shared('x', 'b', make, limit=1) is not one
      assert sharing.shared('x', 'a', make) is not one  # it was dropped
    assert sharing.shared('x', 'a', make) is not one

  def test_the_least_used_values_are_dropped(self):
    with sharing.sharing():
      a, b = (sharing.shared('x', k, object, 2, 5) for k in 'ab')
      assert sharing.shared('x', 'a', object, 2, 5) is a
      sharing.shared('x', 'c', object, 2, 5)
      assert sharing.shared('x', 'a', object, 2, 5) is a
      assert sharing.shared('x', 'b', object, 2, 5) is not b


def test_runs_of_other_bits_do_not_share_a_table():
  """On CPU, outputs depend on the size of the batch."""
  mesh = meshes.make_mesh()

  def identity(dtype, size):
    cache = precomputed.Caching('disk', pathlib.Path(), dtype)
    return tables.computed_by(cache, mesh, size)

  assert identity('float32', 8) != identity('float32', 16)
  assert identity('float16', 8) == identity('float16', 16)


def test_rounded_tables_round_as_stores_do():
  rng = np.random.default_rng(0)
  logits = (30 * rng.standard_normal((6, 5))).astype(np.float32)
  pooled = rng.standard_normal((6, 4)).astype(np.float32) * 1e5
  rows = Rows((5,), 'float16', pooled=4)
  header = Header(rows, 2, 3, {}, {}, {}, {})
  memory, index = Memory(header), np.arange(3)
  memory.write(0, index, logits[:3], pooled[:3])
  memory.write(1, index, logits[3:], pooled[3:])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], np.float32),
    guides.Outputs(logits, {'pooled': pooled}),
  )
  table = guides.empty(6, shapes, np.float16)
  every = np.arange(6, dtype=np.int32)
  outputs = guides.Outputs(logits, {'pooled': pooled})
  table = guides.write(table, every, outputs)
  read = guides.read(table, every)
  for slot in range(2):
    part = slice(3 * slot, 3 * slot + 3)
    want_logits, want_pooled = memory.outputs(slot, index)
    np.testing.assert_array_equal(read.logits[part], want_logits)
    np.testing.assert_array_equal(read.taps['pooled'][part], want_pooled)
