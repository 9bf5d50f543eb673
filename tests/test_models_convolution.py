"""Convolutions against XLA's in float64, and the programs that they become."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from reparam_nets import difference

from jaxkd.models import convolution as module
from jaxkd.models import winograd
from jaxkd.models.convolution import convolution
from jaxkd.models.layers import Conv

ONE, NONE = ((1, 1), (1, 1)), ((0, 0), (0, 0))


def normal(*shape, seed=0) -> Any:
  rng = np.random.default_rng(seed)
  return rng.normal(size=shape).astype(np.float32)


def both_ways(convolve):
  """Returns a function: (x, kernel, g) -> output and its gradients."""

  def run(x, kernel, g):
    y, pull_back = jax.vjp(convolve, x, kernel)
    return y, *pull_back(g)

  return run


def exact(x, kernel, g, stride, pads):
  """Output and gradients by XLA in float64."""
  by_xla = functools.partial(module._by_xla, stride=stride, pads=pads)
  with jax.enable_x64(True):
    arrays = [jnp.asarray(np.asarray(a, np.float64)) for a in (x, kernel, g)]
    return jax.device_get(jax.jit(both_ways(by_xla))(*arrays))


def arrays_of(batch, sides, size, stride, pads, channels):
  """Map, kernel and gradient of the output."""
  x, kernel = (batch, *sides, channels[0]), (size, size, *channels)
  spec = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x, kernel)]
  y = jax.eval_shape(
    functools.partial(module._by_xla, stride=stride, pads=pads), *spec
  )
  return normal(*x), normal(*kernel, seed=1), normal(*y.shape, seed=2)


# The programs, at sizes that the rule would leave to XLA


@pytest.mark.parametrize('tile', [(2, 2), (4, 4), (2, 4), (4, 2)])
@pytest.mark.parametrize('batch, sides', [(1, (4, 4)), (6, (8, 4))])
def test_winograd_is_exact(tile, batch, sides, monkeypatch):
  monkeypatch.setattr(winograd, 'CACHE', 2**12)  # several blocks
  x, kernel, g = arrays_of(batch, sides, 3, 1, ONE, (3, 5))
  want = exact(x, kernel, g, 1, ONE)
  forward: Any = functools.partial(winograd.winograd, tile=tile)
  by_map: Any = module._flipped(forward)
  with jax.enable_x64(True):  # the matrices have no rounding errors
    x, kernel, g = (jnp.asarray(a, jnp.float64) for a in (x, kernel, g))
    got = (
      jax.jit(forward)(x, kernel),
      jax.jit(by_map)(g, kernel),
      jax.jit(functools.partial(winograd.winograd_by_kernel, tile=tile))(x, g),
    )
  for a, b in zip(got, want, strict=True):
    assert difference(a, b) <= 1e-13


@pytest.mark.parametrize('count', [2, 4])
def test_neighbours_at_once_are_exact(count):
  x, kernel, g = arrays_of(2, (3, 8), 3, 1, ONE, (3, 5))
  got = module._neighbours(x, kernel, count)
  assert difference(got, exact(x, kernel, g, 1, ONE)[0]) <= 1e-6


# The rule


# 32 channels on 16 x 16 have a gradient by tiles; 64 on 8 x 8 everything; 16
# on 32 x 32 are computed by neighbours. The others are XLA's.
CASES = [
  # batch, sides, size, stride, pads, channels, programs that are not XLA's
  (4, (16, 16), 3, 1, ONE, (32, 32), (0, 0, 1)),
  (3, (8, 8), 3, 1, ONE, (64, 64), (1, 1, 1)),
  (1, (16, 16), 3, 1, ONE, (32, 64), (1, 1, 1)),
  (2, (4, 4), 3, 1, ONE, (256, 256), (1, 1, 1)),
  (2, (32, 32), 3, 1, ONE, (3, 16), (1, 1, 0)),
  (2, (32, 32), 3, 1, ONE, (16, 8), (1, 1, 0)),
  (2, (17, 16), 1, 2, NONE, (6, 5), (1, 1, 1)),
  (2, (1, 1), 1, 2, NONE, (3, 4), (0, 0, 0)),
  (2, (7, 7), 3, 1, ONE, (64, 64), (0, 0, 0)),
  (2, (1, 1), 3, 1, ONE, (64, 64), (0, 0, 0)),
  (2, (8, 8), 3, 2, ONE, (64, 64), (0, 0, 0)),
  (2, (8, 8), 3, 1, ((0, 0), (1, 1)), (64, 64), (0, 0, 0)),
  (2, (8, 8), 5, 1, ((2, 2), (2, 2)), (64, 64), (0, 0, 0)),
  (2, (5, 5), 1, 1, NONE, (8, 8), (0, 0, 0)),
]


@pytest.mark.parametrize(
  'batch, sides, size, stride, pads, channels, ours', CASES
)
def test_values_and_gradients_are_those_of_xla(
  batch, sides, size, stride, pads, channels, ours
):
  x, kernel, g = arrays_of(batch, sides, size, stride, pads, channels)
  program = module.program(x.shape, kernel.shape, stride, pads)
  assert [p is not None for p in program] == [bool(n) for n in ours]
  run = both_ways(lambda x, k: convolution(x, k, stride, pads))
  want = exact(x, kernel, g, stride, pads)
  for got in (jax.jit(run)(x, kernel, g), run(x, kernel, g)):
    for a, b in zip(got, want, strict=True):
      assert a.shape == b.shape
      assert difference(a, b) <= 1e-5


def test_the_demos_are_left_to_xla():
  """Their maps are 8 x 8, 4 x 4, 2 x 2; tiles would take long to compile."""
  for side, channels in ((8, 16), (8, 32), (4, 32), (4, 64), (2, 128)):
    shapes = (64, side, side, channels), (3, 3, channels, channels)
    assert module.program(*shapes, 1, ONE) == module.Program()
    shapes = (64, side, side, channels), (1, 1, channels, channels)
    assert module.program(*shapes, 2, NONE) == module.Program()


TILES = CASES[1][:6]  # everything by tiles


def test_bits_are_reproducible():
  arrays = arrays_of(*TILES)
  run = jax.jit(both_ways(lambda x, k: convolution(x, k, 1, ONE)))
  first, second = (jax.tree.leaves(run(*arrays)) for _ in range(2))
  for a, b in zip(first, second, strict=True):
    np.testing.assert_array_equal(a, b)


def test_vmap_equals_one_call_after_another():
  arrays = [np.stack([a, 2 - a]) for a in arrays_of(*TILES)]
  run = jax.jit(both_ways(lambda x, k: convolution(x, k, 1, ONE)))
  many = jax.jit(jax.vmap(run))(*arrays)
  for n in range(2):
    for a, b in zip(many, run(*(a[n] for a in arrays)), strict=True):
      assert difference(a[n], b) <= 1e-5


@pytest.mark.parametrize('case', [0, 1, 4, 6])
def test_second_gradients_are_those_of_xla(case):
  stride, pads = CASES[case][3:5]
  x, kernel, _ = arrays_of(*CASES[case][:6])

  def steepness(convolve, x, kernel):
    energy = lambda x, k: jnp.mean(
      convolve(x, k, stride=stride, pads=pads) ** 3
    )
    grads = jax.grad(energy, argnums=(0, 1))(x, kernel)
    return sum(jnp.sum(jnp.square(g)) for g in grads)

  got, want = (
    jax.jit(jax.grad(functools.partial(steepness, f), argnums=(0, 1)))
    for f in (convolution, module._by_xla)
  )
  for a, b in zip(got(x, kernel), want(x, kernel), strict=True):
    assert difference(a, b) <= 1e-5


def test_devices_share_the_batch_and_sum_the_kernel_gradient_once(monkeypatch):
  monkeypatch.setattr(winograd, 'CACHE', 2**18)  # several blocks on each device
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  whole = NamedSharding(mesh, PartitionSpec())
  split = NamedSharding(mesh, PartitionSpec('data'))
  arrays = arrays_of(16, *TILES[1:])
  run = both_ways(lambda x, k: convolution(x, k, 1, ONE))
  compiled = (
    jax.jit(
      run,
      in_shardings=(split, whole, split),
      out_shardings=(split, split, whole),
    )
    .lower(*arrays)
    .compile()
  )
  text = compiled.as_text() or ''
  outside = text[text.index('\nENTRY') :]  # of every loop
  assert ' while(' in outside
  assert text.count(' all-reduce(') == outside.count(' all-reduce(') == 1
  assert not re.search(' all-gather| all-to-all| collective-permute', text)
  together = compiled(*jax.device_put(arrays, (split, whole, split)))
  want = exact(*arrays, 1, ONE)
  for a, b in zip(together, want, strict=True):
    assert difference(a, b) <= 1e-5


def test_residuals_are_the_arguments_alone():
  x, kernel, _ = arrays_of(*TILES)
  _, pull_back = jax.vjp(lambda x, k: convolution(x, k, 1, ONE), x, kernel)
  kept = sum(leaf.size for leaf in jax.tree.leaves(pull_back))
  assert kept == x.size + kernel.size


# The lowered program


# What remains of the choice on one platform: cases with a single branch, of a
# constant, which XLA removes before anything else.
CHOICE = ('stablehlo.case', 'stablehlo.constant dense<0> : tensor<i32>')
CHOICE += ('stablehlo.constant dense<1> : tensor<i32>',)


def operations(text):
  """The operations of a program with their attributes and types, sorted."""
  text = re.sub(r' loc\(.*?\)', '', text)
  lines = re.findall(r'= "?(stablehlo\.\w+)"?(.*)', text)
  names = [name + re.sub(r'[%#]\w+', '', rest) for name, rest in lines]
  return sorted(name for name in names if not name.startswith(CHOICE))


def exported(run, platforms, arrays):
  specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
  return jax.export.export(jax.jit(run), platforms=platforms)(*specs)


@pytest.mark.parametrize('case', [0, 1, 4, 6])
@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
def test_other_platforms_have_the_program_of_xla(platform, case):
  stride, pads = CASES[case][3:5]
  arrays = arrays_of(*CASES[case][:6])
  ours, xla, on_cpu = (
    operations(exported(both_ways(run), [name], arrays).mlir_module())
    for run, name in (
      (lambda x, k: convolution(x, k, stride, pads), platform),
      (lambda x, k: module._by_xla(x, k, stride, pads), platform),
      (lambda x, k: convolution(x, k, stride, pads), 'cpu'),
    )
  )
  assert ours == xla != on_cpu
  assert any('stablehlo.convolution' in line for line in ours)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float64'])
def test_other_types_have_the_program_of_xla(dtype):
  with jax.enable_x64(dtype == 'float64'):
    arrays = [jnp.asarray(a, dtype) for a in arrays_of(*TILES)]
    ours, xla = (
      jax.jit(both_ways(run)).lower(*arrays).as_text()
      for run in (
        lambda x, k: convolution(x, k, 1, ONE),
        lambda x, k: module._by_xla(x, k, 1, ONE),
      )
    )
  assert operations(ours) == operations(xla)


def test_a_program_for_several_platforms_runs():
  arrays = arrays_of(*TILES)
  run = both_ways(lambda x, k: convolution(x, k, 1, ONE))
  got = exported(run, ['cpu', 'cuda', 'tpu'], arrays).call(*arrays)
  for a, b in zip(got, jax.jit(run)(*arrays), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_program_for_any_batch_is_that_of_xla():
  (batch,) = jax.export.symbolic_shape('b')
  x: Any = jax.ShapeDtypeStruct((batch, 8, 8, 64), jnp.float32)
  kernel = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)
  run = jax.jit(lambda x, k: convolution(x, k, 1, ONE))
  text = jax.export.export(run)(x, kernel).mlir_module()
  assert 'stablehlo.convolution' in text


@pytest.mark.parametrize('groups, tiles', [(1, True), (2, False)])
def test_layers_use_it(groups, tiles):
  conv = Conv(64, groups=groups)
  x = jax.ShapeDtypeStruct((2, 8, 8, 64), jnp.float32)
  params = jax.eval_shape(conv.init, jax.random.key(0), x)
  text = jax.jit(conv.apply).lower(params, x).as_text()
  assert ('stablehlo.convolution' not in text) == tiles


def test_branches_are_merged_before():
  x = normal(2, 8, 8, 64)
  conv = Conv(64, branches=6)
  variables = conv.init(jax.random.key(0), x)
  run = lambda v, x: conv.apply(v, x)
  ours = jax.jit(run)(variables, x)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(module, 'program', lambda *_: module.Program())
    want = jax.jit(lambda v, x: run(v, x))(variables, x)
  assert difference(ours, want) <= 1e-5
