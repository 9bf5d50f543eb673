"""The evaluator on one split, with one device and with four."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from scipy.special import rel_entr, softmax

from jaxkd.data.base import Split
from jaxkd.metrics import reliability
from jaxkd.problems import CLASSIFICATION
from jaxkd.training import mesh as meshes
from jaxkd.training.evaluation import Evaluator

METRICS = {'top1', 'top5', 'nll', 'brier', 'ece'}


@dataclasses.dataclass
class Case:
  """Two networks, data with a known posterior, and the networks' logits."""

  dataset: object
  modules: list
  variables: list
  logits: list

  def networks(self, *order):
    return [x for n in order for x in (self.modules[n], self.variables[n])]

  def evaluator(self, devices, split=None):
    return Evaluator(
      split or self.dataset.test,
      self.dataset.view,
      CLASSIFICATION,
      meshes.make_mesh(jax.devices()[:devices]),
    )


@pytest.fixture(scope='module')
def case():
  experiment = tiny.experiment(student__width=2.0)
  program = experiment.phases[-1].program
  dataset = experiment.dataset
  rng = np.random.default_rng(0)
  posterior = rng.dirichlet(np.ones(3), len(dataset.test)).astype(np.float32)
  dataset = dataclasses.replace(
    dataset, test=dataclasses.replace(dataset.test, posterior=posterior)
  )
  names = 'student', 'teacher'
  modules = [program.modules[name] for name in names]
  variables = [
    jax.tree.map(
      lambda x: x + rng.normal(0, 0.05, x.shape).astype(np.float32),
      program.init_network(name, jax.random.key(0)),
    )
    for name in names
  ]
  image = (dataset.test.image / 255 - dataset.view.mean) / dataset.view.std
  logits = [
    np.asarray(module.apply(own, image.astype(np.float32)).logits, np.float64)
    for module, own in zip(modules, variables, strict=True)
  ]
  return Case(dataset, modules, variables, logits)


def without_posterior(case):
  return dataclasses.replace(case.dataset.test, posterior=None)


@pytest.mark.parametrize('devices', [1, 4])
def test_every_metric_is_numpys(case, devices):
  got = case.evaluator(devices)(*case.networks(0))
  label, posterior = case.dataset.test.label, case.dataset.test.posterior
  q = softmax(case.logits[0], -1)
  one_hot = np.eye(3)[label]
  want = {
    'top1': np.mean(q.argmax(-1) == label),
    'top5': 1.0,
    'nll': -np.mean(np.log(q[np.arange(21), label])),
    'brier': np.mean(np.sum((q - one_hot) ** 2, -1)),
    'posterior_square': np.mean(np.sum((q - posterior) ** 2, -1)),
    'posterior_kl': np.mean(np.sum(rel_entr(posterior, q), -1)),
  }
  assert set(got) == set(want) | {'ece'}
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, rtol=2e-4, err_msg=name)
  bins = np.ceil(15 * q.max(-1)).astype(int)
  gaps = (q.argmax(-1) == label) - q.max(-1)
  ece = sum(abs(gaps[bins == n].sum()) for n in set(bins)) / 21
  np.testing.assert_allclose(got['ece'], ece, rtol=2e-4)


@pytest.mark.parametrize('devices', [1, 4])
def test_two_networks_are_compared(case, devices):
  test = case.evaluator(devices)
  got = test.compare(*case.networks(0, 1), temperature=2.0)
  q, p = (softmax(z / 2, -1) for z in case.logits)
  assert set(got) == {'agreement', 'kl'}
  same = np.mean(q.argmax(-1) == p.argmax(-1))
  np.testing.assert_allclose(got['agreement'], same, rtol=1e-6)
  kl = np.mean(np.sum(rel_entr(p, q), -1))
  np.testing.assert_allclose(got['kl'], kl, rtol=2e-4)


def test_without_a_posterior_there_is_no_distance_to_it(case):
  test = case.evaluator(4, without_posterior(case))
  assert set(test(*case.networks(0))) == METRICS


def test_a_lazy_split_is_evaluated_like_one_in_memory(case):
  memory = without_posterior(case)
  image = memory.image
  split = Split(memory.label, load=lambda index, _: image[index])
  lazy = case.evaluator(4, split)
  want = case.evaluator(4, memory)(*case.networks(0))
  assert lazy(*case.networks(0)) == pytest.approx(want, rel=1e-6)


def test_reliability_is_of_the_whole_split(case):
  got = reliability(case.evaluator(4).totals(*case.networks(0)))
  filled = got['share'] > 0
  confidence = got['confidence'][filled] @ got['share'][filled]
  top1 = got['accuracy'][filled] @ got['share'][filled]
  assert got['share'].sum() == pytest.approx(1)
  want = softmax(case.logits[0], -1).max(-1).mean()
  np.testing.assert_allclose(confidence, want, rtol=1e-5)
  hits = case.logits[0].argmax(-1) == case.dataset.test.label
  np.testing.assert_allclose(top1, hits.mean(), rtol=1e-6)


@pytest.mark.parametrize('examples', [1, 10, 21, 1000])
def test_outputs_are_of_the_first_images(case, examples, monkeypatch):
  monkeypatch.setattr('jaxkd.training.evaluation.BATCH', 2)  # per device
  test = case.evaluator(4)
  got = test.outputs(*case.networks(0), examples)
  n = min(examples, 21)
  np.testing.assert_allclose(
    got.logits, case.logits[0][:n], rtol=1e-4, atol=1e-4
  )
  np.testing.assert_array_equal(got.labels, case.dataset.test.label[:n])
  assert set(got.taps) == {'pooled'} and len(got.taps['pooled']) == n
  for array in (got.logits, got.labels, got.taps['pooled']):
    assert isinstance(array, np.ndarray)


def test_taps_are_selected_by_name(case):
  test = case.evaluator(4)
  taps = test.outputs(*case.networks(0), 5, taps=('stage1', 'pooled')).taps
  module, variables = case.networks(0)
  image = case.dataset.test.image[:5] / 255
  view = case.dataset.view
  image = ((image - view.mean) / view.std).astype(np.float32)
  want = module.apply(variables, image).taps
  assert set(taps) == {'stage1', 'pooled'}
  for name, tap in taps.items():
    np.testing.assert_allclose(tap, want[name], rtol=1e-4, atol=1e-4)
  with pytest.raises(KeyError, match="no tap 'poold'. Did you mean 'pooled'"):
    test.outputs(*case.networks(0), 5, taps=('poold',))
