"""Exporting the network of a finished run, reading it back, fine-tuning it."""

import json
import pathlib
import shutil
import zipfile

import jax
import numpy as np
import pytest
import tiny
from scipy.special import softmax

import jaxkd
from jaxkd import checkpoints, tree
from jaxkd.checkpoints import Card, formats
from jaxkd.commands import evaluate, export
from jaxkd.interop import files
from jaxkd.runs import artifacts
from jaxkd.runs.run import Run
from jaxkd.training.initial import module_variables

NETS = dict(student__name='vgg8', student__width=1 / 16)


def finish(workdir, **changes):
  return Run(tiny.experiment(**changes), pathlib.Path(workdir)).finish()


GROWING = dict(
  **NETS,
  student__branches=2,
  epochs=1,
  method=dict(name='gpd', static=None),
  optimizer__learning_rate=0.2,  # so that biases and scales have moved
)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run of a student with branches and its dynamic teacher, from scratch."""
  folder = tmp_path_factory.mktemp('gpd') / 'run'
  finish(folder, **GROWING)
  return folder


@pytest.fixture(scope='module')
def exported(workdir):
  file = workdir.parent / 'deployed' / 'student.npz'
  return export.export(workdir, file), file


def logits_of(card, variables, image):
  """The logits of a network, without an evaluator."""
  return jax.jit(card.module().apply)(variables, image).logits


def test_the_exported_student_is_the_plain_architecture(exported, workdir):
  report, file = exported
  variables, card = checkpoints.load(file)
  plain = tiny.experiment(**NETS, method=dict(name='plain'))
  module = plain.phases[0].program.modules['student']
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), np.zeros((1, 8, 8, 1))
  )
  assert tree.differences(variables['params'], shapes['params']) == []
  assert tree.differences(variables['batch_stats'], shapes['batch_stats']) == []
  before = report.before
  assert card.params == tree.count(shapes['params']) < before.params
  assert card.branches == 1 and before.branches == 2
  assert card.macs == before.macs
  assert card.params_sha256 == tree.digest(variables)
  trained = json.loads((workdir / 'networks/student/network.json').read_text())
  assert card.exported_from == trained['params_sha256']
  assert '(2 branches)' in str(report)
  assert f'{card.params:,}' in str(report)


def test_the_exported_student_has_the_logits_of_the_trained_one(
  exported, workdir
):
  report, file = exported
  assert report.images == 21 and report.difference <= 1e-5
  image = np.random.default_rng(0).normal(size=(5, 8, 8, 1))
  logits = []
  for place in (workdir / 'networks/student', file):
    variables, card = checkpoints.load(place)
    logits.append(logits_of(card, variables, image))
  np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


def results(*arguments, **named):
  """The results of `evaluate`, with what they are of."""
  return evaluate.evaluate(*arguments, **named).to_json()


def test_an_exported_file_is_evaluated_like_the_run(exported, workdir):
  _, file = exported
  alone = results(file)
  in_run = results(workdir, file=file)
  trained = results(workdir)
  assert alone == in_run and alone['network'] == 'student'
  assert alone['images'] == 21 and alone['top1'] == trained['top1']
  assert alone['nll'] == pytest.approx(trained['nll'], rel=1e-4)


def test_the_dynamic_teacher_is_exported_like_the_student(exported, workdir):
  file = workdir.parent / 'teacher.npz'
  report = export.export(workdir, file, 'dynamic_teacher')
  _, card = checkpoints.load(file)
  assert card.width == 2 * exported[0].after.width
  assert card.branches == 1 and report.difference <= 1e-5
  assert card.params > 3 * exported[0].after.params
  trained = results(workdir, 'dynamic_teacher')
  assert results(file)['top1'] == trained['top1']


def test_an_npz_file_is_read_by_numpy(exported):
  _, file = exported
  with zipfile.ZipFile(file) as archive:
    assert json.loads(archive.read('network.json'))['model'] == 'vgg8'
  with np.load(file) as arrays:
    assert arrays['params/head/kernel'].shape == (32, 3)


# Files of every kind

each_format = pytest.mark.parametrize('suffix', formats.FORMATS)


def output(folder, suffix):
  """A path for a file, where the libraries for it are there."""
  for library in formats.FORMATS[suffix].needs:
    pytest.importorskip(library)
  return folder / f'student{suffix}'


@each_format
def test_a_file_of_any_format_has_the_logits_of_the_network(
  exported, workdir, tmp_path, suffix
):
  file = output(tmp_path, suffix)
  report = export.export(workdir, file)
  assert list(tmp_path.iterdir()) == [file]
  assert 0 <= report.difference <= formats.FORMATS[suffix].tolerance
  predict, card = checkpoints.load_function(file)
  assert card == report.after == exported[0].after
  image = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
  variables, trained = checkpoints.load(workdir / 'networks/student')
  want = logits_of(trained, variables, image)
  np.testing.assert_allclose(predict(image), want, rtol=1e-4, atol=1e-5)
  evaluated, reference = results(file), results(exported[1])
  assert evaluated['nll'] == pytest.approx(reference.pop('nll'), rel=1e-5)
  assert evaluated['brier'] == pytest.approx(reference.pop('brier'), rel=1e-5)
  assert evaluated['ece'] == pytest.approx(reference.pop('ece'), rel=1e-3)
  assert evaluated.items() >= reference.items()


def test_a_file_describes_itself(exported):
  card = checkpoints.load_card(exported[1])
  assert set(card.to_json()) >= {
    *('model', 'num_classes', 'class_names', 'image_shape', 'layout'),
    *('mean', 'std', 'scale', 'read_out', 'top1', 'params', 'macs', 'jaxkd'),
  }
  assert card.layout == 'NHWC' and card.jaxkd == jaxkd.__version__


@each_format
def test_a_file_with_other_logits_is_removed(
  workdir, tmp_path, monkeypatch, suffix
):
  """The logits are those of the file, as it is read back from the disk."""
  file = output(tmp_path, suffix)
  load, tolerance = checkpoints.load_function, formats.FORMATS[suffix].tolerance

  def load_wrong(path):
    predict, card = load(path)

    def wrong(image):  # in one class of the last image
      logits = np.array(predict(image))
      logits[-1, 0] += 3 * tolerance * np.abs(logits).max()
      return logits

    return wrong, card

  monkeypatch.setattr(checkpoints, 'load_function', load_wrong)
  with pytest.raises(ValueError, match=r'differ .* by [23]\.\de-.* not been'):
    export.export(workdir, file)
  assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_if_the_new_one_is_wrong(
  workdir, tmp_path, monkeypatch
):
  file = tmp_path / 'student.npz'
  file.write_bytes(b'of yesterday')
  kind = formats.FORMATS['.npz']
  monkeypatch.setitem(formats.FORMATS, '.npz', kind._replace(tolerance=-1.0))
  with pytest.raises(ValueError, match='are its weights finite'):
    export.export(workdir, file)
  assert file.read_bytes() == b'of yesterday'
  assert list(tmp_path.iterdir()) == [file]


def test_an_unknown_format_is_refused_before_anything_is_read(
  tmp_path, monkeypatch
):
  nowhere = tmp_path / 'nowhere'
  with pytest.raises(KeyError, match="'.tflite'.* Available: .npz, .onnx, "):
    export.export(nowhere, tmp_path / 'student.tflite')
  with pytest.raises(ValueError, match='no suffix.* name it student.npz'):
    export.export(nowhere, tmp_path / 'student')
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ImportError, match=r"onnxruntime: pip .* 'jaxkd\[onnx\]'"):
    export.export(nowhere, tmp_path / 'student.onnx')
  with pytest.raises(ImportError, match=r"torch: pip install 'jaxkd\[torch\]'"):
    export.export(nowhere, tmp_path / 'student.pth')


def test_a_state_dict_without_a_card_is_not_evaluated(tmp_path):
  files.write(tmp_path / 'x.safetensors', {'weight': np.zeros(3)}, {})
  with pytest.raises(ValueError, match='does not name its network'):
    evaluate.evaluate(tmp_path / 'x.safetensors')


def test_images_are_compared_alone_and_together(exported):
  variables, card = checkpoints.load(exported[1])
  module = card.module()
  dataset = artifacts.load_data(card.data_settings)
  test = artifacts.evaluator(dataset)
  apply, sizes = jax.jit(module.apply), []

  def predict(image):
    sizes.append(len(image))
    return np.asarray(apply(variables, image).logits)

  got = export.logits(predict, dataset, 21)
  assert sizes == [1, 20]
  want = test.logits(module, variables, 21)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  assert (export.COMPARED - 1) % export.BATCH == 0


def test_a_read_out_is_compared_by_probabilities():
  want = np.array([[2.0, -4.0], [0.0, 1.0]])
  got = want + np.array([[0.0, 0.0], [0.0, 0.02]])
  raw, read = (Card('mlp', read_out=how) for how in ('softmax', 'clip'))
  assert export.difference(want, got, raw) == pytest.approx(0.005)
  p, q = softmax(want, -1), softmax(got, -1)
  difference = np.abs(p - q).max() / p.max()
  assert export.difference(want, got, read) == pytest.approx(
    difference, rel=1e-3
  )
  want[1, 0] = np.nan
  assert not export.difference(want, want, raw) <= 1


def test_unknown_networks_and_runs_are_named(workdir, tmp_path):
  with pytest.raises(FileNotFoundError, match='there are: dynamic_teacher, st'):
    export.export(workdir, tmp_path / 'x.npz', 'teacher')
  with pytest.raises(FileNotFoundError, match='no run in'):
    evaluate.evaluate(tmp_path)
  (tmp_path / 'broken').write_bytes(b'no archive')
  with pytest.raises(ValueError, match='broken is a text file'):
    evaluate.evaluate(tmp_path / 'broken')
  np.savez(tmp_path / 'arrays.npz', x=np.zeros(3))
  with pytest.raises(ValueError, match='arrays.npz does not name its network'):
    evaluate.evaluate(tmp_path / 'arrays.npz')


def test_a_run_without_its_student_yet_exports_no_other(workdir, tmp_path):
  networks = tmp_path / 'networks'
  networks.mkdir()
  shutil.copy(workdir / 'config.json', tmp_path)
  with pytest.raises(
    FileNotFoundError, match='no network in .* command resumes'
  ):
    evaluate.evaluate(tmp_path)
  shutil.copytree(workdir / 'networks/dynamic_teacher', networks / 'teacher')
  with pytest.raises(
    FileNotFoundError, match="'student' .* are: teacher. Name"
  ):
    export.export(tmp_path, tmp_path / 'x.npz')


def test_other_classes_are_refused(exported):
  _, card = checkpoints.load(exported[1])
  settings = artifacts.data_settings(exported[1], card)
  more = {**settings, 'settings': {**settings['settings'], 'num_classes': 4}}
  with pytest.raises(ValueError, match='has 3 .*, the data have 4 .* to a map'):
    artifacts.connected(card, artifacts.load_data(more))


def test_the_folder_of_the_data_is_the_config_s(exported, workdir):
  file = exported[1]
  _, card = checkpoints.load(file)
  moved = tiny.config(data__dir='elsewhere', data__name='digits')
  for place in (workdir, file):
    settings = artifacts.data_settings(place, card, moved)
    assert (settings['dir'], settings['name']) == ('elsewhere', 'synthetic')
  bare = card.replace(data_settings={})
  assert artifacts.data_settings(file, bare, moved)['name'] == 'digits'
  with pytest.raises(FileNotFoundError, match='no run in'):
    artifacts.data_settings(file, bare)


def test_the_gap_is_drawn(workdir):
  picture = Run(tiny.experiment(**GROWING), workdir).draw()
  assert picture == workdir / 'gap.png'
  assert picture.read_bytes().startswith(b'\x89PNG')


# Fine-tuning what has been exported


def starts(variables, **changes):
  """Initial variables and logits of a GPD program from a checkpoint."""
  method = dict(name='gpd', static=None, noise=0.0)
  experiment = tiny.experiment(**NETS, method=method, **changes)
  program = experiment.phases[-1].program
  initial = module_variables(program, {'student': variables}, seed=0)
  key = jax.random.key(0)

  @jax.jit
  def logits(initial, image):
    owned = program.initial_variables('dynamic_teacher', key, initial)
    own = program.initial_variables('student', key, initial)
    params = program.resolve({'dynamic_teacher': owned['params']})
    stats = {'dynamic_teacher': owned, 'student': own}
    return {
      name: module.apply(
        {'params': params[name], 'batch_stats': stats[name]['batch_stats']},
        image,
      ).logits
      for name, module in program.modules.items()
    }

  image = np.random.default_rng(1).normal(size=(5, 8, 8, 1))
  return initial['student'], logits(initial, image), image


@pytest.mark.parametrize(
  ('branches', 'random'),
  [
    (2, 'branch_pool'),
    pytest.param(6, 'branch_square', marks=pytest.mark.slow),
  ],
)
def test_fine_tuning_starts_from_the_exported_student(
  exported, branches, random
):
  variables, card = checkpoints.load(exported[1])
  student, logits, image = starts(variables, student__branches=branches)
  want = logits_of(card, variables, image)
  for got in logits.values():
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  # The trained kernels with a scale of 1; the other branches contribute 0.
  for name, leaf in tree.leaves(variables['params']).items():
    np.testing.assert_array_equal(tree.leaves(student['params'])[name], leaf)
  scale = student['params']['stem']['conv0']['branch_scale']
  np.testing.assert_array_equal(scale[:, 0], [1] + (branches - 1) * [0])
  assert np.std(student['params']['stem']['conv0'][random]) > 0.1


def test_branches_of_a_checkpoint_are_merged_for_a_student_without(workdir):
  variables, card = checkpoints.load(workdir / 'networks/student')
  _, logits, image = starts(variables)
  want = logits_of(card, variables, image)
  np.testing.assert_allclose(logits['student'], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('suffix', ['.npz', '.stablehlo'])
def test_a_read_out_is_exported_and_does_not_magnify_rounding(
  exported, workdir, tmp_path, suffix
):
  """Outputs around 0 have logits that jump, and are compared otherwise."""
  variables, card = checkpoints.load(workdir / 'networks/student')
  settings = checkpoints.load_card(exported[1]).data_settings
  test = artifacts.evaluator(artifacts.load_data(settings))
  raw = test.logits(card.module(), variables, 21)
  bias = variables['params']['head']['bias']
  bias[0] -= raw[0, 0]
  bias[1:] += 2 * np.abs(raw).max()  # no image has only zeros
  card = card.replace(read_out='clip', data_settings=settings)
  checkpoints.save(tmp_path / 'student', variables, card)
  file = tmp_path / f'file{suffix}'
  report = export.export(tmp_path / 'student', file)
  assert report.difference <= 1e-5 and report.after.read_out == 'clip'
  assert 'the same probabilities' in str(report)
  assert results(file)['top1'] == report.after.results['top1']
