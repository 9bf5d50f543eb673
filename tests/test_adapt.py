"""Networks that were not written for jaxkd: as they are, and with taps."""

import flax.linen as nn
import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted import IMAGE, KEY, SHAPE, assert_same, close, evaluate, init, train
from foreign import Fixed, Returning

from jaxkd import models, tree
from jaxkd.models.adapt import MODES


def switched(name: str) -> nn.Module:
  """A `Fixed` whose argument has another name."""
  scope = {'nn': nn, 'Fixed': Fixed}
  exec(f'def call(self, x, {name}): return Fixed()(x, {name})', scope)
  return type(
    'Flagged', (nn.Module,), {'__call__': nn.compact(scope['call'])}
  )()


def train_flag(net, train):
  return bool(net.apply({}, IMAGE, train=train).logits[0, 0])


class TestLinen:
  """Modules of Linen."""

  @pytest.mark.parametrize(
    ('module', 'mode', 'places'),
    [
      (foreign.Compact([4, 5]), 'training', ['Block_1', 'Block_0/Dense_0']),
      (foreign.Setup(), 'train', ['inner_1', 'inner_0/Dense_0', 'network']),
    ],
    ids=['compact', 'setup'],
  )
  def test_is_the_module_with_taps(self, module, mode, places):
    net = models.adapt(module, taps={place: place for place in places})
    variables = init(net)
    assert_same(variables, init(module, **{mode: False}))

    @jax.jit
    def run(variables):
      off, on = {mode: False}, {mode: True}
      seen = {'capture_intermediates': True, 'mutable': 'intermediates'}
      learn = {'mutable': ['batch_stats'], 'rngs': {'dropout': KEY}}
      return (
        module.apply(variables, IMAGE, **off, **seen),
        net.apply(variables, IMAGE),
        module.apply(variables, IMAGE, **on, **learn),
        train(net, variables),
      )

    (logits, state), got, learned, got_learned = run(variables)
    np.testing.assert_array_equal(got.logits, logits)
    for place in places:
      at = state['intermediates']
      for name in place.split('/'):
        at = at[name]
      np.testing.assert_array_equal(got.taps[place], at['__call__'][-1])
    np.testing.assert_array_equal(got_learned[0].logits, learned[0])
    assert_same(got_learned[1], learned[1])

  def test_a_tap_can_be_the_input_of_a_module(self):
    taps = {'pooled': 'head:input', 'again': 'network:input', 'made': 'network'}
    net = models.adapt(foreign.Setup(), taps=taps)
    variables = init(net)
    logits, taps = evaluate(net, variables)
    params = variables['params']
    for layer, before, after in (
      ('network', taps['again'], taps['made']),  # of its second call
      ('head', taps['pooled'], logits),
    ):
      kernel, bias = params[layer]['kernel'], params[layer]['bias']
      close(after, before @ kernel + bias[None])
    np.testing.assert_array_equal(taps['made'], taps['pooled'])

  def test_gradients_flow_through_taps(self):
    net = models.adapt(foreign.Setup(), taps={'deep': 'inner_1/Dense_0'})
    slope = jax.jit(
      jax.grad(lambda p: jnp.sum(net.apply({'params': p}, IMAGE).taps['deep']))
    )(init(net)['params'])
    moved = {
      name.split('/')[0] for name, x in tree.leaves(slope).items() if np.any(x)
    }
    assert moved == {'inner_0', 'inner_1'}

  def test_a_read_out_stands_on_top(self):
    """Also where both call a part by the same name."""
    net = models.adapt(foreign.Setup(), taps={'pooled': 'head:input'})
    read = models.wrap(net, 'clip')
    variables = init(read)
    assert_same(variables, init(net))
    plain, got = evaluate(net, variables), evaluate(read, variables)
    want = models.READ_OUTS['clip'](plain.logits)
    np.testing.assert_array_equal(got.logits, want)
    np.testing.assert_array_equal(got.taps['pooled'], plain.taps['pooled'])
    learned = train(read, variables)[0].logits
    np.testing.assert_array_equal(learned, plain.logits)

  @pytest.mark.parametrize('name', MODES)
  def test_arguments_of_the_train_flag_are_recognised(self, name):
    net = models.adapt(switched(name), num_classes=1)
    assert train_flag(net, train=True) == MODES[name]
    assert train_flag(net, train=False) != MODES[name]

  @pytest.mark.parametrize(
    ('mode', 'in_train_mode'),
    [('switch', True), ('not switch', False)],
  )
  def test_any_argument_can_be_the_train_flag(self, mode, in_train_mode):
    net = models.adapt(Fixed(), num_classes=1, mode=mode)
    assert train_flag(net, train=True) == in_train_mode
    assert train_flag(net, train=False) != in_train_mode

  @pytest.mark.parametrize('how', ['alone', 'first', 'outputs'])
  def test_logits_come_alone_or_first(self, how):
    net = models.adapt(Returning(how), taps={'tap': 'head'})
    outputs = evaluate(net, init(net))
    assert outputs.logits.dtype == jnp.float32
    assert outputs.taps['tap'].dtype == jnp.bfloat16
    np.testing.assert_array_equal(outputs.logits, outputs.taps['tap'])
    own = {'own'} if how == 'outputs' else set()
    assert set(outputs.taps) == {'tap', *own}

  def test_is_a_static_argument_by_value(self):
    """Although the module's attributes are lists."""
    taps = {'a': 'head'}
    one, two = (models.adapt(foreign.Compact([4]), taps=taps) for _ in 'ab')
    assert one == two and hash(one) == hash(two)
    assert one != models.adapt(foreign.Compact([5]), taps=taps)
    assert one != models.adapt(foreign.Compact([4]), taps={'b': 'head'})

  def test_has_the_attributes_of_the_module(self):
    wide = models.adapt(foreign.Wide(7, width=2, dtype=jnp.bfloat16))
    assert (wide.num_classes, wide.width, wide.dtype) == (7, 2, jnp.bfloat16)
    plain = models.adapt(foreign.Compact([4]), num_classes=3)
    got = (plain.num_classes, plain.width, plain.branches, plain.dtype)
    assert got == (3, 1, 1, jnp.float32)


class TestCatalogue:
  """Networks of the catalogue, with further taps."""

  def test_is_the_network_with_a_further_tap(self):
    plain = models.build('mlp', 3, width=1 / 8)
    taps = {'middle': 'hidden2:input'}
    more = models.build('mlp', 3, 'clip', taps, width=1 / 8)
    variables = init(more)
    assert_same(variables, init(plain))
    want, got = (evaluate(x, variables) for x in (plain, more.network))
    np.testing.assert_array_equal(got.logits, want.logits)
    assert set(got.taps) == {*want.taps, 'middle'}
    np.testing.assert_array_equal(got.taps['middle'], want.taps['stage1'])
    assert models.macs(more, SHAPE) == models.macs(plain, SHAPE)
    assert (more.how, more.width) == ('clip', 1 / 8)

  def test_settings_may_come_from_json(self):
    one, two = (models.build('mlp', 3, features=x) for x in ([8, 4], (8, 4)))
    assert one == two and hash(one) == hash(two)
