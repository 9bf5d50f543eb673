"""Public functions take the variables that a Flax module's `init` returns.

Without a BatchNorm, as in transformers, they have no 'batch_stats'.
"""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from objective_inputs import FAMILIES, KEY

from jaxkd import checkpoints, models, reparam, tree
from jaxkd.graph import Frozen, Graph, Learner, Transfer
from jaxkd.graph.program import bind, predict
from jaxkd.interop import export
from jaxkd.interop import torch as interop_torch
from jaxkd.objectives import make
from jaxkd.training import state as states

SHAPE = (16, 16, 3)
MODEL, SETTINGS = 'mlp', {'features': (4,)}
QUICK = ('mlp128', 'resnet8', 'vit_tiny')


@functools.cache
def without_statistics():
  net = models.build(MODEL, 3, **SETTINGS)
  variables = dict(jax.jit(net.init)(KEY, jnp.zeros((1, *SHAPE))))
  assert variables.keys() == {'params'}
  return net, variables


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in FAMILIES
  ],
)
def test_the_snippet_on_growing_works_for_every_family(name):
  image = jnp.zeros((1, 32, 32, 3))
  small, large = (models.build(name, 10, width=w) for w in (1, 2))
  plan = reparam.make_plan(small, large, input_shape=image.shape[1:])

  def snippet(image):
    variables = small.init(KEY, image)
    wide = reparam.expand(variables, plan)
    large.apply(wide, image)
    return variables['params'], reparam.extract(wide['params'], plan)

  params, extracted = jax.eval_shape(snippet, image)
  assert tree.leaves(params) == tree.leaves(extracted)


def test_branches_of_a_network_without_statistics():
  net, variables = without_statistics()
  merged = reparam.merge(reparam.add_branches(variables, variables))
  folded = reparam.fold_biases(merged, net, SHAPE, 'the network')
  image = jnp.ones((1, *SHAPE))
  assert jnp.allclose(
    predict(net, folded, image).logits, predict(net, variables, image).logits
  )


def test_checkpoints_of_a_network_without_statistics(tmp_path):
  _, variables = without_statistics()
  card = checkpoints.card_of(MODEL, variables, 3, SHAPE, **SETTINGS)
  checkpoints.save(tmp_path / 'saved', variables, card)
  checkpoints.save_pretrained(
    tmp_path / 'pretrained', MODEL, variables, 3, SHAPE, **SETTINGS
  )
  for name in ('saved', 'pretrained'):
    loaded = checkpoints.load(tmp_path / name)
    assert loaded.card == card
    assert tree.digest(loaded.module_variables()) == card.params_sha256
  assert tree.leaves(
    checkpoints.SavedNetwork(variables, card).module_variables()
  )


def test_files_of_a_network_without_statistics():
  net, variables = without_statistics()
  state_dict = interop_torch.to_state_dict(MODEL, variables, **SETTINGS)
  assert 'hidden1.weight' in state_dict
  assert export.stablehlo(net, variables, SHAPE)


def test_a_state_that_starts_from_a_network_without_statistics():
  net, variables = without_statistics()
  graph = Graph(
    {'teacher': Frozen(), 'student': Learner()},
    (Transfer('teacher', 'student', make('kd')),),
  )
  program = bind(graph, lambda *_: net, SHAPE)
  state = jax.eval_shape(
    lambda initial: states.init(
      program, optax.sgd(0.1), KEY, initial, examples=4, ema=True
    ),
    {'teacher': variables, 'student': variables},
  )
  assert state.stats == {'teacher': {}, 'student': {}}
