"""What holds for every objective, and objectives from names and settings."""

import functools
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses, objectives
from jaxkd.objectives.ltkd import groups_by_frequency
from jaxkd.types import Outputs

each = pytest.mark.parametrize('name', sorted(objectives.CATALOG))
# Settings without a default.
NEEDED = {
  'annealed': 'start',
  'cmkd': 'hard',
  'ltkd': 'class_counts',
  'revised': 'eta',
  'selected': 'keep',
  'weighted': 'score',
}
B, K = 4, 5
KEY = jax.random.key(0)
LABELS = jnp.array([3, 1, 4, 1])
WITHOUT_PAPER = ('cross_entropy',)
BATCH = dict(
  image=jnp.zeros((B, 6, 6, 3)),
  label=LABELS,
  index=jnp.arange(B),
  mask=jnp.ones(B),
)


def outputs(seed: int) -> Outputs:
  draw = np.random.default_rng(seed).normal
  taps = {f'stage{i}': (B, 8 >> i, 8 >> i, 4 << i) for i in range(1, 4)} | {
    'pooled': (B, 32)
  }
  features = {
    name: jnp.asarray(draw(size=shape), jnp.float32)
    for name, shape in taps.items()
  }
  norms = {
    name: {'scale': jnp.ones(shape[-1]), 'bias': jnp.zeros(shape[-1])}
    for name, shape in taps.items()
  }
  logits = jnp.asarray(draw(size=(B, K)), jnp.float32)
  return Outputs(logits, features, norms)


GUIDE, LEARNER = outputs(0), outputs(1)


def make(name: str) -> objectives.Objective:
  return objectives.make(objectives.example(name, K))


def initial(objective, learner=LEARNER, guide=GUIDE, examples=100):
  """Returns an objective's parameters and memory."""
  return objective.init(KEY, learner=learner, guide=guide, examples=examples)


def step(
  objective,
  params,
  memory,
  learner=LEARNER,
  guide=GUIDE,
  batch=BATCH,
  epoch=0.0,
  epochs=1,
):
  """Returns an objective's loss and its memory after a step."""
  return objective.loss(
    params,
    memory,
    learner=learner,
    guide=guide,
    batch=batch,
    key=KEY,
    epoch=jnp.float32(epoch),
    epochs=epochs,
  )


def loss_of(objective, learner=LEARNER):
  """Returns the loss of an objective on its first step."""
  return step(objective, *initial(objective, learner), learner)[0]


@functools.cache
def shapes_of_first_step(name):
  """Returns the shapes of the loss, and of the memory before and after."""
  objective = make(name)

  def first_step():
    params, memory = initial(objective)
    value, after = step(objective, params, memory)
    return value, memory, after

  return jax.eval_shape(first_step)


@each
def test_loss_is_per_example_or_of_the_batch(name):
  value, *_ = shapes_of_first_step(name)
  assert value.shape in ((B,), ())


@each
def test_memory_keeps_its_shape(name):
  _, before, after = shapes_of_first_step(name)
  chex.assert_trees_all_equal(before, after)


@each
def test_prints_its_name_and_all_settings(name):
  objective = make(name)
  assert objective.name == name
  arguments = objectives.make({'name': name, **objective.settings})
  assert str(arguments) == str(objective)


@each
def test_is_documented_with_its_source(name):
  function = objectives.CATALOG[name]
  assert function.__doc__
  page = function.__doc__ + sys.modules[function.__module__].__doc__
  assert name in WITHOUT_PAPER or 'https://' in page or 'See `losses.' in page


@pytest.mark.parametrize('name', sorted(NEEDED))
def test_a_missing_setting_is_named(name):
  message = f"{name}' needs the setting '{NEEDED[name]}'"
  with pytest.raises(ValueError, match=message):
    objectives.make(name)


