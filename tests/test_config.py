"""The tree of settings, its checks, and every file in configs/."""

import functools
import inspect
import json
import math
import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import pytest
import tiny
from ml_collections import ConfigDict

from jaxkd import config as configs
from jaxkd import data, methods, models, objectives, tree
from jaxkd.catalog import limits
from jaxkd.graph.program import Program
from jaxkd.methods import weights
from jaxkd.models import norms
from jaxkd.runs import experiment, sections

FILES = sorted((pathlib.Path(__file__).parents[1] / 'configs').glob('*.py'))

SMALL = 'resnet14,resnet8'  # quick to trace

each_file = pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)


def changed(name: str, value) -> ConfigDict:
  """Returns the default with one key set to a value of any type."""
  tree = configs.default().to_dict()
  *sections, key = name.split('.')
  section = tree
  for part in sections:
    section = section[part]
  section[key] = value
  return ConfigDict(tree)


def test_there_are_config_files():
  assert FILES


macs, shapes = functools.cache(models.macs), functools.cache(tree.shapes)


@functools.cache
def output_shapes(network, image_shape):
  """Returns the shapes of a network's outputs."""
  image = jnp.zeros(image_shape)

  def run(key):
    return norms.apply(network, network.init(key, image), image)[0]

  return jax.eval_shape(run, jax.random.key(0))


def outputs_of_zeros(program, examples=1):
  image_shape = (examples, *program.input_shape)
  return {
    name: jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), output_shapes(net, image_shape)
    )
    for name, net in program.modules.items()
  }


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
  """Traces the networks that many configs have in common once."""
  monkeypatch.setattr(models, 'macs', macs)
  monkeypatch.setattr(tree, 'shapes', shapes)
  monkeypatch.setattr(Program, 'outputs_of_zeros', outputs_of_zeros)


@each_file
def test_the_file_describes_an_experiment(path):
  get_config = runpy.run_path(str(path))['get_config']
  pair = [SMALL] if 'pair' in inspect.signature(get_config).parameters else []
  config = get_config(*pair)
  config.update_from_flattened_dict(
    {key: 'FOLDER' for key in configs.missing(config)}
  )
  made = experiment.build(config)
  text = made.describe()
  assert made.phases
  for phase in made.phases:
    assert f': {phase.name} (' in text
    for name in phase.graph.networks:
      model = phase.models[name].name
      assert any(
        line.split()[:2] == [name, model] for line in text.splitlines()
      ), f'{name} ({model}) is not in the description'


@each_file
def test_the_file_has_a_docstring(path):
  paper = runpy.run_path(str(path))['__doc__']
  assert paper and len(paper.splitlines()[0]) > 20


def test_a_setting_that_did_not_exist_had_its_default():
  new = configs.resolved(configs.default())
  old = json.loads(json.dumps(new))
  del old['kd_baseline'], old['student']['branches']
  assert configs.differing(old, new) == []
  new['student']['branches'] = 6
  assert configs.differing(old, new) == ['student.branches: 1 -> 6']


def test_a_required_setting_is_asked_for():
  config = changed('student.checkpoint', configs.REQUIRED)
  with pytest.raises(ValueError, match='needs --config.student.checkpoint='):
    configs.check(config)


def test_the_default_is_valid():
  configs.check(configs.default())


