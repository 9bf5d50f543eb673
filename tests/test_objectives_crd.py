"""CRD: what is drawn, what is scored, and what memory keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from objective_inputs import KEY, draw, pairs, parameters

from jaxkd import losses, objectives
from jaxkd.objectives import base
from jaxkd.objectives.crd import UNVISITED, of_other_classes, others
from jaxkd.runs.run import Run
from jaxkd.training import checkpoint
from jaxkd.types import Outputs

# Draws.

DRAWS = 6000
CLASSES = np.array([2, 0, 0, 1, 2, 0, UNVISITED, 1, 3, UNVISITED], np.int32)


def frequencies(drawn):
  """How often each example was drawn, [B, N]."""
  return np.stack([np.bincount(row, minlength=10) for row in drawn]) / DRAWS


def check_uniform(drawn, allowed):
  observed = frequencies(np.asarray(drawn))
  assert not np.any(observed[~allowed])
  want = 1 / allowed.sum(axis=1, keepdims=True)
  deviation = np.sqrt(want * (1 - want) / DRAWS)
  assert np.all(np.abs(observed - want)[allowed] < 4.5 * np.max(deviation))


def test_negatives_are_uniform_over_other_classes():
  own = np.array([0, 1, 3, 7], np.int32)  # 7: in none of the examples
  drawn = jax.jit(of_other_classes, static_argnums=3)(
    jax.random.key(1), CLASSES, own, DRAWS
  )
  check_uniform(drawn, CLASSES[None] != own[:, None])


def test_negatives_are_uniform_over_other_examples():
  index = np.array([0, 4, 9], np.int32)
  drawn = jax.jit(others, static_argnums=(2, 3))(
    jax.random.key(1), index, 10, DRAWS
  )
  check_uniform(drawn, np.arange(10) != index[:, None])


def test_examples_are_drawn_independently():
  own = np.zeros(2, np.int32)
  first, second = of_other_classes(jax.random.key(1), CLASSES, own, DRAWS)
  same = np.mean(np.asarray(first) == np.asarray(second))
  assert abs(same - 1 / 7) < 0.03


def test_draws_with_a_single_class_stay_in_range():
  drawn = of_other_classes(
    jax.random.key(1), np.zeros(4, np.int32), np.zeros(2, np.int32), 9
  )
  assert np.all((np.asarray(drawn) >= 0) & (np.asarray(drawn) < 4))


# Steps.

B, N, K, T = 4, 20, 12, 0.2
OBJECTIVE = objectives.crd(dim=6, negatives=K, temperature=T, momentum=0.25)
LABELS = np.arange(N, dtype=np.int32) % 3


def ends(step):
  learner, guide = (
    Outputs(
      jnp.zeros((B, 3)), {'pooled': jnp.asarray(draw(B, d, seed=step + d))}
    )
    for d in (5, 7)
  )
  return dict(learner=learner, guide=guide)


def batch_of(step):
  index = np.arange(B, dtype=np.int32) + 3 * step
  return {'index': index, 'label': LABELS[index], 'mask': np.ones(B)}


@functools.cache
def start():
  init = functools.partial(OBJECTIVE.init, examples=N)
  return jax.tree.map(np.array, jax.jit(init)(KEY, **ends(0)))


@jax.jit
def step(params, memory, ends, batch, key):
  def loss(params):
    value, after = OBJECTIVE.loss(
      params, memory, batch=batch, key=key, epoch=0.0, epochs=1, **ends
    )
    return jnp.sum(value), (value, after)

  gradient, (value, memory) = jax.grad(loss, has_aux=True)(params)
  return value, memory, gradient


@functools.cache
def steps(number):
  """The values, the memories and the gradients of some steps."""
  params, memory = start()
  results = []
  for i in range(number):
    args = params, memory, ends(i), batch_of(i), jax.random.key(i)
    value, memory, gradient = jax.tree.map(np.array, step(*args))
    results.append((value, memory, gradient))
  return results


def embedded(params, i):
  """Unit vectors of both networks' features, [2, B, D]."""
  vectors = []
  for end in ('learner', 'guide'):
    layer = params[end]['linear']
    x = np.float64(ends(i)[end].taps['pooled']) @ layer['kernel']
    x = x + layer['bias']
    vectors.append(x / np.linalg.norm(x, axis=1, keepdims=True))
  return np.stack(vectors)


