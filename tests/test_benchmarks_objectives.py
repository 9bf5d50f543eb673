"""Every objective's step is timed beside KD's, and all share one teacher."""

import jax
import numpy as np
import pytest

from benchmarks import objectives as bench
from benchmarks.run import Sizes
from jaxkd import objectives

MLP = Sizes(batch=8, image_size=8, num_classes=5, chunk=1)


@pytest.mark.parametrize('name', objectives.CATALOG)
def test_every_objective_has_a_method_with_all_it_needs(name):
  method = bench.method(name, num_classes=100)
  if name in bench.METHODS:
    assert method == {'name': name}
  else:
    assert objectives.make(method['objective']).name == name
    published = objectives.PUBLISHED.get(name)
    weight = published.weight if published else 1.0
    assert method['guide_weight'] == weight


@pytest.mark.slow
def test_the_teacher_exists_once_and_only_students_learn():
  cases = bench.cases_of('mlp:mlp', ['crd', 'pkt'], MLP, bank=40)
  assert list(cases) == ['kd', 'crd', 'pkt']
  lent = cases['kd']._lent
  before = jax.tree.map(np.array, lent)
  students = {n: jax.tree.map(np.array, c.state) for n, c in cases.items()}
  assert students['crd'].memory['teacher->student:crd']['bank'].shape[1] == 40
  for _ in range(2):
    for name, case in cases.items():
      assert case.call() == 1
      assert case._lent is lent
      assert 'teacher' not in case.state.params
      assert 'teacher' not in case.state.stats
      assert name == 'crd' or not case.state.memory
  for case, start in zip(cases.values(), students.values(), strict=True):
    kernel = case.state.params['student']['head']['kernel']
    assert np.any(kernel != start.params['student']['head']['kernel'])
    assert case.state.step == 2
  # Unchanged and not deleted: a step donates the teacher and returns it.
  jax.tree.map(np.testing.assert_array_equal, lent, before)


def test_ratios_are_of_rounds_and_the_slowest_comes_first():
  times = {'kd': [10.0, 20.0, 10.0], 'at': [11.0, 20.0, 30.0], 'sp': [9, 9, 9]}
  each = {'kd': 1.0, 'at': 2.0, 'sp': 3.0}
  sizes = {'kd': 2**20, 'at': 3 * 2**19, 'sp': 0}
  head, *rows = bench.report(times, each, sizes).splitlines()
  assert head.split() == 'objective ms x kd of rounds'.split() + [
    'temporary,',
    'MiB',
    'compile,',
    's',
  ]
  assert [row.split() for row in rows] == [
    'at 20.0 1.10 1.00 to 3.00 1.5 2.0'.split(),
    'kd 10.0 1.00 1.00 to 1.00 1.0 1.0'.split(),
    'sp 9.0 0.90 0.45 to 0.90 0.0 3.0'.split(),
  ]


@pytest.mark.slow
@pytest.mark.parametrize('clock', bench.CLOCKS)
def test_the_command_prints_a_row_for_each(clock, capsys):
  arguments = '--pair=mlp:mlp --only=pkt --batch=8 --rounds=2 --image_size=8'
  bench.main(
    bench.parse([*arguments.split(), '--num_classes=5', f'--clock={clock}'])
  )
  *rows, blank, last = capsys.readouterr().out.splitlines()
  assert {row.split()[0] for row in rows} == {'objective', 'kd', 'pkt'}
  assert blank == ''
  assert last.startswith(f'mlp:mlp, batches of 8, 2 rounds, {clock} time, on 4')


def test_mistakes_are_explained():
  with pytest.raises(KeyError, match="'pkd'.*pkt"):
    bench.main(bench.parse(['--pair=mlp:mlp', '--only=pkd']))
  with pytest.raises(ValueError, match='must be TEACHER:STUDENT'):
    bench.main(bench.parse(['--pair=mlp', '--only=at']))