@pytest.mark.parametrize(
  ('name', 'suggestion'),
  [
    ('epoch', 'epochs'),
    ('student.widht', 'student.width'),
    ('optimizer.learning_rat', 'optimizer.learning_rate'),
    ('data.few_shots', 'data.few_shot'),
  ],
)
def test_a_misspelt_key_gets_a_suggestion(name, suggestion):
  with pytest.raises(KeyError) as error:
    configs.check(changed(name, 1))
  sentence = f"no setting '{name}'. Did you mean '{suggestion}'"
  assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('epochs', 1.5, 'epochs must be a whole number like 240, got 1.5'),
    ('epochs', True, 'epochs must be a whole number like 240, got True'),
    ('baseline', 1, 'baseline must be True or False, got 1'),
    ('student.width', '2', "student.width must be a number like 1.0, got '2'"),
    (
      'student.width',
      True,
      'student.width must be a number like 1.0, got True',
    ),
    ('schedule.milestones', 0.5, 'schedule.milestones must be a tuple like'),
    ('student', 'resnet8', "student must be a value like {.*got 'resnet8'"),
    ('seed', {'a': 1}, "seed must be a value like 0, got {'a': 1}"),
  ],
)
def test_a_wrong_type_is_explained(name, value, message):
  with pytest.raises(ValueError, match=message):
    configs.check(changed(name, value))


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('student.width', 2),  # an integer is a float
    ('schedule.milestones', [0.5]),  # what a tuple is after JSON
    ('method', {'name': 'kd', 'temperature': 2.0}),
    ('optimizer.rates', {'teacher': 0.1}),
    ('data.settings', {'num_classes': 3}),
  ],
)
def test_a_valid_value_is_accepted(name, value):
  configs.check(changed(name, value))


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('epochs', 0, 'epochs must be at least 1 and at most 1000000, got 0'),
    ('seed', -1, 'seed must be at least 0 and at most 4294967295, got -1'),
    ('seed', 2**32, 'seed must be .* at most 4294967295, got 4294967296'),
    ('teacher.seed', 2**63, 'teacher.seed must be at least 0 and at most'),
    ('study.seeds', (0, 2**32), r'study.seeds\[1\] must be at least 0 and at'),
    ('study.seeds', (0.5,), 'study: seeds must be a whole number'),
    ('study.vary', (1,), 'study.vary must have names only'),
    (
      'optimizer.ema',
      -0.5,
      'optimizer.ema must be at least 0 and below 1, got',
    ),
    (
      'optimizer.ema',
      99.9,
      'optimizer.ema must be at least 0 and below 1, got',
    ),
    ('optimizer.momentum', 1, 'optimizer.momentum must be .* below 1, got 1'),
    ('optimizer.betas', (0.9, 1.0), r'optimizer.betas\[1\] must be .* below 1'),
    ('optimizer.betas', (0.9,), 'optimizer.betas must be two numbers'),
    ('optimizer.betas', ('a', 0.9), 'optimizer.betas must have numbers only'),
    ('optimizer.rates', {'student': -1}, 'optimizer.rates.student must be at'),
    ('optimizer.rates', {'student': '1'}, 'optimizer.rates must have numbers'),
    ('schedule.milestones', (0,), r'schedule.milestones\[0\] must be above 0'),
    ('student.width', 0.0, 'student.width must be above 0 and .* got 0.0'),
    ('student.width', 1e308, 'student.width must be .* at most 10000, got'),
    ('teacher.mean', ('1',), 'teacher.mean must have numbers only'),
    ('teacher.std', (None,), 'teacher.std must have numbers only'),
    ('optimizer.learning_rate', 2.0**128, r'must be below 3.4e\+38, where f'),
  ],
)
def test_a_value_outside_of_its_range_is_refused(name, value, message):
  with pytest.raises(ValueError, match=message):
    configs.check(changed(name, value))


NUMBERS = {
  name: value
  for name, value in configs.flat(configs.default().to_dict())
  if limits.is_real(value)
  or (isinstance(value, tuple) and all(map(limits.is_real, value)))
}
# The values of these tuples are names; they are empty by default.
NAMES = {'allow_changed', 'study.only'}


def test_every_number_of_the_tree_has_a_range():
  in_free = {'optimizer.rates'}
  assert set(limits.SETTINGS) == (set(NUMBERS) | in_free) - NAMES


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, 2.0**128])
@pytest.mark.parametrize('name', sorted(set(NUMBERS) - NAMES))
def test_no_number_of_the_tree_is_nan_or_infinite(name, bad):
  value = (bad,) if isinstance(NUMBERS[name], tuple) else bad
  with pytest.raises(ValueError, match=re.escape(name)):
    configs.check(changed(name, value))


@pytest.mark.parametrize('table', [limits.SETTINGS, limits.ARGUMENTS])
def test_ranges_have_the_form_of_intervals(table):
  for name, text in table.items():
    assert re.fullmatch(r'[\[(]\S+, \S+[\])]', text), name
    interval = limits.interval(text)
    assert interval.low < interval.high, name
    # An infinite end is open, so that no value is infinite.
    ends = (interval.low, text[0] == '['), (interval.high, text[-1] == ']')
    for end, closed in ends:
      assert (end in interval) == (closed and math.isfinite(end)), name
    assert math.nan not in interval


def signatures():
  """The functions whose keyword arguments a config can set, with names."""
  functions = [
    *objectives.CATALOG.values(),
    *methods.CATALOG.values(),
    *weights.SCHEDULES.values(),
    *data.CATALOG.values(),
    *models.CATALOG.values(),
  ]
  return [
    (getattr(getattr(f, 'func', f), '__name__', ''), inspect.signature(f))
    for f in functions
  ]


def test_every_number_among_arguments_has_a_range():
  numbers = {
    (function, name)
    for function, signature in signatures()
    for name, parameter in signature.parameters.items()
    if re.search(r'\b(int|float)\b', str(parameter.annotation))
  }
  assert len(numbers) > 100
  missing = {pair for pair in numbers if limits.range_of(*pair) is None}
  assert not missing, f'add their ranges to limits.ARGUMENTS: {missing}'


