"""StableHLO and ONNX: files with the logits of the network, of any batch."""

import functools
import json
import pathlib
import re
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs import Wrapped, run
from test_models import SMALL, fresh, images

from jaxkd import models, tree
from jaxkd.interop import export

README = (pathlib.Path(__file__).parents[1] / 'docs/export.md').read_text()
CARD = {
  'model': 'resnet8',
  'class_names': ['ant', 'bee', 'cat', 'dog', 'eel'],
  'image_shape': [8, 8, 1],
  'mean': [0.5],
  'std': [0.25],
  'scale': 255.0,
}


def image(batch=4):
  return images()[:batch].astype(np.float32)


@functools.cache
def logits_of(family):
  """The logits of `image()`."""
  outputs = jax.jit(SMALL[family].apply)(fresh(family), image())
  return np.asarray(outputs.logits)


def close(got, want):
  """Are logits equal, up to the order of sums?"""
  np.testing.assert_allclose(got, want, atol=2e-6 * np.max(np.abs(want)))


# StableHLO


@pytest.mark.parametrize('family', ['mobilenet_v2', 'shufflenet_v1', 'vit'])
def test_a_program_gives_the_logits_of_batches_of_any_size(family):
  program = export.stablehlo(SMALL[family], fresh(family), (8, 8, 1))
  read = jax.export.deserialize(bytearray(program))
  assert read.platforms == ('cpu', 'cuda', 'tpu')
  want = logits_of(family)
  close(jax.jit(read.call)(image()), want)
  close(jax.jit(read.call)(image(1)), want[:1])


def test_every_family_can_be_a_program():
  for family, net in SMALL.items():
    program = export.stablehlo(net, fresh(family), (8, 8, 1))
    numbers = tree.count(fresh(family))
    # Parameters are there once, and nothing else is of their size.
    assert 4 * numbers < len(program) < 5 * numbers + 80_000, family


def test_each_platform_runs_its_own_code():
  def by_platform(x):
    return lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos)

  net = Wrapped(lambda x: by_platform(x.reshape(x.shape[0], -1)))
  program = export.stablehlo(net, {}, (8, 8, 1))
  x = image().reshape(4, -1)
  close(jax.export.deserialize(program).call(image()), np.sin(x))
  pytest.importorskip('onnx')
  close(run(export.onnx(net, {}, (8, 8, 1)), image()), np.cos(x))


def test_a_file_is_read_without_jaxkd(tmp_path, monkeypatch):
  """The lines of the README read it."""
  net, variables = SMALL['resnet'], fresh('resnet')
  path = tmp_path / 'student.stablehlo'
  export.write_stablehlo(path, net, variables, CARD)
  with zipfile.ZipFile(path) as file:
    assert json.loads(file.read('network.json')) == CARD
  monkeypatch.chdir(tmp_path)
  close(run_readme('zipfile'), logits_of('resnet'))
  predict, card = export.read_stablehlo(path)
  assert card == CARD
  close(predict(image()), logits_of('resnet'))


def run_readme(library):
  """The logits of the lines of the README that import a library."""
  (code,) = re.findall(rf'```python\n(import {library}\n.*?)```', README, re.S)
  names = {'images': image()}
  exec(code, names)
  return names['logits']


@pytest.mark.parametrize('suffix', ['stablehlo', 'onnx'])
def test_a_corrupt_file_is_named(tmp_path, suffix):
  if suffix == 'onnx':
    pytest.importorskip('onnxruntime')
  path = tmp_path / f'student.{suffix}'
  path.write_bytes(b'no network')
  with pytest.raises(ValueError, match=f'corrupt, or not an? .{suffix} file'):
    getattr(export, f'read_{suffix}')(path)


# ONNX: networks


@pytest.mark.parametrize('family', SMALL)
def test_every_family_has_its_logits_in_onnx(family):
  pytest.importorskip('onnx')
  model = export.onnx(SMALL[family], fresh(family), (8, 8, 1))
  want = logits_of(family)
  close(run(model, image()), want)
  close(run(model, image(1)), want[:1])


@pytest.mark.parametrize('how', sorted(set(models.READ_OUTS) - {'softmax'}))
def test_a_read_out_is_part_of_the_network(how):
  pytest.importorskip('onnx')
  net = models.wrap(SMALL['linear'], how)
  got = run(export.onnx(net, fresh('linear'), (8, 8, 1)), image())
  want = models.READ_OUTS[how](logits_of('linear'))
  np.testing.assert_allclose(np.exp(got), np.exp(want), atol=1e-6)
  np.testing.assert_allclose(np.exp(got).sum(-1), 1, atol=1e-6)


def test_constants_are_folded():
  onnx = pytest.importorskip('onnx')
  net, variables = SMALL['resnet'], fresh('resnet')
  model = onnx.load_from_string(export.onnx(net, variables, (8, 8, 1)))
  operators = {node.op_type for node in model.graph.node}
  assert not operators & {'Sqrt', 'Reciprocal', 'Sub'}  # of BatchNorm
  read = {name for node in model.graph.node for name in node.input}
  written = {name for node in model.graph.node for name in node.output}
  assert written - read == {'logits'}
  assert {array.name for array in model.graph.initializer} <= read
  assert any('stage2_block0/conv1' in name for name in written)


def test_unused_results_are_left_out():
  onnx = pytest.importorskip('onnx')
  net = Wrapped(lambda x: (jnp.sin(x + 2), x + 1)[1])
  model = onnx.load_from_string(export.onnx(net, {}, (8, 8, 1)))
  assert [node.op_type for node in model.graph.node] == ['Add', 'Identity']
  assert len(model.graph.initializer) == 1


def test_an_onnx_file_describes_itself(tmp_path, monkeypatch):
  onnx = pytest.importorskip('onnx')
  path = tmp_path / 'student.onnx'
  export.write_onnx(path, SMALL['resnet'], fresh('resnet'), CARD)
  texts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
  assert json.loads(texts['network.json']) == CARD
  for key in ('class_names', 'mean', 'std', 'scale'):
    assert json.loads(texts[key]) == CARD[key]
  predict, card = export.read_onnx(path)
  assert card == CARD
  close(predict(image()), logits_of('resnet'))
  monkeypatch.chdir(tmp_path)
  close(run_readme('onnxruntime'), logits_of('resnet'))
  path.write_bytes(export.onnx(SMALL['resnet'], fresh('resnet'), (8, 8, 1)))
  with pytest.raises(ValueError, match='no network.json in its metadata'):
    export.read_onnx(path)


def test_a_missing_library_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  with pytest.raises(ImportError, match=r"pip install 'jaxkd\[onnx\]'"):
    export.onnx(SMALL['linear'], fresh('linear'), (8, 8, 1))
