"""The tree of settings, its checks, and every file in configs/."""

import inspect
import json
import pathlib
import runpy

import pytest
from ml_collections import ConfigDict

from jaxkd import config as configs
from jaxkd.runs import experiment

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
def test_the_file_says_what_it_is(path):
  paper = runpy.run_path(str(path))['__doc__']
  assert paper and len(paper.splitlines()[0]) > 20


def test_a_run_from_before_a_setting_existed_is_the_same_run():
  new = configs.resolved(configs.default())
  old = json.loads(json.dumps(new))
  del old['kd_baseline'], old['student']['branches']
  assert configs.differing(old, new) == []
  new['student']['branches'] = 6
  assert configs.differing(old, new) == ['student.branches: 1 -> 6']


def test_what_a_file_leaves_to_its_user_is_asked_for():
  config = changed('student.checkpoint', configs.REQUIRED)
  with pytest.raises(ValueError, match='needs --config.student.checkpoint='):
    configs.check(config)


def test_the_default_is_right():
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
    ('epochs', 1.5, 'epochs is 1.5, a float; expected a int like 240'),
    ('epochs', True, 'epochs is True, a bool'),
    ('baseline', 1, 'baseline is 1, a int; expected a bool like False'),
    ('student.width', '2', "student.width is '2', a str; expected a float"),
    ('student.width', True, 'student.width is True, a bool'),
    ('schedule.milestones', 0.5, 'expected a tuple like'),
    ('student', 'resnet8', "student is 'resnet8', expected a value like {"),
    ('seed', {'a': 1}, "seed is {'a': 1}, expected a value like 0"),
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
def test_what_is_allowed(name, value):
  configs.check(changed(name, value))


@pytest.mark.parametrize(
  ('name', 'value', 'least'),
  [('epochs', 0, 1), ('seed', -1, 0), ('optimizer.ema', -0.5, 0)],
)
def test_a_value_below_its_minimum_is_refused(name, value, least):
  message = f'{name} is {value}, the least is {least}'
  with pytest.raises(ValueError, match=message):
    configs.check(changed(name, value))


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
def test_where_files_lie_is_no_difference(name):
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