def pairs_of(memory, i):
  """The example and its negatives, as the step has drawn them."""
  batch = batch_of(i)
  drawn = of_other_classes(
    jax.random.key(i), memory['label'], batch['label'], K
  )
  return np.concatenate([batch['index'][:, None], drawn], axis=1)


def scores_of(params, memory, pairs, i):
  """exp(cosine / T) of each network with the other one's memory."""
  vectors = embedded(params, i)
  rows = np.float64(memory['bank'])[::-1][:, pairs]
  return np.exp(np.einsum('abd,abkd->abk', vectors, rows) / T)


def numpy_nce(p):
  c = K / N
  own = np.log(p[:, 0] / (p[:, 0] + c + 1e-7))
  return -own - np.log(c / (p[:, 1:] + c + 1e-7)).sum(axis=1)


def test_loss_is_the_papers_estimate_with_z_of_the_first_batch():
  params, memory = start()
  z = None
  for i, (value, after, _) in enumerate(steps(3)):
    scores = scores_of(params, memory, pairs_of(after, i), i)
    z = scores.mean(axis=(1, 2)) * N if z is None else z
    np.testing.assert_allclose(after['z'], z, rtol=1e-5)
    ours, theirs = scores / z[:, None, None]
    np.testing.assert_allclose(
      value, numpy_nce(ours) + numpy_nce(theirs), rtol=1e-5
    )
    memory = after


def test_memory_starts_uniform_and_rows_become_unit_averages():
  params, memory = start()
  bound = np.sqrt(3 / 6)
  assert memory['bank'].shape == (2, N, 6)
  assert 0.9 * bound < np.max(np.abs(memory['bank'])) < bound
  assert abs(np.mean(memory['bank'])) < 0.15 * bound
  for i, (_, after, _) in enumerate(steps(3)):
    index = batch_of(i)['index']
    rest = np.setdiff1d(np.arange(N), index)
    np.testing.assert_array_equal(
      after['bank'][:, rest], memory['bank'][:, rest]
    )
    row = 0.25 * memory['bank'][:, index] + 0.75 * embedded(params, i)
    row /= np.linalg.norm(row, axis=-1, keepdims=True)
    np.testing.assert_allclose(after['bank'][:, index], row, atol=1e-6)
    memory = after


def test_labels_are_collected_from_the_batches():
  _, memory = start()
  assert np.all(memory['label'] == UNVISITED)
  *_, (_, memory, _) = steps(3)
  np.testing.assert_array_equal(memory['label'][:10], LABELS[:10])
  assert np.all(memory['label'][10:] == UNVISITED)


def test_gradients_flow_through_the_embeddings_alone():
  """Not through Z, nor through what is written to memory."""
  params, before = start()
  _, after, gradient = steps(1)[0]
  pairs = pairs_of(after, 0)

  def loss(params):
    total = 0.0
    for end, other in (('learner', 1), ('guide', 0)):
      layer = params[end]['linear']
      x = ends(0)[end].taps['pooled'] @ layer['kernel']
      x = x + layer['bias'].reshape(1, -1)
      x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
      rows = before['bank'][other][pairs]
      p = jnp.exp(jnp.einsum('bd,bkd->bk', x, rows) / T)
      total += jnp.sum(losses.crd_nce(p / after['z'][1 - other], N))
    return total

  want = jax.jit(jax.grad(loss))(params)
  for path, x in jax.tree.leaves_with_path(want):
    assert np.any(x), path
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4),
    gradient,
    want,
  )


