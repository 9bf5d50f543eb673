"""Networks that were not written for jaxkd: as they are, and with taps."""

import functools

import flax.linen as nn
import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxkd import models, tree
from jaxkd.models.adapt import MODES
from jaxkd.models.cost import of_layers, of_program
from jaxkd.types import Outputs

SHAPE = (4, 4, 1)
KEY = jax.random.key(0)
IMAGE = jax.random.normal(jax.random.key(1), (5, *SHAPE))

close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def init(net, **mode):
  return jax.jit(functools.partial(net.init, **mode))(KEY, IMAGE)


def evaluate(net, variables):
  return jax.jit(net.apply)(variables, IMAGE)


def train(net, variables, key=KEY):
  return net.apply(
    variables,
    IMAGE,
    train=True,
    mutable=['batch_stats'],
    rngs={'dropout': key},
  )


def assert_same(got, wanted):
  assert tree.digest(got) == tree.digest(wanted)


class Fixed(nn.Module):
  """Returns the value of the train flag as logits of one class."""

  @nn.compact
  def __call__(self, x, switch):
    return jnp.full((len(x), 1), switch, jnp.float32)


def switched(name: str) -> nn.Module:
  """A `Fixed` whose argument has another name."""
  scope = {'nn': nn, 'Fixed': Fixed}
  exec(f'def call(self, x, {name}): return Fixed()(x, {name})', scope)
  return type(
    'Flagged', (nn.Module,), {'__call__': nn.compact(scope['call'])}
  )()


def train_flag(net, train):
  return bool(net.apply({}, IMAGE, train=train).logits[0, 0])


class Returning(nn.Module):
  """Returns logits in one of the ways that there are."""

  how: str
  num_classes: int = 2

  @nn.compact
  def __call__(self, x):
    logits = nn.Dense(2, dtype=jnp.bfloat16, name='head')(x[:, 0, 0])
    ways = {
      'alone': logits,
      'first': (logits, x),
      'outputs': Outputs(logits, {'own': x}),
    }
    return ways[self.how]


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


@functools.cache
def network(rate=0.0):
  """An nnx network with taps, and its variables."""
  taps = {'unit': 'units/0', 'conv': 'units/1/conv:input', 'last': 'head:input'}
  net = models.from_nnx(foreign.Nnx, 3, taps, channels=1, rate=rate)
  return net, init(net)


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


def unit_macs(inputs):
  return 16 * (9 * inputs * 4)


class TestMacs:
  """Multiply-accumulates, in Linen and in nnx."""

  def test_layers_are_counted(self):
    compact = models.adapt(foreign.Compact([4, 5]))
    assert models.macs(compact, SHAPE) == 16 * 4 + 4 * 5 + 5 * 3
    want = unit_macs(1) + unit_macs(4) + 4 * 3
    assert models.macs(network()[0], SHAPE) == want
    assert models.macs(models.wrap(network()[0], 'clip'), SHAPE) == want

  def test_products_outside_of_layers_are_counted(self):
    class Own(nn.Module):
      num_classes: int = 3

      @nn.compact
      def __call__(self, x):
        kernel = self.param('kernel', nn.initializers.ones, (2, 2, 1, 4))
        mix = self.param('mix', nn.initializers.ones, (4, 4))
        numbers = ('NHWC', 'HWIO', 'NHWC')
        x = jax.lax.conv_general_dilated(
          x, kernel, (2, 2), 'SAME', dimension_numbers=numbers
        )
        tokens = x.reshape(len(x), 4, 4)
        # The next two have no parameters, or no image.
        tokens = jnp.einsum('bnd,bmd,bme->bne', tokens, tokens, tokens)
        mix = mix @ mix

        def layer(tokens, _):
          return jnp.tanh(jax.checkpoint(lambda t: t @ mix)(tokens)), None

        tokens, _ = jax.lax.scan(layer, tokens, length=3)
        return nn.Dense(3)(tokens[:, 0])

    convolution, layers, head = 4 * (2 * 2 * 4), 3 * (4 * 4 * 4), 4 * 3
    net = models.adapt(Own())
    assert models.macs(net, SHAPE) == convolution + layers + head

  @pytest.mark.parametrize(
    ('name', 'settings', 'shape'),
    [
      ('resnet8', {}, (32, 32, 3)),
      ('vit_tiny', {'patch': 4}, (8, 8, 3)),
      ('mlp', {}, SHAPE),
    ],
  )
  def test_both_counts_agree(self, name, settings, shape):
    """That of layers is compared with published numbers elsewhere."""
    net = models.build(name, 10, **settings)
    assert of_program(net, shape) == of_layers(net, shape) > 0


