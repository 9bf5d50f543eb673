"""The benchmark times the real step, in turns, without its compilation."""

import contextlib
import itertools
import json

import jax
import numpy as np
import pytest

from benchmarks import outputs, run
from jaxkd import tree

SMALL = ['--batch=8', '--steps=3', '--image_size=8', '--num_classes=5']
MLP = run.Sizes(batch=8, image_size=8, num_classes=5, chunk=1)


def bench(capsys, *arguments: str) -> tuple[list[str], dict]:
  """Returns the lines above the JSON line, and the object in that line."""
  assert run.main(run.parse([*SMALL, *arguments, '--json'])) == 0
  *above, last = capsys.readouterr().out.splitlines()
  return above, json.loads(last)


def test_one_case(capsys):
  table, got = bench(capsys, '--pair=mlp:mlp', '--method=kd')
  want = {
    'pair': 'mlp:mlp',
    'method': 'kd',
    'batch': 8,
    'steps': 3,
    'image_size': 8,
    'num_classes': 5,
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'jax': jax.__version__,
  }
  assert {name: got[name] for name in want} == want
  low, high = got['min_ms_per_step'], got['max_ms_per_step']
  assert 0 < low <= got['ms_per_step'] <= high
  np.testing.assert_allclose(
    got['images_per_second'], 8 / (got['ms_per_step'] / 1e3)
  )
  assert got['compile_seconds'] > 0
  assert 'cases' not in got
  assert table[1].split()[0] == 'mlp:mlp/kd'


@pytest.fixture
def instant(monkeypatch):
  """Nothing is compiled; the steps of case i take i + 1 milliseconds."""

  def measure(cases, calls):
    return [[float(i)] * calls for i, _ in enumerate(cases, 1)]

  monkeypatch.setattr(run.Steps, 'compile', lambda case: None)
  monkeypatch.setattr(run, 'measure', measure)


def test_several_cases(capsys, instant):
  table, got = bench(
    capsys,
    '--pair=mlp:mlp',
    '--method=kd',
    '--against=mlp:mlp/plain',
    '--against=vgg8:mlp/plain',
  )
  cases = got.pop('cases')
  assert got == cases[0]
  names = [f'{case["pair"]}/{case["method"]}' for case in cases]
  assert names == ['mlp:mlp/kd', 'mlp:mlp/plain', 'vgg8:mlp/plain']
  assert [case['ms_per_step'] for case in cases] == [1, 2, 3]
  rows = [line.split() for line in table[1:4]]
  assert [row[0] for row in rows] == names
  assert [row[-1] for row in rows] == ['1.00', '2.00', '3.00']


def test_without_json_there_is_no_json(capsys, instant):
  assert run.main(run.parse([*SMALL, '--pair=mlp:mlp', '--method=plain'])) == 0
  assert '{' not in capsys.readouterr().out


@pytest.mark.parametrize(
  ('method', 'chunk', 'networks'),
  [('kd', 3, {'teacher', 'student'}), ('plain', 1, {'student'})],
)
def test_a_call_is_whole_training_steps(method, chunk, networks):
  case = run.Case('mlp:mlp', method, run.Sizes(8, 8, 5, chunk))
  case.compile()
  before = jax.tree.map(np.asarray, case.state)
  assert set(before.params) == networks
  shapes = {
    n: x.shape for n, x in tree.leaves(before.params['student']).items()
  }
  assert shapes['hidden1/kernel'] == (8 * 8 * 3, 64)
  assert shapes['head/kernel'] == (64, 5)
  with compilations() as compiled:
    assert [case.call() for _ in range(3)] == [chunk] * 3
  assert compiled == []
  after = jax.tree.map(np.asarray, case.state)
  assert after.step == 3 * chunk
  for name in networks:
    same = tree.digest(after.params[name]) == tree.digest(before.params[name])
    assert same == (name == 'teacher'), name
  starts = {tree.digest(params) for params in before.params.values()}
  assert len(starts) == len(networks)


@contextlib.contextmanager
def compilations():
  """Gives a list of what is traced or compiled inside."""
  events = []

  def listen(event, *_, **__):
    if '/compile/' in event:
      events.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield events
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def test_compilations_are_recorded():
  with compilations() as compiled:
    jax.jit(lambda x: x + 1)(np.ones(3))
  assert compiled


def test_cases_take_turns_and_warm_up():
  order, clock = [], itertools.count()

  class Fake:
    def __init__(self, name: str, seconds: int, steps: int):
      self.name, self.seconds, self.steps = name, seconds, steps

    def call(self) -> int:
      order.append(self.name)
      for _ in range(self.seconds):
        next(clock)
      return self.steps

  # Each reading of this clock takes a second itself.
  cases = [Fake('a', 1, 1), Fake('b', 9, 5)]
  got = run.measure(cases, 3, lambda: next(clock))
  assert got == [[2000.0] * 3, [2000.0] * 3]
  assert order == ['a', 'b'] * (run.WARM_UP + 3)


def test_the_median_is_reported():
  case = run.Case('mlp:mlp', 'plain', MLP)
  got = run.result(case, [9.0, 1.0, 2.0])
  assert got['ms_per_step'] == 2.0
  assert (got['min_ms_per_step'], got['max_ms_per_step']) == (1.0, 9.0)
  assert got['images_per_second'] == 4000.0


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--pair=mlpp:mlp', '--method=kd'], "no model 'mlpp'. Did you mean 'mlp'"),
    (['--pair=mlpp:mlp', '--method=plain'], "no model 'mlpp'"),
    (['--pair=mlp:vgg7', '--method=kd'], "no model 'vgg7'. Did you mean 'vgg"),
    (['--pair=mlp:mlp', '--method=kdd'], "no method 'kdd'. Did you mean 'kd'"),
    (['--pair=mlp', '--method=kd'], "must be TEACHER:STUDENT, got 'mlp'"),
    (
      ['--pair=mlp:mlp', '--method=kd', '--against=plain'],
      "--against must be TEACHER:STUDENT/METHOD, got 'plain'",
    ),
    (
      ['--pair=mlp:mlp', '--method=kd', '--against=mlp:mlp/plan'],
      "no method 'plan'. Did you mean 'plain'",
    ),
  ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
  assert run.main(run.parse([*SMALL, *arguments])) == 1
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err.startswith('benchmarks: ')
  assert message in captured.err
  assert captured.err.count('\n') == 1


@pytest.mark.parametrize('wrong', ['--steps=0', '--batch=-8', '--chunks=2'])
def test_an_impossible_flag_is_refused(capsys, wrong):
  with pytest.raises(SystemExit) as end:
    run.main(run.parse(['--pair=mlp:mlp', '--method=kd', wrong]))
  assert end.value.code
  assert wrong.split('=')[0] in capsys.readouterr().err


def test_outputs_of_a_teacher_on_disk(capsys):
  arguments = outputs.parse([*SMALL, '--pair=mlp:mlp', '--method=kd'])
  assert outputs.main(arguments) == 0
  names = (
    'live teacher',
    'empty cache',
    'full, in memory',
    'full, on the devices',
    'full, on disk',
    'stored outputs',
  )
  lines = capsys.readouterr().out.splitlines()[-6:]
  for name, line in zip(names, lines, strict=True):
    assert line.startswith(name)
    assert all(float(x) > 0 for x in line.removeprefix(name).split())
