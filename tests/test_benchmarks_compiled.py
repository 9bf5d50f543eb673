"""What is read from compiled programs, and bounds from jaxprs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks import hlo, on_gpu, roofline
from benchmarks.compiled import CHIPS
from jaxkd.models import layers

TEXT = """HloModule jit_f, input_output_alias={ {0}: (0, {}, may-alias), \
{1}: (1, {}, must-alias) }, entry_computation_layout={()}

%fused_computation (p.0: u8[50,12], p.1: s32[2]) -> bf16[2,12] {
  %p.0 = u8[50,12]{1,0:T(8,128)(4,1)} parameter(0)
  %p.1 = s32[2]{0} parameter(1)
  %gather.1 = u8[2,12]{1,0} gather(%p.0, %p.1), slice_sizes={1,12}
  ROOT %convert.1 = bf16[2,12]{1,0} convert(%gather.1)
}

%body (arg: (s32[], u8[50,12], s32[2], f32[3])) -> (s32[], u8[50,12]) {
  %arg = (s32[], u8[50,12]{1,0}, s32[2]{0}, /*index=3*/f32[3]{0}) parameter(0)
  %gte.0 = u8[50,12]{1,0} get-tuple-element(%arg), index=1
  %gte.1 = s32[2]{0} get-tuple-element(%arg), index=2
  %fusion.1 = bf16[2,12]{1,0} fusion(%gte.0, %gte.1), kind=kLoop, \
calls=%fused_computation
  %conv.1 = (bf16[2,4]{1,0}, u8[0]{0}) custom-call(%fusion.1, %fusion.1), \
dim_labels=bf_io->bf, custom_call_target="__cudnn$convForward"
  %all-reduce-start.1 = f32[3]{0} all-reduce-start(%gte.1), to_apply=%body.2
  %all-reduce-done.1 = f32[3]{0} all-reduce-done(%all-reduce-start.1)
  ROOT %tuple.1 = (s32[], u8[50,12]{1,0}) tuple(%gte.1, %gte.0)
}

ENTRY %main (a.1: u8[50,12]) -> u8[50,12] {
  %a.1 = u8[50,12]{0,1} parameter(0)
  %copy.1 = u8[50,12]{1,0} copy(%a.1)
  %tuple.2 = (s32[], u8[50,12]{1,0}) tuple(%copy.1, %copy.1)
  ROOT %while.1 = (s32[], u8[50,12]{1,0}) while(%tuple.2), condition=%c, \
body=%body, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def test_a_program_is_read_from_its_text():
  program = hlo.parse(TEXT)
  assert (program.entry, program.body, program.trips) == ('main', 'body', 7)
  assert program.aliases == 2
  kernels = program.kernels(program.body)
  assert [x.opcode for _, x in kernels] == [
    'fusion',
    'custom-call',
    'all-reduce-start',
  ]
  assert [(n, x) for n, _, x in program.in_loops()] == [
    (7, x) for _, x in kernels
  ]
  assert len(program.calls('__cudnn')) == 1
  assert program.collectives()['all-reduce'] == 1
  assert [x.name for x in program.large(600)] == ['copy.1']
  # Two rows of 12 bytes, two indices, and 2 x 12 results of two bytes.
  assert program.moved(*kernels[0]) == 24 + 8 + 48


def test_a_compiled_program_has_its_loop_and_its_aliases():
  def f(x):
    return lax.scan(lambda x, _: (jnp.sin(x) @ x, None), x, length=9)[0]

  x = jnp.ones((8, 8))
  compiled = jax.jit(f, donate_argnums=0).lower(x).compile()
  program = hlo.parse(compiled.as_text())
  assert program.trips == 9 and program.aliases == 1


@pytest.mark.parametrize('stride', [1, 2])
def test_operations_are_those_of_the_formula(stride):
  conv = layers.Conv(features=6, size=3, stride=stride)
  x = jnp.ones((2, 8, 8, 4))
  variables = conv.init(jax.random.key(0), x)

  def loss(variables, x):
    return jnp.sum(conv.apply(variables, x) ** 2)

  grad = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(variables, x)
  macs = [
    times * roofline.PRODUCTS[e.primitive.name](e)
    for e, times in roofline.products(grad.jaxpr)
  ]
  one = 2 * (8 // stride) ** 2 * 6 * 3 * 3 * 4
  assert macs == [one] * 3


def test_a_loop_counts_as_often_as_it_runs():
  def f(x):
    return lax.scan(lambda x, _: (x @ x, None), x, length=5)[0]

  program = jax.make_jaxpr(f)(jnp.ones((4, 4)))
  ((_, times),) = roofline.products(program.jaxpr)
  assert times == 5


@pytest.mark.parametrize(
  ('target', 'shapes', 'labels'),
  [
    ('Forward', ((2, 8, 8, 4), (6, 3, 3, 4), (2, 4, 4, 6)), 'b01f_o01i->b01f'),
    (
      'BackwardFilter',
      ((2, 8, 8, 4), (2, 4, 4, 6), (6, 3, 3, 4)),
      'b01f_o01i->b01f',
    ),
    (
      'BackwardInput',
      ((2, 4, 4, 6), (6, 3, 3, 4), (2, 8, 8, 4)),
      'b01f_o01i->b01f',
    ),
  ],
)
def test_a_library_call_has_the_operations_of_its_convolution(
  target, shapes, labels
):
  first, second, result = (
    f'bf16[{",".join(map(str, shape))}]{{3,2,1,0}}' for shape in shapes
  )
  program = hlo.parse(f"""HloModule f
ENTRY %main (a: s32[]) -> s32[] {{
  %a = {first} parameter(0)
  %b = {second} parameter(1)
  ROOT %c = ({result}, u8[0]{{0}}) custom-call(%a, %b), dim_labels={labels}, \
custom_call_target="__cudnn$conv{target}"
}}
""")
  ((_, call),) = program.kernels('main')
  flops = roofline._flops(program, 'main', call)
  np.testing.assert_allclose(flops, 2 * 2 * 4 * 4 * 6 * 3 * 3 * 4)
  bounds = roofline.of_kernels(program, 1, CHIPS['h100'], 'bfloat16')
  assert bounds['kernels'] == 1
  assert bounds['kernel_ms'] == 2e-3  # a launch


def test_bounds_of_a_step(capsys):
  arguments = roofline.parse(['--chip=v5e', '--pair=mlp:mlp', '--json'])
  roofline.main(arguments)
  *_, last = capsys.readouterr().out.splitlines()
  result = json.loads(last)
  # Two networks, 3072 x 64 and smaller; the student's also backward.
  first = 2 * 64 * 3072 * 64
  assert 3 * first < result['flops'] < 4 * first
  assert result['bound_ms'] == max(result['arithmetic_ms'], result['memory_ms'])
  assert 'ms_per_step' not in result  # there is no accelerator


def test_every_case_is_measured_once_and_the_default_first():
  points = on_gpu.points()
  assert points[0] == on_gpu.Point()
  assert len(set(points)) == len(points)
  assert {(p.method, p.dtype, p.batch, p.chunk) for p in points} >= {
    (m, t, b, c)
    for m in ('kd', 'gpd', 'slkd', 'crd')
    for t in ('float32', 'bfloat16')
    for b in (64, 512)
    for c in (1, 10, 50, 200)
  }
