"""Networks in two parts are the networks; and what may not be folded is not.

The reference is the network as Flax applies it.
"""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from reparam_nets import SHAPE, random_variables
from test_models import SMALL
from test_reparam_catalogue import BRANCHED

from jaxkd import models, reparam, tree
from jaxkd.models import norms
from jaxkd.models.class_map import ClassMap
from jaxkd.models.ensemble import Ensemble, members
from jaxkd.models.own_input import Input, OwnInput
from jaxkd.models.read_out import ReadOut
from jaxkd.training import mesh as meshes
from jaxkd.types import Outputs

# Of the largest entry of the logits or of a tap, in float32.
TOLERANCE = 2e-6
LOOSE = {'efficientnet': 1e-5, 'rvt': 1e-5}  # sigmoids and softmax in between


def outputs(net, variables, image):
  """All that the step reads of a frozen network."""
  return norms.apply(net, variables, image)[0]


def logits(net, variables, image):
  return net.apply(variables, image, train=False).logits


def images(shape=SHAPE, count=4, seed=1):
  return jax.random.normal(jax.random.key(seed), (count, *shape))


def both(function, variables, *inputs):
  """Results of a function as it is and in two parts, and how many are folded.

  They are compiled together, which is quicker.
  """
  parts = reparam.two_parts(function, variables, *inputs)

  def run(variables, *inputs):
    values = parts.prepare(variables)
    return function(variables, *inputs), parts.run(values, *inputs)

  want, got = jax.jit(run)(variables, *inputs)
  return want, got, parts.folded


def check(function, variables, *inputs, tolerance=TOLERANCE):
  """Compares them; returns how many layers are folded."""
  want, got, folded = both(function, variables, *inputs)
  chex.assert_trees_all_equal_shapes_and_dtypes(want, got)
  for name, x in tree.leaves(want).items():
    x, y = (np.asarray(z, np.float32) for z in (x, tree.leaves(got)[name]))
    np.testing.assert_allclose(
      y, x, atol=tolerance * np.abs(x).max(), rtol=0, err_msg=name
    )
  return folded


@pytest.mark.parametrize('family', SMALL)
def test_every_family_has_the_same_logits_and_taps(family):
  net = SMALL[family]
  check(
    partial(outputs, net),
    random_variables(net),
    images(),
    tolerance=LOOSE.get(family, TOLERANCE),
  )


@pytest.mark.parametrize('family', ['resnet', 'vgg', 'mobilenet_v2'])
def test_branches_are_merged_beforehand(family):
  net = SMALL[family].clone(branches=6)
  variables = random_variables(net)
  check(partial(outputs, net), variables, images(), tolerance=1e-5)
  parts = reparam.two_parts(partial(logits, net), variables, images())
  values = jax.eval_shape(parts.prepare, variables)
  bare = random_variables(SMALL[family])
  plain = reparam.two_parts(partial(logits, SMALL[family]), bare, images())
  chex.assert_trees_all_equal_shapes(
    values, jax.eval_shape(plain.prepare, bare)
  )


@pytest.mark.parametrize('name', BRANCHED)
def test_every_batch_norm_after_a_layer_is_folded(name):
  """As many as `batch_norms_after` finds, by another way: by ids of arrays."""
  net, shape = models.build(name, num_classes=10), (64, 64, 3)
  variables, image = tree.shapes(net, shape), jnp.zeros((2, *shape))
  parts = reparam.two_parts(partial(logits, net), variables, image)
  found = len(reparam.batch_norms_after(net, shape))
  # There, the stem's output is the first block's shortcut, too.
  assert parts.folded == found - (name == 'wrn_16_1') > 0


@pytest.mark.parametrize('name', ['vit_tiny', 'deit_tiny_distilled', 'mlp'])
def test_networks_without_batch_norm_are_unchanged_bit_for_bit(name):
  net = models.build(name, num_classes=5)
  variables, image = tree.shapes(net, (32, 32, 3)), jnp.zeros((2, 32, 32, 3))
  parts = reparam.two_parts(partial(logits, net), variables, image)
  assert parts.folded == 0


def test_a_network_without_batch_norm_keeps_its_bits():
  net = SMALL['vit']
  want, got, _ = both(partial(outputs, net), random_variables(net), images())
  chex.assert_trees_all_equal(want, got)


