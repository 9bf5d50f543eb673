"""ONNX: what is computed for each primitive of JAX, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from programs import Wrapped, run

from jaxkd.interop import export
from jaxkd.interop.onnx_primitives import PRIMITIVES


def convolved(
  x, kernel=(3, 3, 2, 4), numbers=('NHWC', 'HWIO', 'NHWC'), **kwargs
):
  weights = np.random.default_rng(1).normal(size=kernel).astype(np.float32)
  arguments = {'window_strides': (1, 1), 'padding': 'VALID', **kwargs}
  return lax.conv_general_dilated(
    x, weights, dimension_numbers=numbers, **arguments
  )


def windowed(x, start, function):
  window, strides = (1, 3, 2, 1), (1, 2, 1, 1)
  padding = ((0, 0), (1, 1), (1, 0), (0, 0))
  return lax.reduce_window(x, start, function, window, strides, padding)


def compared(function):
  return lambda x: function(jnp.floor(x), 0.0 * x).astype(x.dtype)


def logical(function):
  return lambda x: function(x > 0, x < 0.5).astype(x.dtype)


def tokens(x):
  """A constant for each example, in front of what there is of it."""
  first = jnp.broadcast_to(jnp.ones((1, 1, 2)), (x.shape[0], 1, 2))
  return jnp.concatenate([first, x.reshape(x.shape[0], -1, 2)], axis=1)


# What needs a primitive, of images [b, 6, 5, 2] around 0.
NEEDS = {
  'abs': jnp.abs,
  'add': lambda x: x + 1.5,
  'and': logical(lax.bitwise_and),
  'argmax': lambda x: lax.argmax(x, 2, np.int32).astype(x.dtype),
  'argmin': lambda x: lax.argmin(x, 1, np.int32).astype(x.dtype),
  'broadcast_in_dim': tokens,
  'ceil': jnp.ceil,
  'clamp': lambda x: lax.clamp(-0.2, x, 0.3),
  'concatenate': lambda x: jnp.concatenate([x, x + 1], axis=3),
  'conv_general_dilated': convolved,
  'convert_element_type': lambda x: x.astype(np.int32).astype(x.dtype),
  'copy': jnp.copy,
  'cos': jnp.cos,
  'cumsum': lambda x: lax.cumsum(x, 1, reverse=True),
  'div': lambda x: x / (2 + x),
  'dot_general': lambda x: jnp.einsum('bhwc,bkwc->bwhk', x, x[:, :3]),
  'eq': compared(lax.eq),
  'erf': lax.erf,
  'erfc': lax.erfc,
  'exp': jnp.exp,
  'expm1': jnp.expm1,
  'floor': jnp.floor,
  'gather': lambda x: x[:, -2] + x[:, np.array([4])][:, 0],
  'ge': compared(lax.ge),
  'gt': compared(lax.gt),
  'integer_pow': lambda x: x**3,
  'le': compared(lax.le),
  'log': lambda x: jnp.log(jnp.abs(x)),
  'log1p': lambda x: jnp.log1p(jnp.abs(x)),
  'logistic': jax.nn.sigmoid,
  'lt': compared(lax.lt),
  'max': lambda x: jnp.maximum(x, 0.1),
  'min': lambda x: jnp.minimum(0.1, x),
  'mul': lambda x: x * x[:, :1],
  'ne': compared(lax.ne),
  'neg': jnp.negative,
  'not': lambda x: (~(x > 0)).astype(x.dtype),
  'or': logical(lax.bitwise_or),
  'pad': lambda x: lax.pad(
    x, 7.0, ((0, 0, 0), (1, 2, 0), (-1, 3, 0), (0, 0, 0))
  ),
  'pow': lambda x: jnp.abs(x) ** 1.7,
  'reduce_max': lambda x: jnp.max(x, axis=(1, 3)),
  'reduce_min': lambda x: jnp.min(x, axis=2, keepdims=True),
  'reduce_prod': lambda x: jnp.prod(x, axis=3),
  'reduce_sum': lambda x: jnp.mean(x, axis=(1, 2)),
  'reduce_window_max': lambda x: windowed(x, -jnp.inf, lax.max),
  'reduce_window_sum': lambda x: windowed(x, 0.0, lax.add),
  'reshape': lambda x: x.reshape(-1, 3, 20),
  'rev': lambda x: lax.rev(x, (1, 3)),
  'rsqrt': lambda x: lax.rsqrt(1 + jnp.abs(x)),
  'select_n': lambda x: jnp.where(x > 0, x, 3 * x),
  'sign': jnp.sign,
  'sin': jnp.sin,
  'slice': lambda x: lax.slice_in_dim(x, 1, 6, 2, axis=1),
  'sort': lambda x: jnp.sort(x, axis=1),
  'split': lambda x: jnp.split(x, (2, 3), axis=1)[2],
  'sqrt': lambda x: jnp.sqrt(jnp.abs(x)),
  'square': jnp.square,
  'squeeze': lambda x: lax.squeeze(lax.slice_in_dim(x, 2, 3, axis=1), (1,)),
  'stack': lambda x: jnp.stack([x, x + 1], axis=3),
  'stop_gradient': lax.stop_gradient,
  'sub': lambda x: 1 - x,
  'tanh': jnp.tanh,
  'transpose': lambda x: jnp.swapaxes(x, 1, 3),
}


def same(function, shape=(6, 5, 2)):
  """Asserts that ONNX Runtime computes what JAX does; returns the names."""
  pytest.importorskip('onnx')
  model = export.onnx(Wrapped(function), {}, shape)
  for batch in (1, 3):
    rng = np.random.default_rng(batch)
    x = rng.normal(size=(batch, *shape)).astype(np.float32)
    want, got = np.asarray(function(x)), run(model, x)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_every_primitive_is_tried():
  assert set(NEEDS) == set(PRIMITIVES)


@pytest.mark.parametrize('name', NEEDS)
def test_a_primitive_computes_in_onnx_what_it_does_in_jax(name):
  (batch,) = jax.export.symbolic_shape('batch')
  x = jax.ShapeDtypeStruct((batch, 6, 5, 2), np.float32)
  assert re.search(rf'= {name}\b', str(jax.make_jaxpr(NEEDS[name])(x)))
  same(NEEDS[name])


@given(
  strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
  padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
  dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
  groups=st.sampled_from([1, 2]),
  layout=st.sampled_from(['NHWC', 'NCHW']),
)
@settings(max_examples=8)
def test_convolutions_of_any_kind(strides, padding, dilation, groups, layout):
  same(
    lambda x: convolved(
      x if layout == 'NHWC' else jnp.moveaxis(x, 3, 1),
      (3, 2, 2 // groups, 4),
      (layout, 'HWIO', layout),
      window_strides=strides,
      padding=padding,
      rhs_dilation=dilation,
      feature_group_count=groups,
    )
  )


@pytest.mark.parametrize(
  'terms, its_shape',
  [
    ('bhwc,ck->bhwk', (2, 7)),
    ('bhwc,cjk->bhwjk', (2, 3, 4)),  # heads out
    ('bhwc,wck->bhk', (5, 2, 4)),  # heads in
    ('bhwc,whco->bwho', (5, 6, 2, 3)),  # groups
    ('bhwc,kc->kbhw', (3, 2)),
  ],
)
def test_products_of_any_kind(terms, its_shape):
  other = np.random.default_rng(2).normal(size=its_shape).astype(np.float32)
  same(
    lambda x: jnp.moveaxis(
      jnp.einsum(terms, x, other), terms.split('->')[1].index('b'), 0
    )
  )


def test_functions_within_functions_are_theirs_too():
  @jax.custom_vjp
  def twice(x):
    return 2 * x

  twice.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
  same(lambda x: jax.checkpoint(jax.jit(twice))(x) + jax.nn.gelu(x))
  same(lambda x: lax.switch(1, [jnp.sin, jnp.cos], x))


@pytest.mark.parametrize(
  'function, what',
  [
    (lambda x: lax.erf_inv(x), "the primitive 'erf_inv'"),
    (
      lambda x: lax.while_loop(lambda x: x[0, 0, 0, 0] < 1, lambda x: x + 1, x),
      'while',
    ),
    (
      lambda x: convolved(x, padding=((0, 0), (0, 0)), lhs_dilation=(2, 2)),
      'a transposed convolution',
    ),
    (lambda x: convolved(x, padding=((-1, 0), (0, 0))), r'padding .*-1'),
    (lambda x: x[:, np.array([0, 1]), np.array([1, 0])], 'more than one array'),
    (lambda x: x[:, jnp.argmax(jnp.max(x, (0, 1, 2)))], 'depend on the image'),
    (
      lambda x: jnp.mean(x, axis=0, keepdims=True) + x,
      "the primitive 'dim_as_value'",
    ),
    (lambda x: x[1:], 'a part of the batch'),
    (lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1)] * 2), 'between pixels'),
    (lambda x: lax.sort([x, x], num_keys=1)[1], 'sorting by another array'),
    (
      lambda x: lax.reduce_window(
        x, 0.0, lax.add, (1, 1, 1, 2), (1,) * 4, 'VALID'
      ),
      'a window over more than H and W',
    ),
    (
      lambda x: jnp.ones((2 * x.shape[0], 2)) + x.reshape(-1, 30)[:, :2],
      'the shape',
    ),
  ],
)
def test_what_onnx_cannot_express_is_refused(function, what):
  pytest.importorskip('onnx')
  with pytest.raises(
    ValueError, match=f'no translation to ONNX of .*{what}.*stablehlo'
  ):
    export.onnx(Wrapped(function), {}, (6, 5, 2))
