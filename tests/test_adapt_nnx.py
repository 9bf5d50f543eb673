"""Modules of nnx as networks: their arrays, outputs and training."""

import functools

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted import (
  IMAGE,
  KEY,
  SHAPE,
  assert_same,
  close,
  evaluate,
  init,
  network,
  train,
)
from flax import nnx

from jaxkd import models, tree


@functools.cache
def _module():
  return foreign.Nnx(1, 3, rngs=nnx.Rngs(KEY))


def module(train=False):
  """The nnx module that the network is made of, with the same arrays."""
  made = nnx.clone(_module())
  (made.train if train else made.eval)()
  return made


class TestNnx:
  """Modules of nnx."""

  def test_has_the_arrays_of_the_module(self):
    net, variables = network()
    own = module()
    params, stats = variables['params'], variables['batch_stats']
    for got, want in (
      (params['units']['1']['conv']['kernel'], own.units[1].conv.kernel),
      (params['offset'], own.offset),
      (stats['units']['0']['norm']['var'], own.units[0].norm.var),
    ):
      np.testing.assert_array_equal(got, want[...])
    assert len(tree.leaves(params)) == 11 and len(tree.leaves(stats)) == 4
    assert_same(variables, models.nnx_variables(own))
    assert tree.differences(variables, tree.shapes(net, SHAPE)) == []

  def test_arrays_are_written_back_into_the_module(self):
    _, variables = network()
    changed = jax.tree.map(lambda x: x + 1, variables)
    own = module()
    models.nnx_update(own, changed)
    assert_same(models.nnx_variables(own), changed)
    np.testing.assert_array_equal(own.table, np.arange(4))

  def test_has_the_outputs_of_the_module(self):
    net, variables = network()
    own = module()
    logits, taps = evaluate(net, variables)

    @nnx.jit
    def run(own):
      return own(IMAGE), own.units[0](IMAGE), own.head(taps['last'])

    outputs, unit, again = run(own)
    close(logits, outputs)
    close(again, outputs)
    close(taps['unit'], unit)
    np.testing.assert_array_equal(taps['conv'], taps['unit'])
    read = evaluate(models.wrap(net, 'clip'), variables).logits
    close(read, models.READ_OUTS['clip'](outputs))

  def test_learns_as_the_module_does(self):
    net, variables = network()
    own = module(train=True)

    @nnx.jit
    @functools.partial(nnx.grad, has_aux=True)
    def want(own):
      logits = own(IMAGE)
      return jnp.sum(logits**2), logits

    @functools.partial(jax.jit)
    @functools.partial(jax.grad, has_aux=True)
    def got(params):
      outputs, changed = train(net, {**variables, 'params': params})
      return jnp.sum(outputs.logits**2), (
        outputs.logits,
        changed['batch_stats'],
      )

    slope, logits = want(own)
    got_slope, (got_logits, stats) = got(variables['params'])
    close(got_logits, logits)
    kernel = slope['units'][0]['conv']['kernel'][...]
    assert np.max(np.abs(kernel)) > 1
    close(got_slope['units']['0']['conv']['kernel'], kernel, rtol=1e-4)
    moved = models.nnx_variables(own)['batch_stats']
    jax.tree.map(close, stats, moved)
    assert all(np.any(x) for x in jax.tree.leaves(moved))

  def test_dropout_depends_on_the_key_of_the_step(self):
    net, variables = network(rate=0.5)
    run = jax.jit(lambda key: train(net, variables, key)[0].logits)
    one, same, other = (np.asarray(run(jax.random.key(i))) for i in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert np.all(np.any(one != other, axis=1))
    plain = evaluate(net, variables).logits
    close(plain, evaluate(network()[0], network()[1]).logits)
    with pytest.raises(ValueError, match="apply it with rngs={'dropout': KEY}"):
      net.apply(variables, IMAGE, train=True, mutable=['batch_stats'])

  def test_classes_are_as_they_were(self):
    """Recording changes them, also where an error ends it."""
    calls = {kind: kind.__call__ for kind in (nnx.Linear, foreign.Unit)}
    net, variables = network()
    tree.shapes(net, SHAPE)
    with pytest.raises(ValueError, match='feature dimension'):
      jax.eval_shape(net.apply, variables, jnp.zeros((1, 4, 4, 2)))
    assert {kind: kind.__call__ for kind in calls} == calls
    assert '__call__' not in vars(foreign.Conv3)

  def test_a_function_can_make_it(self):
    for make in (foreign.by_rngs(3), lambda r: foreign.Nnx(1, 3, rngs=r)):
      assert_same(init(models.from_nnx(make, 3)), network()[1])

  def test_is_a_static_argument_by_value(self):
    one, two = (models.from_nnx(foreign.Nnx, 3, channels=1) for _ in 'ab')
    assert one == two and hash(one) == hash(two)
    assert one != models.from_nnx(foreign.Nnx, 3, channels=2)
