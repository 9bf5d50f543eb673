"""Optimizers against PyTorch's rules in NumPy; schedules step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import tree
from jaxkd.training import optimizer

STEPS = 20
RATES = [0.1 if step < 12 else 0.02 for step in range(STEPS)]
CIFAR = dict(epochs=240, steps_per_epoch=782)


def rate(step):
  return jnp.where(step < 12, 0.1, 0.02)


def start() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {'kernel': rng.normal(size=(3, 2)), 'bias': rng.normal(size=2)}


def slope(name: str, x: np.ndarray, step: int) -> np.ndarray:
  """A gradient that changes with the parameters and with the step."""
  return np.sin(3 * x + step) + {'kernel': 0.2, 'bias': -0.5}[name] * x


def run(tx: optax.GradientTransformation, params: dict) -> dict:
  """Returns the parameters after STEPS updates, in float64."""
  with jax.enable_x64(True):
    params = jax.tree.map(jnp.asarray, params)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(STEPS):
      grads = {
        name: jnp.asarray(slope(name, np.asarray(x), step))
        for name, x in params.items()
      }
      updates, state = update(grads, state, params)
      params = optax.apply_updates(params, updates)
    return jax.tree.map(np.asarray, params)


def torch_sgd(name, x, *, momentum, nesterov, decay):
  """PyTorch's SGD: decay into the gradient, rate outside of the buffer."""
  buffer = 0.0
  for step, lr in enumerate(RATES):
    d = slope(name, x, step) + decay * x
    if momentum:
      buffer = momentum * buffer + d
      d = d + momentum * buffer if nesterov else buffer
    x = x - lr * d
  return x


def adamw(name, x, *, betas, eps, decay):
  """Loshchilov & Hutter, 2019, algorithm 2, with PyTorch's decay lr * w."""
  m = v = 0.0
  for step, lr in enumerate(RATES, 1):
    g = slope(name, x, step - 1)
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    x = x - lr * (m_hat / (np.sqrt(v_hat) + eps) + decay * x)
  return x


@pytest.mark.parametrize('decay', ['all', 'kernels'])
@pytest.mark.parametrize(
  ('momentum', 'nesterov'), [(0.9, False), (0.9, True), (0.0, False)]
)
def test_sgd_equals_pytorch(momentum, nesterov, decay):
  tx = optimizer.make_optimizer(
    'sgd',
    rate,
    momentum=momentum,
    nesterov=nesterov,
    weight_decay=0.3,
    decay=decay,
  )
  got = run(tx, start())
  for name, x in start().items():
    own = 0.3 if decay == 'all' or name == 'kernel' else 0.0
    want = torch_sgd(name, x, momentum=momentum, nesterov=nesterov, decay=own)
    np.testing.assert_allclose(got[name], want, rtol=1e-9)


@pytest.mark.parametrize('decay', ['all', 'kernels'])
def test_adamw(decay):
  settings = dict(betas=(0.8, 0.95), eps=1e-3)
  tx = optimizer.make_optimizer(
    'adamw', rate, weight_decay=0.3, decay=decay, **settings
  )
  got = run(tx, start())
  for name, x in start().items():
    own = 0.3 if decay == 'all' or name == 'kernel' else 0.0
    want = adamw(name, x, decay=own, **settings)
    np.testing.assert_allclose(got[name], want, rtol=1e-9)


def update(tx, params, grads):
  return tx.update(grads, tx.init(params), params)[0]


def owners(*values: float) -> dict:
  names = ('student', 'slt0', 'objectives')
  return {
    name: {'w': jnp.full(2, float(value))}
    for name, value in zip(names, values, strict=False)
  }


def test_each_owner_has_its_own_rate():
  schedules = {
    'student': lambda step: 0.1,
    'slt0': lambda step: 0.01,
    'objectives': lambda step: 1.0,
  }
  tx = optimizer.make_optimizer('sgd', schedules, momentum=0.0)
  got = update(tx, owners(0, 0, 0), owners(1, 1, 1))
  for name, schedule in schedules.items():
    np.testing.assert_allclose(got[name]['w'], -schedule(0))


def test_rates_of_absent_owners_are_ignored():
  """Only some methods have objectives with parameters."""
  schedules = {'student': lambda step: 0.1, 'objectives': lambda step: 1.0}
  tx = optimizer.make_optimizer('sgd', schedules, momentum=0.0)
  got = update(tx, owners(0), owners(1))
  np.testing.assert_allclose(got['student']['w'], -0.1)


@pytest.mark.parametrize(
  'schedules',
  [lambda step: 1.0, {'student': lambda step: 1.0, 'slt0': lambda step: 1.0}],
  ids=['one rate', 'two rates'],
)
def test_clips_by_the_norm_of_all_owners(schedules):
  tx = optimizer.make_optimizer('sgd', schedules, momentum=0.0, clip_norm=1.0)
  # The squares of 2 + 2 values: 2 * 9 + 2 * 16 = 50.
  got = update(tx, owners(0, 0), owners(3, 4))
  np.testing.assert_allclose(got['student']['w'], -3 / 50**0.5, rtol=1e-6)
  np.testing.assert_allclose(got['slt0']['w'], -4 / 50**0.5, rtol=1e-6)


