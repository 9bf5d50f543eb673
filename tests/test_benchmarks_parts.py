"""A method's step is timed against plain steps and forward passes."""

import json

import numpy as np
import pytest

from benchmarks import parts, run

MLP = run.Sizes(batch=8, image_size=8, num_classes=5, chunk=1)


def test_the_parts_are_those_of_the_graph():
  task = run.last_task('mlp:mlp', 'gpd', MLP)
  cases = parts.cases_of(task, MLP)
  assert list(cases) == [
    'step',
    'dynamic_teacher, training',
    'student, training',
    'teacher, forward',
  ]
  wide = parts.alone(task, 'dynamic_teacher').program
  assert wide.modules['dynamic_teacher'].width == 2
  assert wide.graph.learners == ('dynamic_teacher',)


def test_the_ratio_is_of_rounds():
  times = {'step': [10.0, 30.0, 10.0], 'a': [4.0, 10.0, 5.0], 'b': [6, 10, 0]}
  memory = {'step': {'arguments': 2**20, 'temporary': 0}}
  results = parts.report(times, memory)
  assert results['ms'] == {'step': 10, 'a': 5, 'b': 6}
  assert results['ratio'] == 1.5 and results['ratios'] == [1.0, 2.0]
  assert results['memory_mib']['step'] == {'arguments': 1, 'temporary': 0}


@pytest.mark.slow
def test_the_command_ends_with_json(capsys):
  arguments = '--pair=mlp:mlp --method=gpd --batch=8 --steps=2 --image_size=8'
  parts.main(parts.parse([*arguments.split(), '--num_classes=5', '--json']))
  *above, last = capsys.readouterr().out.splitlines()
  results = json.loads(last)
  assert results['ratio'] > 0 and len(results['ms']) == 4
  state = results['memory_mib']
  # Momentum and parameters of the wide network, beside the data.
  whole = state['step']['arguments']
  assert whole > state['student, training']['arguments'] > 0
  assert any('step / sum of parts' in line for line in above)
  np.testing.assert_allclose(
    results['ratio'], np.median(results['ratios']), rtol=1e-6
  )


def test_a_pair_of_one_network_is_refused():
  with pytest.raises(ValueError, match='must be TEACHER:STUDENT'):
    parts.main(parts.parse(['--pair=mlp', '--method=gpd']))