def operations(parts, variables, *inputs):
  """Names of the operations of the second part."""
  values = jax.eval_shape(parts.prepare, variables)
  jaxpr = jax.make_jaxpr(parts.run)(values, *inputs)
  return [equation.primitive.name for equation in jaxpr.eqns]


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_second_part_neither_scales_nor_rounds_kernels(dtype):
  net = SMALL['resnet'].clone(dtype=jnp.dtype(dtype))
  variables = random_variables(net)
  parts = reparam.two_parts(partial(logits, net), variables, images())
  names = operations(parts, variables, images())
  assert 'mul' not in names and 'rsqrt' not in names
  casts = 2 if dtype == 'bfloat16' else 0  # of the image and of the last map
  assert names.count('convert_element_type') == casts
  kinds = [x.dtype for x in jax.eval_shape(parts.prepare, variables)]
  # Kernels and biases; those of the head are float32.
  assert kinds.count(jnp.dtype(dtype)) == len(kinds) - (casts and 2)


def test_bfloat16_is_as_exact_as_before():
  """The error against float32 does not grow: kernels are rounded once."""
  exact = SMALL['resnet']
  net, variables = exact.clone(dtype=jnp.bfloat16), random_variables(exact)
  x = images(count=64)
  want = jax.jit(partial(logits, exact))(variables, x)
  before, after, folded = both(partial(logits, net), variables, x)
  errors = [float(jnp.sqrt(jnp.mean((z - want) ** 2))) for z in (before, after)]
  assert folded == 10 and errors[1] < 1.2 * errors[0], errors


@pytest.mark.parametrize('family', ['resnet', 'shufflenet_v1'])
def test_a_batch_that_is_split_over_devices(family):
  net, mesh = SMALL[family], meshes.make_mesh()
  variables, x = random_variables(net), images(count=8)
  parts = reparam.two_parts(partial(logits, net), variables, x)
  want = jax.jit(partial(logits, net))(variables, x)
  values = jax.jit(parts.prepare)(variables)
  split = jax.device_put(x, NamedSharding(mesh, P('data')))
  got = jax.jit(parts.run)(jax.device_put(values, meshes.whole(mesh)), split)
  assert got.sharding.is_equivalent_to(split.sharding, 2)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_wrappers_and_ensembles_are_seen_through():
  nets = SMALL['resnet'], SMALL['mobilenet_v2']
  ensemble = Ensemble(nets)
  variables = members([random_variables(net) for net in nets])
  own = Input((16, 16, 1), (0.3,), (0.2,))
  wrapped = OwnInput(ensemble, Input(SHAPE, (0.0,), (1.0,)), own)
  wrapped = ClassMap(wrapped, ((0, 1), (2,), (3, 4)))
  wrapped = ReadOut(wrapped, 'clip')
  count = sum(
    check(partial(outputs, net), random_variables(net), images())
    for net in nets
  )
  assert check(partial(outputs, wrapped), variables, images()) == count


class Layers(nn.Module):
  """Layers of Flax as people write them; `how` is what is between them."""

  how: str

  @nn.compact
  def __call__(self, x, train=False):
    norm = partial(nn.BatchNorm, use_running_average=not train)
    x = nn.Conv(8, (3, 3), name='conv')(x)
    if self.how == 'twice':
      y = norm(name='a')(x) + norm(name='b')(x)
    elif self.how == 'skip':
      y = norm(name='a')(x) + x
    elif self.how == 'relu':
      y = norm(name='a')(nn.relu(x))
    elif self.how == 'rows':
      y = norm(name='a', axis=1)(x)
    elif self.how == 'map':
      y = x * self.param('map', nn.initializers.ones, (1, 8, 8, 1))
    elif self.how == 'gate':
      y = x * nn.sigmoid(jnp.mean(x, (1, 2), keepdims=True))
    elif self.how == 'rounded':
      y = norm(name='a')(x.astype(jnp.int32).astype(jnp.float32))
    else:
      y = norm(name='a')(x)
    return Outputs(
      jnp.mean(y, (1, 2)), {'conv': x} if self.how == 'tap' else {}
    )


class Standardised(nn.Conv):
  """A convolution whose kernel is divided by its deviation."""

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', self.kernel_init, (3, 3, x.shape[-1], 8))
    kernel /= jnp.std(kernel, (0, 1, 2), keepdims=True) + 1
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


class Sequence(nn.Module):
  """A layer, and a BatchNorm after it."""

  layer: nn.Module
  norm: nn.Module

  def __call__(self, x, train=False):
    return Outputs(self.norm(self.layer(x)).reshape(len(x), -1), {})


