"""Networks small enough to be expanded in a test, and their random arrays.

One of each family of jaxkd.models, and modules of flax's own layers for what
the families lack. The latter compute in the type of their arrays, so that they
can be float64.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from model_counts import FIXED
from test_models import SMALL

from jaxkd import reparam, tree
from jaxkd.models.layers import Conv
from jaxkd.types import Outputs

FAMILIES = sorted(set(SMALL) - FIXED)
SHAPE = (8, 8, 1)
CLASSES = 5
POSITIONS = 16  # pixels of the map that is flattened


def family(name, width=1, branches=1):
  """The small network of a family, wider or with branches."""
  net = SMALL[name]
  return net.clone(width=net.width * width, branches=branches)


def logits(outputs):
  """Logits of a network of ours, or of flax's layers alone."""
  return outputs.logits if isinstance(outputs, Outputs) else outputs


def norm(train, name):
  return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)


def by_replica(x, width, *sizes):
  """Splits [..., width * C] into replicas and these axes of C."""
  return x.reshape(*x.shape[:-1], width, *sizes)


class Mixed(nn.Module):
  """Convolutions dense, depthwise and strided, sums, BatchNorm, LayerNorm."""

  width: float = 1
  layer_norm: bool = True

  @nn.compact
  def __call__(self, x, train=False):
    c, d = round(4 * self.width), round(6 * self.width)
    x = nn.relu(norm(train, 'norm0')(nn.Conv(c, (3, 3), name='first')(x)))
    y = nn.Conv(c, (3, 3), feature_group_count=c, name='depthwise')(x)
    x = x + nn.gelu(norm(train, 'norm1')(y))
    y = nn.Conv(d, (3, 3), strides=2, name='middle')(x)
    y = norm(train, 'norm2')(y)
    y += nn.Conv(d, (1, 1), strides=2, use_bias=False, name='shortcut')(x)
    y = y.mean((1, 2))
    y = nn.LayerNorm(name='norm3')(y) if self.layer_norm else y
    y = nn.gelu(nn.Dense(2 * d, name='hidden')(y))
    return nn.Dense(CLASSES, name='head')(y)


class Attentive(nn.Module):
  """Patches, class token and positions, flax's attention, LayerNorm."""

  width: int = 1

  @nn.compact
  def __call__(self, x, train=False):
    d = 5 * self.width
    x = nn.Conv(d, (4, 4), strides=4, name='embed')(x).reshape(len(x), -1, d)
    init = nn.initializers.normal(1.0)
    first = self.param('cls', init, (1, 1, d))
    x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, d)), x], axis=1)
    x = x + self.param('pos_embedding', init, (1, x.shape[1], d))
    heads = 2 * self.width
    attention = nn.MultiHeadDotProductAttention(
      heads, qkv_features=3 * heads, name='attention'
    )
    x = x + attention(nn.LayerNorm(name='norm0')(x))
    return nn.Dense(CLASSES, name='head')(nn.LayerNorm(name='norm1')(x)[:, 0])


class Joined(nn.Module):
  """A concatenation of 3 and 2 channels, then BatchNorm and a convolution."""

  width: int = 1
  replicas: bool = True

  @nn.compact
  def __call__(self, x, train=False):
    w = self.width
    a = nn.Conv(3 * w, (3, 3), name='left')(x)
    b = nn.Conv(2 * w, (1, 1), name='right')(x)
    if self.replicas:
      both = [by_replica(a, w, 3), by_replica(b, w, 2)]
      x = jnp.concatenate(both, axis=-1).reshape(*x.shape[:-1], 5 * w)
    else:
      x = jnp.concatenate([a, b], axis=-1)
    x = nn.relu(norm(train, 'joined')(x))
    x = nn.relu(nn.Conv(4 * w, (3, 3), name='reader')(x))
    return nn.Dense(CLASSES, name='head')(x.mean((1, 2)))


JOINED_RULES = (
  reparam.Rule('reader/kernel', '- - in out', pieces=((2, (3, 2)),)),
  reparam.Rule('joined/', 'out', pieces=((0, (3, 2)),)),
  *reparam.RULES,
)


class Flat(nn.Module):
  """A map that is flattened, channels behind positions, for a linear layer."""

  width: int = 1
  replicas: bool = True

  @nn.compact
  def __call__(self, x, train=False):
    w = self.width
    x = nn.relu(nn.Conv(3 * w, (3, 3), strides=2, name='first')(x))
    if self.replicas:
      x = jnp.moveaxis(by_replica(x, w, 3), -2, 1)
    x = nn.relu(nn.Dense(4 * w, name='hidden')(x.reshape(len(x), -1)))
    return nn.Dense(CLASSES, name='head')(x)


FLAT_RULES = (
  reparam.Rule('hidden/kernel', 'in out', pieces=((0, (3,) * POSITIONS),)),
  *reparam.RULES,
)