class Cached(nn.Module):
  """Has a collection that is no network's."""

  num_classes: int = 1

  @nn.compact
  def __call__(self, x):
    self.variable('cache', 'last', jnp.zeros, ())
    return x[:, 0, 0]


class Normed(nn.Module):
  """Has no argument for the train flag."""

  num_classes: int = 1

  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=True)(x)[:, 0, 0]


class Scanned(nn.Module):
  """Has its layers in a scan."""

  num_classes: int = 1

  @nn.compact
  def __call__(self, x):
    class Layer(nn.Module):
      @nn.compact
      def __call__(self, x, _):
        return nn.Dense(1)(x), None

    scan = nn.scan(
      Layer, variable_axes={'params': 0}, split_rngs={'params': True}, length=2
    )
    return scan(name='layers')(x[:, 0, 0], None)[0]


class Holder(nn.Module):
  """Has a part that returns a pair."""

  num_classes: int = 2

  @nn.compact
  def __call__(self, x):
    return Returning('first', name='pair')(x)


class Buffered(nnx.Module):
  """Has a variable that is no network's."""

  def __init__(self, rngs):
    del rngs
    self.mean = nnx.Variable(jnp.zeros(()))

  def __call__(self, x):
    return x[:, 0, 0]


class TestMistakes:
  """What is refused, and with which words."""

  @pytest.mark.parametrize(
    ('make', 'message'),
    [
      (lambda: models.adapt(foreign.Nnx), 'takes a Linen module, .* from_nnx'),
      (lambda: models.adapt(Fixed()), 'no attribute num_classes: pass'),
      (
        lambda: models.adapt(Fixed(), 1),
        "needs 'switch' in addition to the image: pass mode='switch'",
      ),
      (
        lambda: models.adapt(Fixed(), 1, mode='swich'),
        "Fixed.__call__ takes no 'swich'. Did you mean 'switch'",
      ),
      (
        lambda: models.adapt(foreign.Compact([4]), taps={'a': 'head:out'}),
        "tap 'a' must be the path of a module",
      ),
      (lambda: models.from_nnx(foreign.made(3), 3), 'nnx_variables returns'),
    ],
  )
  def test_mistakes_are_refused_when_it_is_made(self, make, message):
    with pytest.raises(ValueError, match=message):
      make()

  @pytest.mark.parametrize(
    ('net', 'message'),
    [
      (
        lambda: models.adapt(foreign.Compact([4]), taps={'a': 'Block_1'}),
        "tap 'a': Compact has no module 'Block_1'. Did you mean 'Block_0'",
      ),
      (
        lambda: models.from_nnx(
          foreign.Nnx, 3, {'a': 'units/2/conv'}, channels=1
        ),
        "Nnx has no module 'units/2/conv'. Did you mean 'units/1/conv'",
      ),
      (
        lambda: models.adapt(Scanned(), taps={'a': 'layers/Dense_0'}),
        "the values in 'layers/Dense_0' stay inside a transformation",
      ),
      (
        lambda: models.adapt(Holder(), taps={'a': 'pair'}),
        "tap 'a': pair:output must be an array, got a tuple",
      ),
      (
        lambda: models.adapt(Returning('outputs'), taps={'own': 'head'}),
        "Returning already has a tap 'own'",
      ),
      (
        lambda: models.adapt(foreign.Compact([4]), num_classes=5),
        r'must return logits \[B, 5\], .* got an array \(1, 3\)',
      ),
      (lambda: models.adapt(Cached()), "in the collection 'cache'"),
      (lambda: models.adapt(Normed()), 'but its __call__ takes none of train'),
      (
        lambda: models.from_nnx(Buffered, 1),
        "Buffered has the nnx.Variable 'mean'",
      ),
      (
        lambda: models.from_nnx(lambda rngs: None, 1),
        'must return an nnx.M',
      ),
    ],
  )
  def test_mistakes_are_refused_by_check(self, net, message):
    with pytest.raises((KeyError, ValueError), match=message):
      models.check(net(), SHAPE, train=False)

  def test_statistics_can_be_left_alone(self):
    models.check(models.adapt(Normed(), mode=''), SHAPE, train=True)
