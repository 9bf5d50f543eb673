"""The config of each objective: published settings, for each pair."""

import functools
import pathlib
import re
import runpy
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from objective_inputs import outputs_of

from jaxkd import config as configs
from jaxkd import objectives
from jaxkd.methods.weights import WarmUp
from jaxkd.objectives import table
from jaxkd.runs import sections
from jaxkd.types import Batch

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'
NAMES = sorted(
  name for name in objectives.CATALOG if (FOLDER / f'{name}_cifar.py').exists()
)
PAIRS = (
  'resnet110,resnet20',
  'resnet110,resnet32',
  'resnet32x4,resnet8x4',
  'resnet32x4,shufflenet_v1',
  'resnet32x4,shufflenet_v2',
  'resnet50,mobilenet_v2',
  'resnet50,vgg8',
  'resnet56,resnet20',
  'resnet56,resnet8',
  'vgg13,mobilenet_v2',
  'vgg13,vgg11',
  'vgg13,vgg8',
  'wrn_40_2,shufflenet_v1',
  'wrn_40_2,wrn_16_2',
  'wrn_40_2,wrn_40_1',
)
DEFAULT = 'resnet32x4,resnet8x4'
OTHER_CHANNELS = {  # between these fsp is not defined
  *(pair for pair in PAIRS if re.search('resnet50|mobilenet|shufflenet', pair)),
  'wrn_40_2,wrn_40_1',
}
# What the authors' codes have for pairs of theirs, where it differs.
DKD_BETAS = {
  'resnet110,resnet32': 2.0,
  'resnet56,resnet20': 2.0,
  'vgg13,mobilenet_v2': 6.0,
  'vgg13,vgg8': 6.0,
  'wrn_40_2,wrn_16_2': 6.0,
  'wrn_40_2,wrn_40_1': 6.0,
}
REVIEW_WEIGHTS = {
  'resnet110,resnet32': 1.0,
  'resnet32x4,shufflenet_v2': 8.0,
  'resnet50,mobilenet_v2': 8.0,
  'resnet56,resnet20': 0.6,
  'vgg13,mobilenet_v2': 8.0,
}

each = pytest.mark.parametrize('name', NAMES)


@functools.cache
def file(name):
  return runpy.run_path(str(FOLDER / f'{name}_cifar.py'))


def config_of(name, pair=DEFAULT):
  return file(name)['get_config'](pair)


def transfers(config, guide):
  """Returns the transfers of a guide in the last phase with a teacher."""
  graphs = [phase.graph.transfers for phase in sections.phases_of(config)]
  taught = [ts for ts in graphs if any(t.guide == 'teacher' for t in ts)]
  return [t for t in taught[-1] if t.guide == guide]


def weight_of(config, guide):
  weights: list[Any] = [t.weight for t in transfers(config, guide)]
  return sum(w.weight if isinstance(w, WarmUp) else w for w in weights)


def test_objectives_with_a_published_weight_have_a_config():
  assert set(objectives.PUBLISHED) <= set(NAMES)


@pytest.mark.parametrize('name', sorted(objectives.PUBLISHED))
def test_its_weights_are_the_published_ones(name):
  config = config_of(name)
  (taught,) = {t.objective.name for t in transfers(config, 'teacher')}
  published = objectives.PUBLISHED[name]
  assert taught == name
  assert weight_of(config, 'teacher') == published.weight
  cross_entropy = [
    t.weight
    for t in transfers(config, 'labels')
    if t.objective.name == 'cross_entropy'
  ]
  assert sum(cross_entropy) == published.label_weight


@each
def test_a_pair_has_its_networks_and_rates(name):
  for pair in PAIRS:
    config = config_of(name, pair)
    configs.check(config)
    assert f'{config.teacher.name},{config.student.name}' == pair
    rate = 0.01 if config.student.name in configs.LIGHT else 0.05
    assert config.optimizer.learning_rate == rate
    assert (config.teacher.learning_rate or rate) == 0.05


@pytest.mark.parametrize('pair', PAIRS)
def test_settings_of_a_pair_are_the_authors(pair):
  (dkd,) = transfers(config_of('dkd', pair), 'teacher')
  assert dkd.objective.settings['beta'] == DKD_BETAS.get(pair, 8.0)
  (review,) = transfers(config_of('reviewkd', pair), 'teacher')
  assert dkd.weight == WarmUp(1.0, 20)
  assert review.weight == WarmUp(REVIEW_WEIGHTS.get(pair, 5.0), 20)


@pytest.mark.parametrize(
  ('student', 'rate'), [('wrn_40_1', 0.01), ('vgg8', 0.05), ('resnet8', 0.01)]
)
def test_a_paraphraser_has_the_rate_of_the_students_family(student, rate):
  phases = sections.phases_of(config_of('ft', f'vgg13,{student}'))
  assert phases[1].name == 'paraphrase' and phases[1].learning_rate == rate


@each
def test_its_tables_are_of_pairs_of_the_benchmark(name):
  tables = [x for key, x in file(name).items() if key.isupper()]
  assert all(set(settings) <= set(PAIRS) for settings in tables)


@each
def test_its_docstring_is_complete(name):
  text = file(name)['__doc__']
  assert table.paper(name).address in text
  assert f'jaxkd train {name}_cifar ' in text
  for part in ('Command:', 'Cost: ', 'Expected'):
    assert part in text, part


def two_images(outputs):
  """Returns the shapes of outputs of two images, from those of one."""
  logits, taps = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype),
    (outputs.logits, outputs.taps),
  )
  return outputs.replace(logits=logits, taps=taps)


def shape_of_loss(config):
  learner, guide = (
    two_images(outputs_of(section.name))
    for section in (config.student, config.teacher)
  )
  key, numbers, image = jax.random.key(0), jnp.arange(2), jnp.zeros((2, 1))
  batch = Batch(image=image, label=numbers, index=numbers, mask=jnp.ones(2))

  def run(learner, guide):
    losses, ends = [], dict(learner=learner, guide=guide)
    now = dict(batch=batch, key=key, epoch=jnp.zeros(()), epochs=240)
    for transfer in transfers(config, 'teacher'):
      objective = transfer.objective
      own = objective.init(key, **ends, examples=50_000)
      losses.append(objective.loss(*own, **ends, **now)[0])
    return losses

  (shape,) = {x.shape for x in jax.eval_shape(run, learner, guide)}
  return shape


each_for_any_pair = pytest.mark.parametrize(
  'name', [name for name in NAMES if name != 'fsp']
)


@each_for_any_pair
def test_it_is_defined_for_the_default_pair(name):
  assert shape_of_loss(config_of(name)) in ((2,), ())


@pytest.mark.slow
@each_for_any_pair
def test_it_is_defined_for_each_pair(name):
  for pair in PAIRS:
    assert shape_of_loss(config_of(name, pair)) in ((2,), ())


@pytest.mark.parametrize(
  'pairs',
  [
    (DEFAULT, 'wrn_40_2,wrn_40_1'),
    pytest.param(PAIRS, marks=pytest.mark.slow, id='all'),
  ],
)
def test_fsp_explains_where_it_is_not_defined(pairs):
  for pair in pairs:
    config = config_of('fsp', pair)
    if pair in OTHER_CHANNELS:
      with pytest.raises(ValueError, match='Either set connect to True, for l'):
        shape_of_loss(config)
      config.method.objective.connect = True
    assert shape_of_loss(config) == (2,)
