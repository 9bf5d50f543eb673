"""Every objective where formulae break: finite values, slopes and memory.

A new objective joins by its line in the catalogue.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
from test_objectives import NEEDED
from test_objectives_conformance import CONNECTED, of_features

from jaxkd import objectives
from jaxkd.types import Outputs

each = pytest.mark.parametrize('name', sorted(objectives.CATALOG))
KEY = jax.random.key(0, impl='rbg')  # quick to compile
B, K, EXAMPLES = 4, 5, 9
TAPS = {'stage1': (4, 4, 3), 'stage2': (2, 2, 4), 'pooled': (4,)}
# Of a guide that needs all of an objective's modules.
OTHER = {'stage1': (2, 2, 4), 'stage2': (4, 4, 5), 'pooled': (5,)}
CLASSES = {'ltkd': K}  # of which its settings are; 2 of the others


class Case(NamedTuple):
  """What an objective sees."""

  guide: Outputs
  learner: Outputs
  label: np.ndarray


def says(seed, shapes, size, classes):
  def draw(*shape):
    return rng.normal(size=shape).astype(np.float32)

  rng = np.random.default_rng(seed)
  taps = {name: draw(size, *shape) for name, shape in shapes.items()}
  norms = {
    f'{name}:{part}': draw(x.shape[-1])
    for name, x in taps.items()
    for part in ('scale', 'bias')
  }
  return Outputs(draw(size, classes), {**taps, **norms})


def case(size=B, classes=K, alike=True):
  """Returns a case; `alike` are networks whose taps have the same shapes."""
  label = np.arange(size, dtype=np.int32) * 3 % classes
  shapes = TAPS if alike else OTHER, TAPS
  return Case(*(says(n, x, size, classes) for n, x in enumerate(shapes)), label)


def make(name):
  given = {**NEEDED.get(name, {}), **CONNECTED.get(name, {})}
  return objectives.make({'name': name, **given})


@functools.cache
def start(name, **settings):
  """Returns what an objective has before its first step, of any batch."""
  one = case(size=1, **settings)

  def init(guide, learner):
    return make(name).init(KEY, guide, learner, EXAMPLES)

  return quick.jit(init)(one.guide, one.learner)


@functools.cache
def slopes(name):
  """Returns (params, memory, case) -> value, gradients and memory."""
  objective = make(name)

  def run(params, memory, case):
    size = len(case.label)
    batch = dict(
      image=jnp.zeros((size, 2, 2, 1)),
      label=case.label,
      index=jnp.arange(size),
      mask=jnp.ones(size),
    )

    def loss(learner, params):
      seen = params, memory, case.guide, learner, batch, KEY
      value, after = objective.loss(*seen)
      return jnp.mean(value), (value, after)

    grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (to_learner, to_params), (value, after) = grad(case.learner, params)
    return value, to_learner, to_params, after

  return quick.jit(run)


def seen(name, given, **settings):
  """Returns what an objective makes of a case in its first step."""
  return slopes(name)(*start(name, **settings), given)


def no_taps(says):
  return says._replace(taps=jax.tree.map(np.zeros_like, says.taps))


def logits(case, guide, learner):
  return case._replace(
    guide=case.guide._replace(logits=np.float32(guide)),
    learner=case.learner._replace(logits=np.float32(learner)),
  )


def of_sure_logits(plain):
  sure = np.where(plain.learner.logits > 0, 1e4, -1e4)
  zero, one = 0 * sure, 1e4 * np.eye(sure.shape[-1])[plain.label]
  return {
    'as usual': plain,
    'sure of the same': logits(plain, sure, sure),
    'sure of the contrary': logits(plain, -sure, sure),
    'sure and right': logits(plain, one, one),
    'sure and wrong': logits(plain, one, -one),
    'undecided': logits(plain, zero, zero),
    'undecided far from zero': logits(plain, zero + 1e4, zero - 1e4),
    'undecided learner': logits(plain, sure, zero),
    'one class': plain._replace(label=np.zeros_like(plain.label)),
  }


def of_features_alike(plain):
  guide, learner, label = plain
  like = jax.tree.map(lambda x: np.repeat(x[:1], len(x), axis=0), plain)
  flat = {k: x * (':' not in k) for k, x in guide.taps.items()}
  return {
    'features of zero': Case(no_taps(guide), no_taps(learner), label),
    "the guide's features of zero": plain._replace(guide=no_taps(guide)),
    "the learner's features of zero": plain._replace(learner=no_taps(learner)),
    'all examples alike': like,
    'the learner like the guide': plain._replace(learner=guide),
    'all like one another': like._replace(learner=like.guide),
    'norms without spread': plain._replace(guide=guide._replace(taps=flat)),
  }


def check_finite(found, corner):
  for path, x in jax.tree.leaves_with_path(found):
    where = f'{corner}: {jax.tree_util.keystr(path)}'
    assert np.all(np.isfinite(np.float32(x))), where


@each
def test_values_slopes_and_memory_are_finite(name):
  plain = case()
  for corner, given in (
    of_sure_logits(plain) | of_features_alike(plain)
  ).items():
    check_finite(seen(name, given), corner)


@each
def test_a_batch_may_be_one_example_and_classes_two(name):
  """Between networks that make an objective use all of its modules."""
  settings = dict(classes=CLASSES.get(name, 2), alike=False)
  given = case(size=1, **settings)
  check_finite(seen(name, given, **settings), 'as usual')
  given = given._replace(learner=no_taps(given.learner))
  check_finite(seen(name, given, **settings), 'features of zero')


@pytest.mark.parametrize(
  'name', sorted(itertools.filterfalse(of_features, objectives.CATALOG))
)
def test_two_classes_of_a_batch_may_be_sure_or_undecided(name):
  plain = case(classes=CLASSES.get(name, 2))
  for corner, given in of_sure_logits(plain).items():
    check_finite(seen(name, given), corner)


@each
def test_bfloat16_is_computed_in_float32(name):
  half = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16) if x.dtype == np.float32 else x, case()
  )
  same = jax.tree.map(
    lambda x: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x, half
  )
  value, *others = seen(name, half)
  check_finite(others, 'bfloat16')
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, seen(name, same)[0], rtol=1e-4)
