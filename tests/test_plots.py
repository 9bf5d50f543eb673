"""The curves of a run, and their figure."""

import math
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from jaxkd import plots

ROOT = pathlib.Path(__file__).parents[1]


def row(phase, epoch, trained=(), **top1):
  """A row of metrics.jsonl; the NLL is ten times the error."""
  return (
    {'phase': phase, 'epoch': epoch, 'step': 4 * epoch, 'train/loss': 1.0}
    | {f'train/top1/{name}': 0.5 for name in trained}
    | {f'test/{name}/top1': x for name, x in top1.items()}
    | {f'test/{name}/nll': 10 * (1 - x) for name, x in top1.items()}
  )


ROWS = [
  row('teacher', 1, ['teacher'], teacher=0.5),
  row('teacher', 2, ['teacher'], teacher=0.75),
  row('distil', 1, ['student'], teacher=0.75, student=0.25, student_ema=0.125),
  row('distil', 2, ['student'], teacher=0.75, student=0.5, student_ema=0.5),
  row('distil', 3, ['student'], teacher=0.75, student=0.75, student_ema=1.0),
]


def test_curves_are_those_of_the_last_phase_that_tested():
  assert plots.curves(ROWS) == {
    'teacher': {'epoch': [1, 2, 3], 'top1': [0.75] * 3, 'nll': [2.5] * 3},
    'student': {
      'epoch': [1, 2, 3],
      'top1': [0.25, 0.5, 0.75],
      'nll': [7.5, 5.0, 2.5],
    },
    'student_ema': {
      'epoch': [1, 2, 3],
      'top1': [0.125, 0.5, 1.0],
      'nll': [8.75, 5.0, 0.0],
    },
  }
  assert plots.curves(ROWS[:2])['teacher']['top1'] == [0.5, 0.75]


def test_missing_and_non_finite_values_leave_holes():
  rows = [row('distil', epoch, student=0.5) for epoch in (1, 2, 3)]
  rows[0]['test/student/nll'] = None
  del rows[1]['test/student/nll']
  rows[2]['test/student/top1'] = None
  (curve,) = plots.curves(rows).values()
  assert curve['epoch'] == [1, 2]
  assert all(math.isnan(nll) for nll in curve['nll'])


def test_gaps_are_in_points_and_positive_where_the_student_is_behind():
  gaps = plots.gaps(plots.curves(ROWS), 'student')
  assert gaps == {
    'teacher': {'epoch': [1, 2, 3], 'gap': [50.0, 25.0, 0.0]},
    'student_ema': {'epoch': [1, 2, 3], 'gap': [-12.5, 0.0, 25.0]},
  }


def test_gaps_compare_equal_epochs_only():
  rows = [
    row('baseline', 1, ['plain_student'], plain_student=0.25),
    row('baseline', 3, ['plain_student'], plain_student=0.5),
    row('other', 9, ['other'], other=0.5),
    *ROWS[3:],
  ]
  gaps = plots.gaps(plots.curves(rows), 'student')
  assert gaps['plain_student'] == {'epoch': [3], 'gap': [-25.0]}
  assert 'other' not in gaps


def test_frozen_networks_are_those_the_last_phase_did_not_train():
  assert plots.frozen(ROWS) == {'teacher'}
  assert plots.frozen(ROWS[:2]) == set()
  assert plots.frozen([row('distil', 1, student=0.5)]) == set()


LONG = [
  row(
    'distil',
    epoch,
    ['student', 'dynamic_teacher'],
    teacher=0.8,
    dynamic_teacher=1 - 0.9**epoch,
    student=1 - 0.92**epoch,
  )
  for epoch in range(1, 41)
]


@pytest.mark.parametrize(
  ('rows', 'guide'),
  [
    (ROWS, 'teacher'),
    (ROWS[2:3], None),
    (LONG, 'dynamic_teacher'),
    ([{'epoch': 1, 'test/student/top1': 0.5}], None),
  ],
  ids=['phases', 'one epoch', 'long', 'student alone'],
)
def test_gap_draws_a_png(tmp_path, rows, guide):
  path = tmp_path / 'gap.png'
  assert plots.gap(rows, str(path), guide=guide, title='A title') == path
  with PIL.Image.open(path) as image:
    assert image.format == 'PNG'
    assert image.size == (1800, 630)
    pixels = np.asarray(image.convert('L'))
  for panel in np.array_split(pixels, 3, axis=1):
    assert 0.005 < np.mean(panel < 200) < 0.3  # neither empty nor full
  assert path.stat().st_size < 500_000


def test_any_tested_network_can_be_the_student(tmp_path):
  rows = ROWS[:2]
  path = plots.gap(rows, tmp_path / 'gap.png', student='teacher')
  assert path.exists()


@pytest.mark.parametrize('rows', [[], [{'phase': 'a', 'epoch': 1, 'loss': 2}]])
def test_rows_without_a_test_are_refused(tmp_path, rows):
  message = f"no test top-1 in {len(rows)} rows: .*'test/student/top1'"
  with pytest.raises(ValueError, match=message):
    plots.gap(rows, tmp_path / 'gap.png')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('role', ['student', 'guide'])
def test_an_unknown_network_gets_suggestions(tmp_path, role):
  message = "no tested network 'studnt'. Did you mean 'student'"
  with pytest.raises(KeyError, match=message):
    plots.gap(ROWS, tmp_path / 'gap.png', **{role: 'studnt'})


def test_matplotlib_is_not_imported_before_a_figure_is_drawn():
  code = 'import sys, jaxkd.plots; sys.exit("matplotlib" in sys.modules)'
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