@pytest.mark.parametrize(
  ('spec', 'want'),
  [
    (
      {'name': 'dkd', 'alpha': 0.5, 'beta': 2.0, 'temperature': 1.5},
      losses.dkd(LEARNER.logits, GUIDE.logits, LABELS, 0.5, 2.0, 1.5),
    ),
    (
      {'name': 'soft_cross_entropy', 'smoothing': 0.1, 'temperature': 1.5},
      losses.soft_cross_entropy(LEARNER.logits, GUIDE.logits, 0.1, 1.5),
    ),
    (
      {'name': 'kd', 'temperature': 1.5},
      losses.kd(LEARNER.logits, GUIDE.logits, 1.5),
    ),
    (
      {'name': 'alpha_beta', 'alpha': 0.2, 'beta': 0.9, 'temperature': 1.5},
      losses.alpha_beta(LEARNER.logits, GUIDE.logits, 0.2, 0.9, 1.5),
    ),
    (
      {'name': 'ekd', 'log_prior': -0.5, 'temperature': 1.5},
      losses.ekd(LEARNER.logits, GUIDE.logits, -0.5, 1.5),
    ),
    (
      {'name': 'pld', 'temperature': 1.5},
      losses.pld(LEARNER.logits, GUIDE.logits, LABELS, 1.5),
    ),
    (
      {
        'name': 'rld',
        'alpha': 0.2,
        'beta': 0.9,
        'temperature': 1.5,
        'confidence_temperature': 2.5,
      },
      losses.rld(LEARNER.logits, GUIDE.logits, LABELS, 0.2, 0.9, 1.5, 2.5),
    ),
    (
      {'name': 'nkd', 'gamma': 0.2, 'temperature': 1.5},
      losses.nkd(LEARNER.logits, GUIDE.logits, LABELS, 0.2, 1.5),
    ),
    (
      {'name': 'dist', 'beta': 0.2, 'gamma': 0.9, 'temperature': 1.5},
      losses.dist(LEARNER.logits, GUIDE.logits, 0.2, 0.9, 1.5),
    ),
    (
      {
        'name': 'mlkd',
        'temperatures': [1.5, 3.0],
        'instance_weight': 0.2,
        'batch_weight': 0.9,
        'class_weight': 0.4,
      },
      losses.mlkd(LEARNER.logits, GUIDE.logits, (1.5, 3.0), 0.2, 0.9, 0.4),
    ),
    (
      {'name': 'comparative', 'positives': 2, 'negatives': 1},
      losses.comparative(LEARNER.logits, GUIDE.logits, 2, 1),
    ),
    (
      {
        'name': 'cmkd',
        'hard': 'spearman',
        'alpha': 0.2,
        'beta': 0.9,
        'temperature': 1.5,
        'softness': 0.3,
      },
      losses.cmkd(LEARNER.logits, GUIDE.logits, 'spearman', 0.2, 0.9, 1.5, 0.3),
    ),
    (
      {
        'name': 'grouped_kd',
        'binary_weight': 0.2,
        'primary_weight': 0.9,
        'secondary_weight': 0.4,
        'temperature': 1.5,
        'coverage': 0.5,
        'chooser': 'guide',
      },
      losses.grouped_kd(
        LEARNER.logits,
        GUIDE.logits,
        losses.primary_classes(GUIDE.logits, LABELS, 0.5),
        0.2,
        0.9,
        0.4,
        1.5,
      ),
    ),
    (
      {'name': 'grouped_kd', 'size': 2},
      losses.grouped_kd(
        LEARNER.logits,
        GUIDE.logits,
        losses.primary_classes(LEARNER.logits, LABELS, size=2),
      ),
    ),
    (
      {
        'name': 'ltkd',
        'class_counts': (5, 1, 4, 2, 3),
        'alpha': 0.2,
        'beta': 0.9,
        'temperature': 1.5,
      },
      losses.ltkd(
        LEARNER.logits,
        GUIDE.logits,
        jnp.array([0, 2, 1, 1, 1]),
        3,
        0.2,
        0.9,
        1.5,
      ),
    ),
    (
      {'name': 'standardised', 'objective': 'dkd'},
      losses.dkd(
        losses.standardise(LEARNER.logits),
        losses.standardise(GUIDE.logits),
        LABELS,
      ),
    ),
    (
      {'name': 'brier', 'reduction': 'mean'},
      losses.brier(LEARNER.logits, LABELS, 'mean'),
    ),
    (
      {'name': 'square_logits', 'reduction': 'mean'},
      losses.square_logits(LEARNER.logits, LABELS, 'mean'),
    ),
  ],
  ids=lambda value: value['name'] if isinstance(value, dict) else '',
)
def test_settings_reach_the_loss(spec, want):
  before = dict(spec)
  np.testing.assert_array_equal(loss_of(objectives.make(spec)), want)
  assert spec == before


