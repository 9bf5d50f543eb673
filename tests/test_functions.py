"""Teachers that are functions: of Python, ONNX and StableHLO files."""

import functools
import pathlib

import chex
import foreign_teachers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, models
from jaxkd.checkpoints import FUNCTION, read_function
from jaxkd.commands import evaluate, export
from jaxkd.commands import store as command
from jaxkd.data import augment
from jaxkd.interop import foreign
from jaxkd.runs import functions
from jaxkd.runs.experiment import build
from jaxkd.runs.run import Run

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).standard_normal((5, *SHAPE), np.float32)
HERE = f'{FUNCTION}foreign_teachers:'


@pytest.fixture(autouse=True)
def weak_teachers(monkeypatch):
  """Lets the functions teach, which know nothing of the data."""
  monkeypatch.setattr('jaxkd.runs.pretrained._check_accuracy', lambda *_: None)


def finish(workdir, **changes):
  return Run(tiny.experiment(**changes), pathlib.Path(workdir)).finish()


def student(workdir):
  return checkpoints.load(workdir).variables


def close(one, other, tolerance=1e-4):
  chex.assert_trees_all_close(
    student(one), student(other), rtol=tolerance, atol=tolerance
  )


class TestPython:
  @pytest.mark.parametrize(
    ('name', 'settings', 'traces'),
    [
      ('traced', {}, True),
      ('traced', {'scale': 2.0}, True),
      ('traced', {'host': True}, False),
      ('on_host', {}, False),
    ],
  )
  def test_what_can_be_traced_is(self, name, settings, traces):
    function = read_function(HERE + name, '', SHAPE, settings)
    scale = settings.get('scale', 1.0)
    want = scale * foreign_teachers.on_host(IMAGES)
    np.testing.assert_allclose(function.predict(IMAGES), want, rtol=1e-5)
    assert (function.function is not None) == traces
    if function.function:
      got = jax.jit(function.function)(IMAGES)
      np.testing.assert_allclose(got, want, rtol=1e-5)
    assert function.card.num_classes == 3

  def test_its_digest_follows_its_settings(self):
    digests = {
      read_function(HERE + name, '', SHAPE, settings).card.params_sha256
      for name in ('traced', 'on_host')
      for settings in ({}, {'scale': 2.0}, {'scale': 3.0})
    }
    assert len(digests) == 6

  @pytest.mark.parametrize(
    ('name', 'settings', 'message'),
    [
      ('vector', {}, r'must return logits \[B, K\], got shape \[2\]'),
      ('broken', {}, 'RuntimeError: out of order'),
      ('on_host', {'host': False}, 'fails on float32 images'),
      ('traced', {'host': 1}, 'must be True or False, got 1'),
      ('traced', {'sclae': 1}, 'sclae'),
      ('tarced', {}, 'foreign_teachers has no .tarced.*traced'),
    ],
  )
  def test_what_is_no_teacher_is_refused(self, name, settings, message):
    with pytest.raises((KeyError, ValueError), match=message):
      read_function(HERE + name, '', SHAPE, settings)

  def test_it_teaches_alike_on_the_host_and_in_jax_and_from_a_file(
    self, tmp_path
  ):
    """On four devices, without a callback from any of them."""
    foreign_teachers.CALLS.clear()
    finish(tmp_path / 'jax', teacher__name=HERE + 'traced')
    assert not foreign_teachers.CALLS
    summary = finish(tmp_path / 'host', teacher__name=HERE + 'on_host')
    assert foreign_teachers.CALLS.count(8) == 2 * 5  # every step's batch
    close(tmp_path / 'jax', tmp_path / 'host')
    digest = read_function(HERE + 'on_host', '', SHAPE, {}).card.params_sha256
    assert summary['networks']['teacher']['params_sha256'] == digest
    config = tiny.config(teacher__name=HERE + 'on_host', store__views=2)
    config.store.dtype = 'float32'
    command.run(config, tmp_path / 'x.store')
    finish(tmp_path / 'stored', teacher__outputs=str(tmp_path / 'x.store'))
    close(tmp_path / 'stored', tmp_path / 'host', 1e-5)

  def test_its_outputs_can_be_cached(self, tmp_path):
    settings = dict(teacher__name=HERE + 'on_host', cache=str(tmp_path / 'c'))
    settings |= dict(teacher__cache='disk', epochs=1)
    finish(tmp_path / 'a', **settings)
    foreign_teachers.CALLS.clear()
    finish(tmp_path / 'b', **settings)
    assert 8 not in foreign_teachers.CALLS  # only the test split's batches
    close(tmp_path / 'a', tmp_path / 'b', 0)

  def test_its_size_is_unknown(self):
    lines = tiny.experiment(teacher__name=HERE + 'traced').describe()
    (line,) = (x for x in lines.splitlines() if 'foreign_teachers' in x)
    assert line.split()[-2:] == ['-', '-']

  def test_outputs_of_a_function_are_those_of_its_source(self, monkeypatch):
    networks = []
    for source in ('one', 'other'):
      monkeypatch.setattr(models, 'source_digest', lambda _, x=source: x)
      functions._read.cache_clear()
      made = tiny.experiment(teacher__name=HERE + 'on_host')
      networks.append(made.phases[0].sources['teacher'].network)
    functions._read.cache_clear()
    assert networks[0] != networks[1]

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      (dict(student__name=HERE + 'traced'), 'only be a frozen teacher'),
      (dict(method=dict(name='slkd')), 'cannot be trained'),
      (dict(method=dict(name='teacher')), 'cannot be trained|no parameters'),
      (
        dict(method=dict(name='distil', objective='rkd')),
        'of teacher there are logits alone',
      ),
    ],
  )
  def test_it_is_never_trained(self, changes, message):
    with pytest.raises(ValueError, match=message):
      build(tiny.config(**{'teacher__name': HERE + 'traced', **changes}))

  @pytest.mark.parametrize('name', ['traced', 'on_host'])
  def test_it_can_have_its_own_input_and_classes(self, name):
    """As any teacher: its images are converted, its logits are mapped."""
    settings = dict(teacher__name=HERE + name, teacher__classes={0: 2, 1: 0})
    settings |= dict(teacher__mean=(0.5,), teacher__std=(0.25,))
    settings |= dict(teacher__channels=3, teacher__unmapped='class1')
    (phase,) = build(tiny.config(**settings)).phases
    source = phase.sources['teacher']
    view = build(tiny.config()).dataset.view
    pixels = IMAGES * np.array(view.std) + np.array(view.mean)
    own = np.repeat((pixels - 0.5) / 0.25, 3, axis=-1)
    want = foreign_teachers.on_host(own)[:, [1, 2, 0]]
    assert source.predict is not None
    np.testing.assert_allclose(source.predict(IMAGES), want, rtol=1e-4)
    if source.function:
      got = jax.jit(source.function)(IMAGES)
      np.testing.assert_allclose(got, want, rtol=1e-4)

  def test_other_classes_than_the_data_are_refused(self, tmp_path):
    with pytest.raises(
      ValueError, match='network has 3 classes, the data have 4'
    ):
      finish(
        tmp_path,
        teacher__name=HERE + 'traced',
        data__settings__num_classes=4,
      )


