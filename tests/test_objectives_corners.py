"""Every objective in corner cases: finite values, gradients and memory.

A new objective joins by its line in the catalogue.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_objectives_conformance import of_features

from jaxkd import objectives
from jaxkd.types import Outputs

each = pytest.mark.parametrize('name', sorted(objectives.CATALOG))
KEY = jax.random.key(0, impl='rbg')  # quick to compile
B, K, EXAMPLES = 4, 5, 9
TAPS = {'stage1': (4, 4, 3), 'stage2': (2, 2, 4), 'pooled': (4,)}
# Of a guide that needs all of an objective's modules.
OTHER = {'stage1': (2, 2, 4), 'stage2': (4, 4, 5), 'pooled': (5,)}
CLASSES = {'ltkd': 3}  # the fewest; 2 of the others
WRAPPERS = (
  'annealed',
  'ctkd',
  'permuted',
  'revised',
  'selected',
  'standardised',
  'weighted',
)
# They compute themselves, or by layers of theirs, before a loss.
OF_THEIR_OWN = ('ab', 'crd', 'fitnet', 'ofd', 'reviewkd', 'simkd', 'vid')


class Case(NamedTuple):
  """The inputs of an objective."""

  learner: Outputs
  guide: Outputs
  label: np.ndarray


def outputs_of(seed, shapes, size, classes):
  def draw(*shape):
    return rng.normal(size=shape).astype(np.float32)

  rng = np.random.default_rng(seed)
  taps = {name: draw(size, *shape) for name, shape in shapes.items()}
  norms = {
    name: {'bias': draw(x.shape[-1]), 'scale': draw(x.shape[-1])}
    for name, x in taps.items()
  }
  return Outputs(draw(size, classes), taps, norms)


def case(size=B, classes=K, alike=True):
  """Returns a case; `alike` are networks whose taps have the same shapes."""
  label = np.arange(size, dtype=np.int32) * 3 % classes
  shapes = TAPS, TAPS if alike else OTHER
  ends = (outputs_of(n, x, size, classes) for n, x in enumerate(shapes))
  return Case(*ends, label)


def make(name, classes=K):
  return objectives.make(objectives.example(name, classes))


@functools.cache
def first_step(name, classes=K):
  """Returns (case) -> value, gradients and memory of the first step."""
  objective = make(name, classes)

  def run(case):
    one = jax.tree.map(lambda x: x[:1], case)
    ends = dict(learner=one.learner, guide=one.guide)
    params, memory = objective.init(KEY, **ends, examples=EXAMPLES)
    size = len(case.label)
    batch = dict(
      image=jnp.zeros((size, 2, 2, 1)),
      label=case.label,
      index=jnp.arange(size),
      mask=jnp.ones(size),
    )

    def loss(learner, params):
      value, after = objective.loss(
        params,
        memory,
        learner=learner,
        guide=case.guide,
        batch=batch,
        key=KEY,
        epoch=jnp.zeros(()),
        epochs=1,
      )
      return jnp.mean(value), (value, after)

    grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (to_learner, to_params), (value, after) = grad(case.learner, params)
    return value, to_learner, to_params, after

  return jax.jit(run)


def no_taps(outputs):
  return outputs.replace(
    taps=jax.tree.map(np.zeros_like, outputs.taps),
    norms=jax.tree.map(np.zeros_like, outputs.norms),
  )


def logits(case, guide, learner):
  return case._replace(
    guide=case.guide.replace(logits=np.float32(guide)),
    learner=case.learner.replace(logits=np.float32(learner)),
  )


def of_certain_logits(plain):
  sure = np.where(plain.learner.logits > 0, 1e4, -1e4)
  zero, one = 0 * sure, 1e4 * np.eye(sure.shape[-1])[plain.label]
  return {
    'as usual': plain,
    'certain and equal': logits(plain, sure, sure),
    'certain and opposite': logits(plain, -sure, sure),
    'certain and right': logits(plain, one, one),
    'certain and wrong': logits(plain, one, -one),
    'uniform': logits(plain, zero, zero),
    'uniform far from zero': logits(plain, zero + 1e4, zero - 1e4),
    'uniform learner': logits(plain, sure, zero),
    'one class': plain._replace(label=np.zeros_like(plain.label)),
  }


def of_features_alike(plain):
  learner, guide, label = plain
  like = jax.tree.map(lambda x: np.repeat(x[:1], len(x), axis=0), plain)
  flat = jax.tree.map(np.zeros_like, guide.norms)
  return {
    'features of zero': Case(no_taps(learner), no_taps(guide), label),
    "the guide's features of zero": plain._replace(guide=no_taps(guide)),
    "the learner's features of zero": plain._replace(learner=no_taps(learner)),
    'all examples alike': like,
    'the learner like the guide': plain._replace(learner=guide),
    'all like one another': like._replace(learner=like.guide),
    'norms without spread': plain._replace(guide=guide.replace(norms=flat)),
  }


def check_finite(results, corner):
  for path, x in jax.tree.leaves_with_path(results):
    where = f'{corner}: {jax.tree_util.keystr(path)}'
    assert np.all(np.isfinite(np.float32(x))), where


@each
def test_values_gradients_and_memory_are_finite(name):
  plain = case()
  for corner, inputs in (
    of_certain_logits(plain) | of_features_alike(plain)
  ).items():
    check_finite(first_step(name)(inputs), corner)


@each
def test_the_gradient_at_the_learner_is_not_zero(name):
  _, to_learner, *_ = first_step(name)(case())
  assert any(np.any(x != 0) for x in jax.tree.leaves(to_learner))


@pytest.mark.parametrize(
  'name',
  [
    name if name in WRAPPERS else pytest.param(name, marks=pytest.mark.slow)
    for name in sorted(objectives.CATALOG)
  ],
)
def test_a_batch_may_be_one_example_and_classes_two(name):
  """Between networks that make an objective use all of its modules."""
  classes = CLASSES.get(name, 2)
  inputs = case(size=1, classes=classes, alike=False)
  check_finite(first_step(name, classes)(inputs), 'as usual')
  inputs = inputs._replace(learner=no_taps(inputs.learner))
  check_finite(first_step(name, classes)(inputs), 'features of zero')


@pytest.mark.parametrize(
  'name',
  [
    name if name in WRAPPERS else pytest.param(name, marks=pytest.mark.slow)
    for name in sorted(itertools.filterfalse(of_features, objectives.CATALOG))
  ],
)
def test_certain_and_uniform_logits_of_two_classes_are_finite(name):
  classes = CLASSES.get(name, 2)
  for corner, inputs in of_certain_logits(case(classes=classes)).items():
    check_finite(first_step(name, classes)(inputs), corner)


def in_bfloat16(inputs):
  return jax.tree.map(
    lambda x: x.astype(jnp.bfloat16) if x.dtype == np.float32 else x, inputs
  )


@each
def test_the_value_of_bfloat16_is_float32(name):
  value, *_ = jax.eval_shape(first_step(name), in_bfloat16(case()))
  assert value.dtype == jnp.float32


@pytest.mark.parametrize(
  'name',
  [
    name
    if name in OF_THEIR_OWN
    else pytest.param(name, marks=pytest.mark.slow)  # a loss with such a test
    for name in sorted(objectives.CATALOG)
  ],
)
def test_bfloat16_is_computed_in_float32(name):
  half = in_bfloat16(case())
  same = jax.tree.map(
    lambda x: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x, half
  )
  value, *others = first_step(name)(half)
  check_finite(others, 'bfloat16')
  np.testing.assert_allclose(value, first_step(name)(same)[0], rtol=1e-4)
