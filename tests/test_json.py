"""Files in JSON are JSON, also where a number is not finite.

JSON has neither NaN nor Infinity: they become null.
"""

import json
import math

import finished
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from jaxkd import checkpoints, disk
from jaxkd.runs import comparison
from jaxkd.runs.run import Run

NUMBERS = st.floats() | st.integers() | st.none() | st.booleans()
VALUES = st.recursive(
  NUMBERS | st.text(max_size=3),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3)
  ),
  max_leaves=6,
)


def refuse(constant):
  raise ValueError(f'{constant} is not JSON')


def strict(text):
  return json.loads(text, parse_constant=refuse)


@given(VALUES)
def test_text_is_json_that_keeps_finite_numbers(value):
  assert strict(disk.json_text(value)) == disk.plain(value)
  assert strict(disk.json_text([1.5, math.nan, (2, -math.inf)])) == [
    1.5,
    None,
    [2, None],
  ]


def test_a_run_whose_teacher_rules_a_class_out(tmp_path):
  teacher = checkpoints.load(finished.run('kd') / 'networks' / 'teacher')
  teacher.variables['params']['head']['bias'][2] = -np.inf
  checkpoints.save(tmp_path / 'teacher', *teacher)
  experiment = tiny.experiment(
    epochs=1,
    teacher__checkpoint=str(tmp_path / 'teacher'),
    **finished.DATA,
  )
  summary = Run(experiment, tmp_path / 'run').finish()
  teacher = summary['networks']['teacher']
  assert teacher['nll'] is None  # infinite, on the class that is ruled out
  assert math.isfinite(teacher['brier'])
  assert math.isfinite(summary['networks']['student']['nll'])
  files = [*(tmp_path / 'run').rglob('*.json')]
  assert len(files) > 4
  for path in files:
    strict(path.read_text())
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert [strict(line)['test/teacher/nll'] for line in lines] == [None]


@pytest.mark.parametrize('value', [None, math.nan])
def test_what_was_not_finite_is_nan_in_a_study(value):
  results = {'student': {'nll': [1.0, value]}}
  first, second = comparison.values_of(results, 'student/nll')
  assert first == 1.0 and math.isnan(second)
