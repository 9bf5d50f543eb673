"""Logits of -inf: a guide that rules a class out. Terms of 0 log 0 are 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd import losses, objectives
from jaxkd.losses.temperature import expected, kl
from jaxkd.types import Outputs

KEY = jax.random.key(0, impl='rbg')  # quick to compile
B, K = 6, 5
LABELS = np.arange(B) % K
DRAWS = np.random.default_rng(0).normal(size=(2, B, K)).astype(np.float32)
STUDENT, TEACHER = DRAWS
# One class, the label's class, two classes, none.
MASKED = np.zeros((B, K), bool)
MASKED[0, 3] = MASKED[1, LABELS[1]] = True
MASKED[2, :2] = True
# And all classes but the label's, whose distribution is then undefined.
SURE = MASKED | (np.arange(B)[:, None] == 3)
SURE[3, LABELS[3]] = False
# Without a limit as a logit goes to -inf: functions of the logits themselves.
OF_LOGITS = ('cmkd', 'comparative', 'standardised')
LOW = -1e4


def of_logits():
  """The objectives between networks that have logits and no taps."""
  ends = {
    'learner': Outputs(jnp.asarray(STUDENT), {}),
    'guide': Outputs(jnp.asarray(TEACHER), {}),
  }
  batch = {'label': jnp.asarray(LABELS), 'mask': jnp.ones(B)}
  found = {}
  for name in sorted(objectives.CATALOG):
    objective = objectives.make(objectives.example(name, K))

    def loss(params, learner, guide, objective=objective):
      value, _ = objective.loss(
        params,
        {},
        learner=Outputs(learner, {}),
        guide=Outputs(guide, {}),
        batch={**batch, 'index': jnp.arange(B)},
        key=KEY,
        epoch=0.0,
        epochs=3,
      )
      return jnp.mean(value)

    try:
      params, _ = objective.init(KEY, **ends, examples=B)
      jax.eval_shape(loss, params, STUDENT, TEACHER)
    except (KeyError, ValueError):  # it needs taps
      continue
    found[name] = loss, params
  return found


@functools.cache
def results():
  """Each objective's loss and gradients: -inf, a very low logit, `SURE`."""
  cases = of_logits()

  @jax.jit
  def everything(params, student, teacher):
    return {
      name: jax.value_and_grad(loss, argnums=(0, 1))(
        params[name], student, teacher
      )
      for name, (loss, _) in cases.items()
    }

  params = {name: own for name, (_, own) in cases.items()}
  guides = (
    np.where(MASKED, np.float32(-np.inf), TEACHER),
    np.where(MASKED, np.float32(LOW), TEACHER),
    np.where(SURE, np.float32(-np.inf), TEACHER),
  )
  return [jax.device_get(everything(params, STUDENT, z)) for z in guides]


def test_losses_and_gradients_of_masked_classes_are_finite():
  masked, _, sure = results()
  assert {'kd', 'dkd', 'mlkd', 'alpha_beta', 'ctkd', 'ltkd'} <= masked.keys()
  for name in masked:
    for array in jax.tree.leaves((masked[name], sure[name])):
      assert np.all(np.isfinite(array)), name


def test_masked_classes_are_the_limit_of_low_logits():
  masked, low, _ = results()
  for name in masked.keys() - set(OF_LOGITS):
    for x, y in zip(
      jax.tree.leaves(masked[name]), jax.tree.leaves(low[name]), strict=True
    ):
      np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
  'settings', [(1.0, 0.0), (0.5, 0.5), (2.0, -1.0), (1.0, 1.0)]
)
def test_alpha_beta_of_a_masked_class_is_its_definition(settings):
  a, b = settings
  p, q = (np.exp(np.asarray(jax.nn.log_softmax(z))) for z in (TEACHER, STUDENT))
  p = np.where(MASKED, 0, p)
  p = p / p.sum(-1, keepdims=True)
  with np.errstate(divide='ignore', invalid='ignore'):
    if b == 0:  # the generalised KL: sum p log p / q - p + q
      terms = np.where(p > 0, p * np.log(p / q), 0) - p + q
    else:
      product = np.where(p > 0, p**a * q**b, 0)
      squares = a / (a + b) * p ** (a + b) + b / (a + b) * q ** (a + b)
      terms = -(product - squares) / (a * b)
  value = losses.alpha_beta(
    jnp.asarray(STUDENT), jnp.where(MASKED, -jnp.inf, TEACHER), a, b
  )
  np.testing.assert_allclose(value, terms.sum(-1), rtol=1e-4)


def test_alpha_beta_is_infinite_where_its_definition_is():
  teacher = jnp.where(MASKED, -jnp.inf, TEACHER)
  value = losses.alpha_beta(jnp.asarray(STUDENT), teacher, alpha=0.0, beta=1.0)
  np.testing.assert_array_equal(np.isinf(value), MASKED.any(-1))


def test_standardised_logits_are_those_of_the_other_classes():
  z = jnp.asarray(TEACHER).at[:, 1].set(-jnp.inf)
  kept = np.delete(TEACHER, 1, axis=1)
  np.testing.assert_allclose(
    np.delete(np.asarray(losses.standardise(z)), 1, axis=1),
    losses.standardise(jnp.asarray(kept)),
    rtol=1e-5,
  )
  assert np.all(np.isneginf(losses.standardise(z)[:, 1]))


def test_ranks_of_masked_classes_are_the_lowest():
  x = jnp.array([-jnp.inf, 30.0, -jnp.inf, 10.0])
  np.testing.assert_allclose(losses.soft_ranks(x), [1.5, 4, 1.5, 3])


def test_what_the_student_rules_out_costs_infinity():
  student = jnp.asarray(STUDENT).at[:, 0].set(-jnp.inf)
  assert np.all(np.isposinf(losses.kd(student, jnp.asarray(TEACHER))))
  labels = jnp.zeros(B, int)
  assert np.all(np.isposinf(losses.cross_entropy(student, labels)))
  assert np.all(np.isfinite(losses.cross_entropy(student, labels + 1)))


def test_sums_over_probabilities_have_finite_gradients():
  p, log_q = jnp.array([0.0, 1.0]), jnp.array([-jnp.inf, -0.5])
  assert expected(p, log_q) == -0.5
  assert np.all(np.isfinite(jax.grad(expected)(p, log_q)))
  log_p = jnp.array([-jnp.inf, 0.0])
  assert kl(log_p, log_q) == 0.5
  assert np.all(np.isfinite(jax.grad(kl)(log_p, jnp.array([-3.0, -0.5]))))