def test_there_are_no_more_negatives_than_other_examples():
  objective = objectives.crd(negatives=16384, same_class=True)
  now = dict(key=jax.random.key(0), epoch=0.0, epochs=1)
  inputs = dict(batch=batch_of(0), **now, **ends(0))

  def loss():
    params, memory = objective.init(KEY, examples=N, **ends(0))
    assert set(memory) == {'bank', 'z'}
    return objective.loss(params, memory, **inputs)[0]

  made = jax.make_jaxpr(loss)()
  assert f'f32[2,{B},{N}]' in str(made)  # a pair and N - 1 negatives
  assert '16384' not in str(made)


def test_bfloat16_features_are_embedded_in_float32():
  params, memory = start()
  low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), ends(0))
  value, after, gradient = step(
    params, memory, low, batch_of(0), jax.random.key(0)
  )
  assert value.dtype == after['bank'].dtype == jnp.float32
  assert np.all(np.isfinite(value))
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


# Embeddings, measured in mdistiller
# (https://github.com/megvii-research/mdistiller).
PUBLISHED = {
  ('resnet32x4', 'resnet8x4'): 65_792,
  ('resnet56', 'resnet20'): 16_640,
  ('wrn_40_2', 'wrn_16_2'): 33_024,
  ('wrn_40_2', 'wrn_40_1'): 24_832,
  ('vgg13', 'vgg8'): 131_328,
  ('resnet32x4', 'shufflenet_v1'): 155_904,
  ('resnet32x4', 'shufflenet_v2'): 164_096,
  ('wrn_40_2', 'shufflenet_v1'): 139_520,
  ('vgg13', 'mobilenet_v2'): 229_632,
  ('resnet50', 'mobilenet_v2'): 426_240,
  ('resnet50', 'vgg8'): 327_936,
}


@pytest.mark.parametrize(('guide', 'learner'), pairs(PUBLISHED))
def test_adds_the_published_number_of_parameters(guide, learner):
  crd = objectives.crd()

  def init(key, *, examples, **ends):
    del examples  # crd needs two at least
    return crd.init(key, examples=2, **ends)

  counted = base.Objective('crd', {}, init, crd.loss)
  assert parameters(counted, learner, guide) == PUBLISHED[guide, learner]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(negatives=0), 'crd: negatives must be a whole number of at least 1'),
    (dict(negatives=1.5), 'negatives must be a whole number .* got 1.5'),
    (dict(dim=0), 'crd: dim must be a whole number of at least 1, got 0'),
    (dict(temperature=0.0), 'crd needs a temperature above 0, got 0.0'),
    (dict(momentum=1.0), 'momentum must be .* from 0 to below 1, got 1.0'),
    (dict(momentum=np.nan), 'momentum must be .* got nan'),
    (dict(momentum='0.5'), "momentum must be .* got '0.5'"),
  ],
)
def test_wrong_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    objectives.crd(**settings)


def test_one_training_example_is_refused():
  with pytest.raises(
    ValueError, match='needs two training examples at least, got 1'
  ):
    OBJECTIVE.init(KEY, examples=1, **ends(0))


@pytest.mark.slow
def test_resume_is_bit_identical(tmp_path, monkeypatch):
  objective = dict(name='crd', dim=8, negatives=16)
  method = dict(name='distil', objective=objective, guide_weight=0.8)
  experiment = tiny.experiment(
    method=method, epochs=3, cache=str(tmp_path / 'cache')
  )

  def digest(folder):
    summary = Run(experiment, tmp_path / folder).finish()
    return summary['networks']['student']['params_sha256']

  want, save, saves = digest('whole'), checkpoint.Checkpoints.save, []

  def dying(self, state, record):
    if len(saves) == 1:
      raise KeyboardInterrupt
    saves.append(save(self, state, record))

  monkeypatch.setattr(checkpoint.Checkpoints, 'save', dying)
  with pytest.raises(KeyboardInterrupt):
    digest('interrupted')
  monkeypatch.undo()
  assert digest('interrupted') == want
