"""Every objective inside every kind of method, alone and with all others."""

import chex
import jax
import numpy as np
import optax
import pytest
from test_models import SMALL
from test_objectives_conformance import ANYWHERE

from jaxkd import methods, objectives
from jaxkd.graph.program import bind
from jaxkd.models.mobilenet import MobileNetV1
from jaxkd.problems import CLASSIFICATION
from jaxkd.training import state as states
from jaxkd.training.step import make_step

SHAPE, B = (8, 8, 3), 8
KEY = jax.random.key(0, impl='rbg')
METHODS = {
  'distil': lambda spec: methods.distil(spec),
  'slkd': lambda spec: methods.slkd(spec, members=2),
  'gpd': lambda spec: methods.gpd(static=spec, dynamic=spec),
}
# Of different families: (teacher, student).
PAIRS = {
  'distil': ('resnet', 'vit'),
  'slkd': ('vit', 'bottleneck'),
  'gpd': ('rvt', 'resnet'),
}
ALL = {
  name: {
    **objectives.example(name, num_classes=5),
    **ANYWHERE.get(name, {}),
    'weight': 0.1,
  }
  for name in objectives.CATALOG
}
# Quick to compile.
NETS = {**SMALL, 'one_stage': MobileNetV1(4, (((8, 1, 2),),), num_classes=5)}
each_method = pytest.mark.parametrize('method', METHODS)


def program_of(method, spec, pair=None):
  """Returns a method with small networks in it."""
  networks = dict(
    zip(('teacher', 'student'), pair or PAIRS[method], strict=True)
  )

  def build(like, width, branches):
    net = NETS[networks[like]]
    return net.clone(width=net.width * width, branches=branches or 1)

  (phase,) = METHODS[method](spec)
  return bind(phase.graph, build, SHAPE)


def guided(program):
  """Returns the number of transfers from networks, by objective."""
  names = [t.objective.name for t in program.graph.transfers if t.guides]
  return {name: names.count(name) for name in names}


@each_method
@pytest.mark.parametrize(
  'name',
  [
    name
    if name in ('ofd', 'ctkd')  # of features, and of logits
    else pytest.param(name, marks=pytest.mark.slow)
    for name in sorted(objectives.CATALOG)
  ],
)
def test_each_objective_works_alone(method, name):
  program = program_of(method, {name: ALL[name]})
  assert set(guided(program)) == {name}
  program.check_objectives(CLASSIFICATION.batch_spec(SHAPE, 2), epochs=1)


@each_method
def test_all_objectives_work_together(method):
  program = program_of(method, ALL)
  counts = guided(program)
  assert set(counts) == set(ALL)
  assert len(set(counts.values())) == 1  # as many of each
  program.check_objectives(CLASSIFICATION.batch_spec(SHAPE, 2), epochs=1)


@pytest.mark.parametrize(
  ('method', 'pair', 'spec', 'message'),
  [
    (
      'distil',
      ('resnet', 'vit'),
      'fsp',
      'fsp compares channels .*connect to T',
    ),
    ('distil', ('rvt', 'resnet'), 'kdsvd', "or reading to 'rows'"),
    ('distil', ('vit', 'resnet'), 'ofd', "has none: set margins='features'"),
    ('slkd', ('resnet', 'vit'), 'ofd', "has none: .*set margins='features'"),
    ('gpd', ('vit', 'resnet'), 'ofd', "has none: set margins='features'"),
    ('distil', ('resnet', 'linear'), 'at', 'the learner has no stages, only'),
    ('gpd', ('linear', 'resnet'), 'at', 'the guide has no stages, only'),
    ('distil', ('resnet', 'mobilenet_v1'), 'kdsvd', 'and got 1 tap of each'),
    (
      'distil',
      ('mlp', 'resnet'),
      {'name': 'kdsvd', 'reading': 'rows'},
      "set reading to 'channels', or name taps of maps",
    ),
  ],
)
def test_an_undefined_pair_is_explained(method, pair, spec, message):
  spec = {'name': spec} if isinstance(spec, str) else spec
  program = program_of(method, spec, pair)
  with pytest.raises((KeyError, ValueError), match=message):
    program.check_objectives(CLASSIFICATION.batch_spec(SHAPE, 2), epochs=1)


def batch():
  rng = np.random.default_rng(0)
  return {
    'image': rng.normal(size=(B, *SHAPE)).astype(np.float32),
    'label': np.arange(B, dtype=np.int32) % 5,
    'index': np.arange(B, dtype=np.int32),
    'mask': np.ones(B, np.float32),
  }


@pytest.mark.parametrize(
  'method',
  [
    *(pytest.param(x, marks=pytest.mark.slow) for x in ('distil', 'slkd')),
    'gpd',
  ],
)
def test_a_sum_of_objectives_is_learned(method):
  spec = {'kd': 0.9, 'crd': 0.1, 'at': 10.0}
  program = program_of(method, spec, ('one_stage', 'one_stage'))
  optimizer = optax.sgd(0.02)

  def init():
    initial = {n: program.init_network(n, KEY) for n in program.graph.frozen}
    return states.init(program, optimizer, KEY, initial, examples=B)

  start = jax.jit(init)()
  step = make_step(program, optimizer, seed=0, steps_per_epoch=9, epochs=1)
  step, state, values = jax.jit(step), start, []
  for _ in range(6):
    state, metrics = step(state, batch())
    values.append(float(metrics['loss']))
  assert np.all(np.isfinite(values)) and values[-1] < values[0], values
  for frozen in program.graph.frozen:
    chex.assert_trees_all_equal(state.params[frozen], start.params[frozen])
  crd = {t.name for t in program.graph.transfers if t.objective.name == 'crd'}
  assert set(start.memory) == set(start.objectives) == crd
  for name in crd:
    for old, new in (
      (start.memory[name]['bank'], state.memory[name]['bank']),
      *zip(
        jax.tree.leaves(start.objectives[name]),
        jax.tree.leaves(state.objectives[name]),
        strict=True,
      ),
    ):
      assert np.any(old != new), name