@pytest.fixture(scope='module')
def network(tmp_path_factory):
  """A folder with a teacher, and what it has exported."""
  folder = tmp_path_factory.mktemp('programs')
  method = dict(name='teacher')
  finish(folder / 'teacher', method=method, cache=str(folder / 'cache'))
  for suffix in ('onnx', 'stablehlo'):
    export.export(folder / 'teacher', folder / f'net.{suffix}')
  return folder


@pytest.fixture(scope='module')
def live(network):
  finish(network / 'live', teacher__checkpoint=str(network / 'teacher'))
  return network / 'live'


@pytest.mark.parametrize('suffix', ['onnx', 'stablehlo'])
def test_a_program_teaches_as_its_network_does(network, live, tmp_path, suffix):
  """The model's name and sizes come from its card, whatever the config says."""
  file = str(network / f'net.{suffix}')
  settings = dict(teacher__checkpoint=file, teacher__name='resnet32x4')
  summary = finish(tmp_path / 'a', **settings)
  close(tmp_path / 'a', live)
  assert summary['networks']['teacher']['model'] == 'mlp'
  assert summary['networks']['teacher']['params'] > 0


class TestOnnx:
  """Models of other programs, without a card."""

  @staticmethod
  def model(
    path, layout, batch: str | int = 'n', dtype='float', outputs=('logits',)
  ):
    """Writes mean brightness of thirds as a model: a linear map."""
    onnx = pytest.importorskip('onnx')
    from onnx import TensorProto, helper, numpy_helper

    kind = getattr(TensorProto, dtype.upper())
    numpy = {'float': np.float32, 'float16': np.float16}[dtype]
    kernel = np.zeros((8, 8, 3), np.float32)
    for k, rows in enumerate((slice(0, 3), slice(3, 6), slice(6, 8))):
      kernel[rows, :, k] = 1 / kernel[rows, :, k].size
    weights = numpy_helper.from_array(
      kernel.reshape(64, 3).astype(numpy), 'kernel'
    )
    shape = [batch, *((8, 8, 1) if layout == 'NHWC' else (1, 8, 8))]
    nodes = [helper.make_node('Flatten', ['pixels'], ['flat'])]
    nodes += [
      helper.make_node('MatMul', ['flat', 'kernel'], [name]) for name in outputs
    ]
    graph = helper.make_graph(
      nodes,
      'net',
      [helper.make_tensor_value_info('pixels', kind, shape)],
      [helper.make_tensor_value_info(n, kind, [batch, 3]) for n in outputs],
      [weights],
    )
    opset = [helper.make_opsetid('', 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(made, str(path))
    return path

  @pytest.mark.parametrize('batch', ['n', 2])
  @pytest.mark.parametrize('layout', ['NHWC', 'NCHW'])
  @pytest.mark.parametrize('dtype', ['float', 'float16'])
  def test_layouts_batches_and_types(self, tmp_path, layout, batch, dtype):
    path = self.model(tmp_path / 'x.onnx', layout, batch, dtype)
    function = read_function('', str(path), SHAPE, {})
    want = foreign_teachers.on_host(IMAGES)
    tolerance = 1e-5 if dtype == 'float' else 3e-3
    np.testing.assert_allclose(
      function.predict(IMAGES), want, atol=tolerance, rtol=tolerance
    )
    assert function.card.num_classes == 3
    assert function.card.model == f'{FUNCTION}x.onnx'

  @pytest.mark.slow
  def test_it_teaches_as_the_python_function_does(self, tmp_path):
    path = self.model(tmp_path / 'x.onnx', 'NCHW', 3)
    finish(tmp_path / 'a', teacher__checkpoint=str(path), epochs=1)
    finish(tmp_path / 'b', teacher__name=HERE + 'traced', epochs=1)
    close(tmp_path / 'a', tmp_path / 'b')

  def test_it_is_evaluated_on_the_data_of_a_config(self, tmp_path):
    path = self.model(tmp_path / 'x.onnx', 'NCHW')
    config = tiny.config(teacher__settings={'layout': 'NCHW'})
    got = evaluate.evaluate(path, config=config)
    dataset = build(tiny.config()).dataset
    images = augment.eval_view(jnp.array(dataset.test.image), view=dataset.view)
    logits = foreign_teachers.on_host(np.asarray(images))
    right = logits.argmax(axis=1) == dataset.test.label
    assert got.results['top1'] == pytest.approx(right.mean())
    with pytest.raises(FileNotFoundError, match='no run in'):
      evaluate.evaluate(path)

  def test_one_of_several_outputs_is_named(self, tmp_path):
    path = self.model(tmp_path / 'x.onnx', 'NHWC', outputs=('one', 'two'))
    with pytest.raises(ValueError, match=r"\['one', 'two'\]: set teacher"):
      read_function('', str(path), SHAPE, {})
    function = read_function('', str(path), SHAPE, {'output': 'two'})
    assert function.predict(IMAGES).shape == (5, 3)
    with pytest.raises(KeyError, match='no output of x.onnx .tow.'):
      read_function('', str(path), SHAPE, {'output': 'tow'})

  @pytest.mark.parametrize(
    ('shape', 'settings', 'message'),
    [
      ((9, 9, 1), {}, 'does not fit images'),
      ((8, 8, 1), {'layout': 'NCHW'}, 'in layout NCHW'),
      ((8, 8, 1), {'layout': 'CHW'}, 'must be NHWC or NCHW'),
      ((8, 8, 1), {'lay': 'NHWC'}, "no setting 'lay'"),
    ],
  )
  def test_other_images_are_refused(self, tmp_path, shape, settings, message):
    path = self.model(tmp_path / 'x.onnx', 'NHWC')
    with pytest.raises(ValueError, match=message):
      read_function('', str(path), shape, settings)

  def test_an_ambiguous_layout_is_asked_for(self):
    layout = functools.partial(foreign._layout, pathlib.Path('x'))
    with pytest.raises(ValueError, match=r'set teacher\.settings\.layout'):
      layout(['n', 'a', 'b', 'c'], (3, 3, 3), '')
    assert layout(['n', 3, 3, 3], (3, 3, 3), 'NCHW') == 'NCHW'

  def test_a_corrupt_file_is_refused(self, tmp_path):
    (tmp_path / 'x.onnx').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='corrupt, or not an .onnx file'):
      read_function('', str(tmp_path / 'x.onnx'), SHAPE, {})


class TestStableHlo:
  """Programs of jax.export, without a card."""

  @staticmethod
  def program(path, batch='n', function=foreign_teachers.traced, **settings):
    (size,) = jax.export.symbolic_shape(batch)
    image = jax.ShapeDtypeStruct((size, *SHAPE), jnp.float32)
    exported = jax.export.export(jax.jit(function), **settings)(image)
    path.write_bytes(exported.serialize())
    return str(path)

  @pytest.mark.parametrize(('batch', 'traces'), [('n', True), ('2', False)])
  def test_any_batch_or_one(self, tmp_path, batch, traces):
    path = self.program(tmp_path / 'x.stablehlo', batch)
    function = read_function('', path, SHAPE, {})
    want = foreign_teachers.on_host(IMAGES)
    np.testing.assert_allclose(function.predict(IMAGES), want, rtol=1e-5)
    assert (function.function is not None) == traces
    other = pathlib.Path(path).rename(tmp_path / 'program')
    assert read_function('', str(other), SHAPE, {}).card.num_classes == 3

  @pytest.mark.slow
  def test_it_teaches_on_several_devices(self, tmp_path):
    path = self.program(tmp_path / 'x.stablehlo')
    finish(tmp_path / 'a', teacher__checkpoint=path, epochs=1)
    finish(tmp_path / 'b', teacher__name=HERE + 'traced', epochs=1)
    close(tmp_path / 'a', tmp_path / 'b')

  def test_other_programs_are_refused(self, tmp_path):
    path = tmp_path / 'x.stablehlo'
    read = functools.partial(read_function, '', str(path), settings={})
    self.program(path, platforms=['tpu'])
    with pytest.raises(ValueError, match='exported for tpu, and runs here on'):
      read(image_shape=SHAPE)
    self.program(path)
    with pytest.raises(ValueError, match=r'takes images .* = \[8, 8, 1\]'):
      read(image_shape=(9, 9, 1))
    self.program(path, function=lambda image: (image, image))
    with pytest.raises(ValueError, match='and 2 results'):
      read(image_shape=SHAPE)
    path.write_bytes(b'nothing')
    with pytest.raises(ValueError, match='corrupt, or not a program'):
      read(image_shape=SHAPE)