def test_every_range_of_an_argument_is_used():
  known = {
    key
    for function, signature in signatures()
    for name in signature.parameters
    for key in (name, f'{function}.{name}')
  }
  assert set(limits.ARGUMENTS) <= known


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(name='kd', temperature=0), 'method kd: temperature must be above 0'),
    (dict(name='kd', temperature=math.nan), 'temperature must be .*, got nan'),
    (dict(name='kd', temperature='4'), "temperature must be a number, got '4'"),
    (dict(name='kd', temperature=True), 'must be a number, got True'),
    (dict(name='ban', generations=1.5), 'generations must be a whole number'),
    (
      dict(name='distil', objective=dict(name='dkd', alpha=-1)),
      "objective 'dkd': alpha must be at least 0, got -1",
    ),
    (
      dict(name='distil', objective=dict(name='mlkd', temperatures=(1, 0))),
      r'temperatures\[1\] must be above 0, got 0',
    ),
    (
      dict(name='distil', objective={'kd': math.inf}),
      'must be (finite|a finite number).*, got inf',
    ),
  ],
)
def test_an_argument_outside_of_its_range_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    sections.phases_of(changed('method', settings))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      dict(schedule__warmup_epochs=2.0),
      'schedule.warmup_epochs=2 must be below the 2 epochs of the phase teach',
    ),
    (
      dict(schedule__warmup_epochs=1.0, teacher__epochs=1),
      'below the 1 epochs of the phase teacher',
    ),
    (
      dict(schedule__warmup_epochs=1.0, teacher__stop=1.0),
      'below the 1 epochs of the phase teacher',
    ),
    (
      dict(schedule__milestones=(1, 2)),
      r'milestones=\(1, 2\) must be before the end of the phase teacher, which',
    ),
    (dict(schedule__milestones=(0.5, 0.25)), 'milestones must ascend, got'),
    (dict(schedule__milestones=(0.5, 1.0)), 'milestones must ascend, got'),
  ],
)
def test_a_schedule_longer_than_a_phase_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    tiny.experiment(**changes)


def test_a_missing_key_is_named():
  config = configs.default()
  del config.optimizer.momentum
  with pytest.raises(KeyError, match="'optimizer.momentum' is missing"):
    configs.check(config)


def test_resolved_survives_json():
  config = configs.default()
  resolved = configs.resolved(config)
  assert json.loads(json.dumps(resolved)) == resolved
  again = ConfigDict(resolved)
  configs.check(again)
  assert configs.resolved(again) == resolved


def test_differing_has_a_line_for_each_value():
  old = configs.resolved(configs.default())
  config = configs.default()
  config.epochs = 20
  config.optimizer.learning_rate = 0.1
  config.method = dict(name='kd', temperature=2.0)
  assert configs.differing(old, configs.resolved(config)) == [
    'epochs: 240 -> 20',
    'method.temperature: None -> 2.0',
    'optimizer.learning_rate: 0.05 -> 0.1',
  ]
  assert configs.differing(old, old) == []


@pytest.mark.parametrize('name', ['cache', 'data.dir'])
def test_places_on_disk_are_not_compared(name):
  old = configs.resolved(configs.default())
  new = configs.resolved(changed(name, 'elsewhere'))
  assert configs.differing(old, new) == []


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('method.name', 'kdd', "no method 'kdd'. Did you mean 'kd'"),
    ('method.temprature', 2.0, "method kd takes no setting 'temprature'"),
    ('student.name', 'resnet8x5', "no model 'resnet8x5'. Did you mean"),
    ('teacher.loss', 'briar', "no teacher loss 'briar'. Did you mean 'brier'"),
    ('compute_dtype', 'float23', "no compute_dtype 'float23'"),
    ('optimizer.rates', {'studnt': 0.1}, "'studnt', which learns in no phase"),
  ],
)
def test_build_explains_a_wrong_value(name, value, message):
  with pytest.raises((KeyError, ValueError), match=message):
    experiment.build(changed(name, value))


def test_a_mapping_that_replaces_a_string_is_a_mapping():
  """As --config.method.objective="{'kd': 0.9}" does where it was a name."""
  config = changed('method', dict(name='distil', objective='kd'))
  config.method.objective = "{'kd': 0.9, 'at': 10.0}"
  want = {'name': 'distil', 'objective': {'kd': 0.9, 'at': 10.0}}
  assert configs.method_settings(config) == want
  assert configs.resolved(config)['method'] == want
  config.method.objective = "{'kd': 0.9"
  with pytest.raises(ValueError, match='method.objective must be a name or a'):
    configs.resolved(config)


def test_an_objective_of_the_caller_is_recorded_as_its_name_and_settings():
  own = objectives.pointwise('own', lambda s, t, batch: s.logits, power=2.0)
  want = {'name': 'own', 'power': 2.0}
  config = changed('method', dict(name='distil', objective=own))
  assert configs.resolved(config)['method']['objective'] == want
  wrapped = dict(name='standardised', objective=own)
  config = changed('method', dict(name='distil', objective=wrapped))
  got = configs.resolved(config)['method']['objective']
  assert got == {'name': 'standardised', 'objective': want}


def test_build_explains_a_batch_that_cannot_be_split():
  with pytest.raises(ValueError, match='30 cannot be split over 4 devices'):
    experiment.build(changed('batch_size', 30))


def test_build_explains_a_tap_that_a_network_does_not_have():
  config = configs.default()
  config.student.name = config.teacher.name = 'mlp'
  config.method = dict(
    name='distil', objective=dict(name='fitnet', stage='stage7')
  )
  with pytest.raises(KeyError, match="learner has no tap 'stage7'. Did you me"):
    experiment.build(config)