@pytest.mark.parametrize(
  ('name', 'labels'),
  [
    ('comparative', ()),
    ('dist', ()),
    ('dkd', (LABELS,)),
    ('ekd', ()),
    ('mlkd', ()),
    ('nkd', (LABELS,)),
    ('pld', (LABELS,)),
    ('rld', (LABELS,)),
    ('soft_cross_entropy', ()),
  ],
)
def test_a_name_means_the_defaults_of_the_loss(name, labels):
  want = getattr(losses, name)(LEARNER.logits, GUIDE.logits, *labels)
  np.testing.assert_array_equal(loss_of(objectives.make(name)), want)


def test_make_returns_an_objective_as_it_is():
  objective = objectives.dkd(beta=2.0)
  assert objectives.make(objective) is objective
  outer = {'name': 'standardised', 'objective': objective}
  assert objectives.make(outer).settings['objective'] is objective


OF_LABELS = (
  'binary_cross_entropy',
  'brier',
  'comparative',
  'cross_entropy',
  'square_logits',
)


@pytest.mark.parametrize(
  'name', sorted(objectives.CATALOG.keys() - set(OF_LABELS))
)
def test_labels_are_refused_as_a_guide(name):
  objective = make(name)
  with pytest.raises(ValueError, match='let a network'):
    step(objective, *initial(objective, guide=None), guide=None)


@pytest.mark.parametrize('name', OF_LABELS)
def test_labels_can_guide(name):
  value, _ = step(make(name), {}, {}, guide=None)
  assert np.all(np.isfinite(value))


def test_comparative_compares_with_one_hot_labels():
  objective = objectives.make('comparative')
  got, _ = step(objective, {}, {}, guide=None)
  one_hot = jax.nn.one_hot(LABELS, K)
  want = losses.comparative(LEARNER.logits, one_hot)
  np.testing.assert_array_equal(got, want)


def test_head_and_tail_are_the_most_and_the_least_frequent():
  counts = [round(500 * 0.01 ** (c / 99)) for c in range(100)]
  for order in (np.arange(100), np.random.default_rng(0).permutation(100)):
    groups = groups_by_frequency([counts[c] for c in order])
    sizes = [np.sum(groups == g) for g in range(3)]
    assert sizes == [33, 34, 33]
    assert np.all(groups[order < 33] == 0) and np.all(groups[order > 66] == 2)


def test_ltkd_needs_a_count_for_every_class():
  objective = objectives.ltkd(class_counts=(4, 3, 2, 1))
  message = 'class_counts of 4 classes, but the networks have 5 logits'
  with pytest.raises(ValueError, match=message):
    loss_of(objective)
  with pytest.raises(ValueError, match=r'at least 3 classes, got \(4, 3\)'):
    objectives.ltkd(class_counts=(4, 3))


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (
      dict(name='ltkd', class_counts=100),
      'class_counts must be a list, .* got 100',
    ),
    (
      dict(name='mlkd', temperatures=4.0),
      'temperatures must be a list, .* got 4.0',
    ),
    (dict(name='mlkd', temperatures=('4',)), "mlkd needs .* above 0, got '4'"),
  ],
)
def test_a_scalar_in_place_of_a_list_is_refused(spec, message):
  with pytest.raises(ValueError, match=message):
    objectives.make(spec)


def test_grouped_kd_suggests_a_chooser():
  with pytest.raises(KeyError, match="no chooser 'learners'. Did you mean 'le"):
    objectives.grouped_kd(chooser='learners')


def test_make_suggests_a_name():
  with pytest.raises(KeyError, match="'dkt'. Did you mean .*'dkd'"):
    objectives.make('dkt')
  with pytest.raises(KeyError, match="no objective 'soft_ce'. Did you mean 's"):
    objectives.make({'name': 'soft_ce', 'smoothing': 0.1})
  with pytest.raises(KeyError, match="'dkt'. Did you mean .*'dkd'"):
    objectives.make({'name': 'standardised', 'objective': 'dkt'})


def test_make_suggests_a_setting():
  message = "objective 'dkd' takes no setting 'betta'. Did you mean 'beta'"
  with pytest.raises(ValueError, match=message):
    objectives.make({'name': 'dkd', 'betta': 2.0})


@pytest.mark.parametrize('spec', [{'beta': 2.0}, {'name': 3}, {}, None, 4.0])
def test_make_explains_what_a_spec_is(spec):
  message = "a name, like 'kd', or a mapping with one, like {'name': 'kd'"
  with pytest.raises(ValueError, match=message) as error:
    objectives.make(spec)
  assert str(error.value).endswith(f'got {spec!r}')
