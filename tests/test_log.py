"""The log: what survives a kill, a resume, and a lost number; what is in it."""

import json
import pathlib

import numpy as np
import pytest
import tiny

from jaxkd import data, objectives, plots, problems
from jaxkd.data.base import Dataset, Split, View
from jaxkd.disk import write_json
from jaxkd.graph import Frozen, Fusion, Graph, Learner, Transfer
from jaxkd.runs.run import Run
from jaxkd.training import log, samples
from jaxkd.training.gap import gaps

METRICS = 'metrics.jsonl'


@pytest.fixture
def logged(tmp_path) -> pathlib.Path:
  """A folder with two stages' records, four steps to an epoch."""
  for stage, epochs in (('teacher', 2), ('distil', 3)):
    writer = log.Log(tmp_path, stage, 0)
    for epoch in range(1, epochs + 1):
      writer.write(epoch, 4 * epoch, {'train/loss': 1 / epoch})
    writer.close()
  return tmp_path


def steps(folder: pathlib.Path) -> list[tuple[str, int]]:
  records = log.read(folder / METRICS)
  return [(record['phase'], record['step']) for record in records]


def test_records_are_what_was_written(logged):
  first, *_, last = log.read(logged / METRICS)
  assert first == {
    'phase': 'teacher',
    'epoch': 1,
    'step': 4,
    'train/loss': 1.0,
  }
  assert last == {
    'phase': 'distil',
    'epoch': 3,
    'step': 12,
    'train/loss': 1 / 3,
  }


def test_no_file_has_no_records(tmp_path):
  assert log.read(tmp_path / METRICS) == []


@pytest.mark.parametrize('cut', [1, 10, -1])
def test_a_truncated_last_line_is_left_out(logged, cut):
  path = logged / METRICS
  *whole, last = path.read_text().splitlines()
  path.write_text('\n'.join([*whole, last[:cut]]))
  assert steps(logged) == [
    ('teacher', 4),
    ('teacher', 8),
    ('distil', 4),
    ('distil', 8),
  ]


def test_a_truncated_line_is_overwritten(logged):
  path = logged / METRICS
  path.write_text(path.read_text()[:-9])
  writer = log.Log(logged, 'distil', 8)
  writer.write(3, 12, {'train/loss': 0.25})
  writer.close()
  assert steps(logged)[-2:] == [('distil', 8), ('distil', 12)]
  assert len(path.read_text().splitlines()) == 5


@pytest.mark.parametrize(('step', 'kept'), [(12, 3), (9, 2), (8, 2), (0, 0)])
def test_a_resumed_phase_drops_later_records(logged, step, kept):
  log.Log(logged, 'distil', step).close()
  want = [('distil', 4), ('distil', 8), ('distil', 12)][:kept]
  assert steps(logged) == [('teacher', 4), ('teacher', 8), *want]


def test_non_finite_values_become_null(tmp_path):
  writer = log.Log(tmp_path, 'distil', 0)
  values = {'a': float('nan'), 'b': float('inf'), 'c': -float('inf'), 'd': 1.5}
  writer.write(1, 4, values)
  writer.close()

  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  line = (tmp_path / METRICS).read_text()
  record = json.loads(line, parse_constant=refuse)
  assert [record[name] for name in 'abcd'] == [None, None, None, 1.5]


def test_tensorboard_has_a_folder_for_each_phase(logged):
  names = {path.parent.name for path in logged.glob('tensorboard/*/events.*')}
  assert names == {'teacher', 'distil'}


def test_a_json_file_is_whole_or_as_it_was(tmp_path):
  path = tmp_path / 'summary.json'
  write_json(path, {'top1': 0.5})
  with pytest.raises(TypeError):
    write_json(path, {'top1': object()})
  assert json.loads(path.read_text()) == {'top1': 0.5}


