"""metrics.jsonl: what survives a kill, a resume, and a lost number."""

import json
import pathlib

import pytest

from jaxkd.disk import write_json
from jaxkd.training import log

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