def test_does_not_clip_below_the_norm():
  tx = optimizer.make_optimizer(
    'sgd', lambda step: 1.0, momentum=0.0, clip_norm=8.0
  )
  got = update(tx, owners(0, 0), owners(3, 4))
  np.testing.assert_array_equal(got['slt0']['w'], -4)


def test_clips_before_the_decay():
  """As in PyTorch, where the optimizer adds the decay after the clipping."""
  tx = optimizer.make_optimizer(
    'sgd', lambda step: 1.0, momentum=0.0, weight_decay=0.5, clip_norm=1.0
  )
  got = update(tx, owners(10), owners(3))
  np.testing.assert_allclose(got['student']['w'], -(0.5**0.5) - 5, rtol=1e-6)


def schedule(name: str, **settings) -> optax.Schedule:
  return optimizer.make_schedule(name, 0.05, **{**CIFAR, **settings})


@pytest.mark.parametrize(
  'milestones',
  [(150, 180, 210), (0.625, 0.75, 0.875)],
  ids=['epochs', 'fractions'],
)
def test_milestones_hold_from_the_exact_step(milestones):
  at = schedule('milestones', milestones=milestones)
  for step, want in {
    0: 0.05,
    117_299: 0.05,
    117_300: 0.005,
    140_759: 0.005,
    140_760: 5e-4,
    164_219: 5e-4,
    164_220: 5e-5,
    187_679: 5e-5,
  }.items():
    np.testing.assert_allclose(at(step), want, rtol=1e-5, err_msg=str(step))
    traced = jax.jit(at)(jnp.int32(step))
    np.testing.assert_allclose(traced, want, rtol=1e-5, err_msg=str(step))


def test_fractions_keep_their_shape_in_a_shorter_run():
  settings = dict(milestones=(0.625, 0.75, 0.875), steps_per_epoch=10)
  at = schedule('milestones', epochs=24, **settings)
  rates = [float(at(step)) for step in (149, 150, 179, 180, 209, 210)]
  want = [0.05, 0.005, 0.005, 5e-4, 5e-4, 5e-5]
  np.testing.assert_allclose(rates, want, rtol=1e-5)


def test_two_milestones_on_one_step_both_count():
  at = schedule(
    'milestones', epochs=2, steps_per_epoch=2, milestones=(0.74, 0.76)
  )
  np.testing.assert_allclose(at(2), 0.05)
  np.testing.assert_allclose(at(3), 0.05 * 0.1**2, rtol=1e-5)


@pytest.mark.parametrize('name', ['constant', 'milestones', 'cosine'])
def test_warmup_rises_linearly_to_the_peak(name):
  settings = dict(epochs=100, steps_per_epoch=4, milestones=(50,))
  plain = schedule(name, **settings)
  warm = schedule(name, warmup_epochs=1, **settings)
  for step in range(8):
    want = float(plain(step)) * min(1, (step + 1) / 4)
    np.testing.assert_allclose(warm(step), want, rtol=1e-6)
  np.testing.assert_allclose(plain(0), 0.05)


def test_cosine_ends_at_its_final_rate():
  at = schedule('cosine', epochs=10, steps_per_epoch=10, final=0.2)
  np.testing.assert_allclose(at(0), 0.05)
  np.testing.assert_allclose(at(50), 0.05 * (1 + 0.2) / 2, rtol=1e-5)
  np.testing.assert_allclose(at(100), 0.05 * 0.2, rtol=1e-5)
  np.testing.assert_allclose(at(150), 0.05 * 0.2, rtol=1e-5)


@pytest.mark.parametrize('milestone', [0, -0.5])
def test_milestones_must_be_positive(milestone):
  with pytest.raises(
    ValueError, match=f'a milestone must be .*, got {milestone}'
  ):
    schedule('milestones', milestones=(milestone,))


def test_wrong_names_get_suggestions():
  with pytest.raises(KeyError, match="no schedule 'cosin'. .* 'cosine'"):
    schedule('cosin')
  with pytest.raises(KeyError, match="no optimizer 'adam'. .* 'adamw'"):
    optimizer.make_optimizer('adam', rate)
  with pytest.raises(KeyError, match="no decay mask 'kernel'. .* 'kernels'"):
    optimizer.make_optimizer('sgd', rate, decay='kernel')


def test_tokens_positions_and_biases_do_not_decay():
  params = {
    'qkv': {'kernel': jnp.ones((4, 3, 2, 2)), 'bias': jnp.ones((3, 2, 2))},
    'class_token': jnp.ones((1, 1, 4)),
    'position_embedding': jnp.ones((1, 5, 4)),
    'conv': {'branch_scale': jnp.ones((6, 4)), 'branch_mix': jnp.ones((4, 4))},
  }
  tx = optimizer.make_optimizer('sgd', rate, weight_decay=0.3, decay='kernels')
  change = update(tx, params, jax.tree.map(jnp.zeros_like, params))
  moved = {name for name, x in tree.leaves(change).items() if jnp.any(x)}
  assert moved == {'qkv/kernel', 'conv/branch_mix'}