class TestGaps:
  """The gap of a learner to its guides."""

  RESULTS = {
    'teacher': {'top1': 0.8, 'nll': 0.7},
    'peer': {'top1': 0.6, 'nll': 0.9},
    'student': {'top1': 0.5, 'nll': 1.0},
  }

  def of(self, *pairs, frozen=('teacher',)):
    networks = {
      name: Frozen() if name in frozen else Learner() for name in self.RESULTS
    }
    labels = [('labels', n) for n in networks if n not in frozen]
    transfers = tuple(
      Transfer(guide, learner, objectives.make({'name': loss}))
      for pairs, loss in ((labels, 'cross_entropy'), (pairs, 'kd'))
      for guide, learner in pairs
    )
    return gaps(Graph(networks, transfers), self.RESULTS, 'top1')

  def test_labels_alone_are_no_guide(self):
    assert self.of() == {}

  def test_is_the_lead_of_the_guide(self):
    assert self.of(('teacher', 'student')) == {'gap/student': 0.8 - 0.5}
    assert self.of(('student', 'peer')) == {'gap/peer': 0.5 - 0.6}

  def test_is_to_the_best_of_several(self):
    both = Fusion({'teacher': 0.5, 'peer': 0.5})
    for pairs in (
      [('peer', 'student'), ('teacher', 'student')],
      [(both, 'student')],
    ):
      assert self.of(*pairs) == {
        'gap/student': 0.8 - 0.5,
        'gap/student/teacher': 0.8 - 0.5,
        'gap/student/peer': 0.6 - 0.5,
      }

  def test_is_what_is_drawn(self):
    row = {
      f'test/{name}/{key}': value
      for name, result in self.RESULTS.items()
      for key, value in result.items()
    }
    drawn = plots.gaps(plots.curves([{'epoch': 1, **row}]), 'student')
    own = self.of(('teacher', 'student'), ('peer', 'student'))
    for name, curve in drawn.items():
      assert curve['gap'] == [pytest.approx(100 * own[f'gap/student/{name}'])]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """The folder of a run with a rate of its own for the student."""
  folder = tmp_path_factory.mktemp('trained')
  made = tiny.experiment(
    cache=str(folder / 'cache'),
    schedule__milestones=(1.0,),
    optimizer__learning_rate=0.1,
    optimizer__rates=dict(student=0.2),
  )
  Run(made, folder / 'run').finish()
  return folder / 'run'


def test_a_run_logs_rates_gaps_and_throughput(trained):
  rows = log.read(trained / METRICS)
  rates = [row.get('learning_rate/student') for row in rows]
  teacher, distil = rows[:2], rows[2:]
  # The milestone is after the first of two epochs.
  assert rates == [None, None, pytest.approx(0.2), pytest.approx(0.02)]
  assert [row['learning_rate/teacher'] for row in teacher] == [
    pytest.approx(0.1),
    pytest.approx(0.01),
  ]
  for row in teacher:
    assert not [key for key in row if key.startswith('gap/')]
  for row in distil:
    lead = row['test/teacher/top1'] - row['test/student/top1']
    assert row['gap/student'] == lead
  assert all(row['images_per_second'] > 0 for row in rows)


def test_one_rate_has_no_owner():
  (phase,) = tiny.experiment(method=dict(name='plain')).phases
  assert list(phase.make_schedules(5)) == ['']


def test_tensorboard_shows_augmented_images_once_for_each_phase(trained):
  for phase in ('teacher', 'distil'):
    (path,) = (trained / 'tensorboard' / phase).glob('events.*')
    data = path.read_bytes()
    assert data.count(b'train_images') == 1
    assert b'learning_rate' in data


def test_tensorboard_can_be_left_out(tmp_path):
  made = tiny.experiment(method=dict(name='plain'), log__tensorboard=False)
  Run(made, tmp_path).finish()
  assert not (tmp_path / 'tensorboard').exists()
  # It may be wanted later.
  wanted = tiny.experiment(method=dict(name='plain'))
  assert Run(wanted, tmp_path).summary


class TestGrid:
  """The picture of a batch."""

  def dataset(self, image, view, shape=(10, 2, 3, 3)):
    split = Split(np.zeros(10, np.int32), image.reshape(shape))
    return Dataset('x', split, split, ('a', 'b'), view, '')

  def test_has_the_pixels_of_the_images(self):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 18), np.uint8)
    made = self.dataset(pixels, View((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    grid = samples.grid(made, problems.of(made), 10, 0, 0)
    assert grid.shape == (2 * 2, 8 * 3, 3) and grid.dtype == np.uint8
    cells = grid.reshape(2, 2, 8, 3, 3).swapaxes(1, 2).reshape(16, 18)
    order = data.order(0, 0, 10)
    np.testing.assert_array_equal(cells[:10], pixels[order])
    assert not cells[10:].any()

  def test_has_the_views_of_the_first_epoch(self):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 18), np.uint8)
    view = View((0.0,) * 3, (1.0,) * 3, pad=1, flip=True)
    made = self.dataset(pixels, view)
    first, same, other = (
      samples.grid(made, problems.of(made), 4, 0, seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.any(first != other)
    index = data.order(0, 0, 10)[:4]
    image = made.train.image[index]
    want = data.train_view(image, index, 0, seed=0, view=view)
    cells = first.reshape(1, 2, 8, 3, 3).swapaxes(1, 2).reshape(8, 2, 3, 3)
    np.testing.assert_allclose(cells[:4], 255 * want, atol=0.51)

  def test_real_numbers_fill_the_range(self):
    numbers = np.linspace(-3, 8, 180).astype(np.float32)
    view = View((1.0,) * 3, (2.0,) * 3, scale=1.0)
    made = self.dataset(numbers, view)
    grid = samples.grid(made, problems.of(made), 10, 0, 0)
    assert grid.max() == 255 and grid[: 2 * 2].min() == 0

  def test_vectors_are_no_pictures(self):
    numbers = np.zeros((10, 18), np.float32)
    made = self.dataset(numbers, View((0.0,) * 18, (1.0,) * 18), (10, 1, 1, 18))
    assert samples.grid(made, problems.of(made), 10, 0, 0) is None