LAYERS = {
  'dense': nn.Dense(6),
  'transposed': nn.ConvTranspose(6, (3, 3), strides=(2, 2)),
  'grouped': nn.Conv(6, (3, 3), feature_group_count=3),
  'dilated': nn.Conv(6, (3, 3), kernel_dilation=2, use_bias=False),
  'one channel': nn.Conv(2, (1, 1)),
  'several axes': nn.DenseGeneral(6, axis=(-1,)),
  'standardised': Standardised(8, (3, 3)),
  'rematerialised': nn.remat(nn.Conv)(6, (3, 3)),
  'compiled': nn.jit(nn.Conv)(6, (3, 3)),
}
EVAL = nn.BatchNorm(use_running_average=True)


@pytest.mark.parametrize(
  'how', ['twice', 'skip', 'relu', 'rows', 'map', 'gate', 'rounded', 'tap']
)
def test_what_others_read_or_another_axis_scales_is_not_folded(how):
  net, image = Layers(how), images((8, 8, 3))
  variables = adapted_variables(net, image)
  assert check(partial(outputs, net), variables, image) == 0


def adapted_variables(net, image):
  """Random variables of any module."""
  variables = jax.jit(net.init)(jax.random.key(0), image)
  rng = np.random.default_rng(0)
  draw = {
    'var': partial(rng.uniform, 0.5, 2),
    'scale': partial(rng.uniform, -2, 2),
  }
  return jax.tree_util.tree_map_with_path(
    lambda path, x: np.float32(
      draw.get(path[-1].key, partial(rng.normal, 0, 0.5))(size=x.shape)
    ),
    variables,
  )


def test_a_batch_norm_of_flax_is_folded():
  net, image = Layers(''), images((8, 8, 3))
  assert check(partial(outputs, net), adapted_variables(net, image), image) == 1


@pytest.mark.parametrize('name', LAYERS)
def test_layers_of_flax_and_their_own_kernels(name):
  """The kernel is whatever the convolution gets, not the parameter's name."""
  net, image = Sequence(LAYERS[name], EVAL), images((8, 8, 6))
  assert check(partial(outputs, net), adapted_variables(net, image), image) == 1


def test_one_batch_norm_after_two_layers_is_folded_into_both():
  class Shared(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      norm = nn.BatchNorm(use_running_average=True)
      conv = nn.Conv(3, (3, 3), name='conv')
      return Outputs(norm(conv(nn.relu(norm(conv(x))))).mean((1, 2)), {})

  net, image = Shared(), images((8, 8, 3))
  assert check(partial(outputs, net), adapted_variables(net, image), image) == 2


def test_a_network_of_nnx_is_folded():
  class Net(nnx.Module):
    def __init__(self, num_classes, rngs):
      self.conv = nnx.Conv(3, num_classes, (3, 3), rngs=rngs)
      self.norm = nnx.BatchNorm(num_classes, rngs=rngs)

    def __call__(self, x):
      return self.norm(self.conv(x)).mean((1, 2))

  net, image = models.from_nnx(Net, 5), images((8, 8, 3))
  assert check(partial(outputs, net), adapted_variables(net, image), image) == 1


def test_an_adapted_network_with_a_tap_on_the_convolution():
  """The tap is what the convolution returns, so nothing is folded into it."""
  net, image = Layers(''), images((8, 8, 3))
  free = models.adapt(net, 8)
  tapped = models.adapt(net, 8, taps={'raw': 'conv'})
  variables = adapted_variables(free, image)
  assert check(partial(outputs, free), variables, image) == 1
  assert check(partial(outputs, tapped), variables, image) == 0
  assert check(partial(logits, tapped), variables, image) == 1


def test_callbacks_are_left_alone():
  def function(variables, x):
    y = jax.experimental.io_callback(np.sin, x, x, ordered=False)
    return (y @ variables['kernel']) * variables['scale']

  variables = {'kernel': np.ones((3, 2), np.float32), 'scale': np.float32(2)}
  x = images((3,))
  parts = reparam.two_parts(function, variables, x)
  got = parts.run(parts.prepare(variables), x)
  np.testing.assert_allclose(
    got, 2 * np.sin(x) @ variables['kernel'], rtol=1e-5
  )
  assert parts.folded == 0


def test_another_batch_size_is_refused():
  net = SMALL['mlp']
  variables = random_variables(net)
  parts = reparam.two_parts(partial(logits, net), variables, images())
  with pytest.raises(
    ValueError, match=r'float32\(4, 8, 8, 1\).*\(3, 8, 8, 1\)'
  ):
    parts.run(parts.prepare(variables), images(count=3))