class Unusual(nn.Module):
  """Shuffle, groups, PReLU, GroupNorm, SE gate, LayerScale, transposed."""

  width: int = 1

  @nn.compact
  def __call__(self, x, train=False):
    w, c = self.width, 8 * self.width
    x = shape = nn.Conv(c, (3, 3), name='first')(x)
    x = jnp.swapaxes(by_replica(x, w, 2, 4), -1, -2).reshape(shape.shape)
    x = nn.Conv(c, (3, 3), feature_group_count=2 * w, name='grouped')(x)
    slope = self.param('negative_slope', nn.initializers.ones, (c,))
    x = jnp.where(x > 0, x, x * slope[None, None, None])
    x = nn.GroupNorm(num_groups=4 * w, name='norm')(x)
    gate = nn.silu(nn.Dense(3 * w, name='squeeze')(x.mean((1, 2))))
    gate = nn.sigmoid(nn.Dense(c, name='excite')(gate))
    gamma = self.param('gamma', nn.initializers.ones, (c,))
    x = shape + x * gate[:, None, None] * gamma[None, None, None]
    x = nn.ConvTranspose(6 * w, (3, 3), strides=(2, 2), name='up')(x)
    return nn.Dense(CLASSES, name='head')(nn.relu(x).mean((1, 2)))


MODULES = {  # width -> network, and the rules of the plan
  'mixed': (Mixed, reparam.RULES),
  'attentive': (Attentive, reparam.RULES),
  'joined': (Joined, reparam.RULES),
  'joined as it is': (
    functools.partial(Joined, replicas=False),
    JOINED_RULES,
  ),
  'flat': (Flat, reparam.RULES),
  'flat as it is': (functools.partial(Flat, replicas=False), FLAT_RULES),
  'unusual': (Unusual, reparam.RULES),
}


class Branched(nn.Module):
  """Two convolutions that can have branches, and a depthwise one; no ReLU at
  the end. `normed` puts flax's BatchNorm behind each."""

  width: float = 1
  branches: int = 1
  normed: bool = True
  dtype: type = jnp.float32
  bias: bool = False
  classes: int = CLASSES

  @nn.compact
  def __call__(self, x, train=False):
    c, d = round(4 * self.width), round(6 * self.width)
    sizes = {'first': (c, 1), 'middle': (d, 1), 'depthwise': (d, d)}
    for name, (features, groups) in sizes.items():
      x = Conv(
        features,
        groups=groups,
        use_bias=self.bias,
        branches=self.branches,
        dtype=self.dtype,
        name=name,
      )(x)
      if self.normed:
        x = nn.relu(norm(train, f'norm_{name}')(x))
    pooled = x.mean((1, 2))
    head = nn.Dense(self.classes, name='head')
    return Outputs(head(pooled), {'pooled': pooled})


def images(batch=3, dtype=np.float32, seed=0):
  """Random images [B, 8, 8, 1]."""
  return np.random.default_rng(seed).normal(size=(batch, *SHAPE)).astype(dtype)


@functools.cache
def shapes(net):
  """The shapes of 'params' and 'batch_stats'."""
  image = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
  return {'batch_stats': {}} | jax.eval_shape(
    net.init, jax.random.key(0), image
  )


def frequency(k, outputs):
  """The fixed filter [k, k, O], one entry after the other."""
  filters = np.zeros((k, k, outputs))
  for h, w, o in np.ndindex(k, k, outputs):
    if o < outputs // 2:
      filters[h, w, o] = math.cos(math.pi * (h + 0.5) * (o + 1) / 3)
    else:
      place = o + 1 - outputs // 2
      filters[h, w, o] = math.cos(math.pi * (w + 0.5) * place / 3)
  return filters


def random_variables(net, seed=0, dtype=np.float32):
  """Every parameter and statistic at random; constants are kept.

  Of a wide network only the parameters and statistics are of use: its constants
  are copies of the narrow network's, divided.
  """
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name, shape = path[-1].key, leaf.shape
    if name == 'identity':
      array = np.tile(np.eye(shape[0]), (1, shape[1] // shape[0]))
    elif name == 'frequency':
      array = frequency(shape[0], shape[-1])
    elif name in ('scale', 'gamma', 'var', 'negative_slope', 'branch_scale'):
      array = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
      array = rng.normal(size=shape) / math.sqrt(math.prod(shape[:-1]))
    else:
      array = rng.normal(size=shape) / 4
    return array.astype(dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes(net))


def copied(variables, plan):
  """What `reparam.expand` returns, by NumPy, for axes of one piece each."""

  def widen(array, axes):
    array = np.asarray(array, np.float64)
    for i, axis in enumerate(axes):
      (narrow,), (wide,) = axis.narrow, axis.wide
      places = np.arange(wide) % narrow
      array = np.take(array, places, axis=i)
      if axis.is_input:
        times = np.bincount(places)[places]
        array = array / times.reshape(
          [-1 if j == i else 1 for j in range(array.ndim)]
        )
    return array.astype(np.float32)

  collections = {}
  for part, leaves in (('params', plan.params), ('batch_stats', plan.stats)):
    named = tree.leaves(variables[part])
    collections[part] = tree.from_leaves(
      {path: widen(named[path], leaf.axes) for path, leaf in leaves.items()}
    )
  return collections


def difference(got, want):
  """The largest difference of arrays, in units of the largest entry."""
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  assert got.shape == want.shape
  return np.max(np.abs(got - want)) / max(np.max(np.abs(want)), 1e-30)


def compiled(function):
  """The function under jit: quickly compiled, and with all of its digits."""
  quick = jax.jit(
    function, compiler_options={'xla_backend_optimization_level': 0}
  )

  def call(*args):
    with jax.default_matmul_precision('highest'):
      return quick(*args)

  return call


def forward(net, train=False):
  """(variables, image) -> logits; in train mode, logits and statistics."""
  if not train:
    return lambda variables, image: logits(net.apply(variables, image))

  def apply(variables, image):
    outputs, moved = net.apply(
      variables, image, train=True, mutable=['batch_stats']
    )
    return logits(outputs), moved.get('batch_stats', {})

  return apply
