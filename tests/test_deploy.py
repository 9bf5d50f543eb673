"""From a finished run to the network that is used: export, read back, go on."""

import json
import pathlib
import shutil
import zipfile

import jax
import numpy as np
import pytest
import tiny

from jaxkd import deploy, finished, measure, tree
from jaxkd.run import Run, draw
from jaxkd.saved import load_network, save_network
from jaxkd.train.stage import fitted

NETS = dict(student__name='vgg8', student__width=1 / 16)


def finish(workdir, **changes):
  return Run(tiny.experiment(**changes), pathlib.Path(workdir)).finish()


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run of a student with branches and its dynamic teacher, from scratch."""
  folder = tmp_path_factory.mktemp('gpd') / 'run'
  finish(
    folder,
    **NETS,
    student__branches=6,
    epochs=1,
    data__settings__train_size=40,  # whole batches: one program to compile
    method=dict(name='gpd', static=None),
    optimizer__learning_rate=0.2,  # so that biases and scales have moved
  )
  return folder


@pytest.fixture(scope='module')
def exported(workdir):
  file = workdir.parent / 'deployed' / 'student.jaxkd'
  return deploy.export(workdir, file), file


def test_the_exported_student_is_the_plain_architecture(exported, workdir):
  report, file = exported
  variables, card = load_network(file)
  plain = tiny.experiment(**NETS, method=dict(name='plain'))
  module = plain.program(plain.stages[0]).modules['student']
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), np.zeros((1, 8, 8, 1))
  )
  assert tree.differences(variables['params'], shapes['params']) == []
  assert tree.differences(variables['batch_stats'], shapes['batch_stats']) == []
  assert (
    card['params'] == tree.count(shapes['params']) < report.before['params']
  )
  assert card['branches'] == 1 and report.before['branches'] == 6
  assert card['macs'] == report.before['macs']
  assert card['params_sha256'] == tree.digest(variables)
  trained = json.loads((workdir / 'networks/student/network.json').read_text())
  assert card['exported_from'] == trained['params_sha256']
  assert '6' in str(report) and f'{card["params"]:,}' in str(report)


def test_its_logits_are_those_of_the_trained_student(exported, workdir):
  report, file = exported
  assert report.images == 21 and report.difference <= 1e-5
  image = np.random.default_rng(0).normal(size=(5, 8, 8, 1))
  logits = []
  for place in (workdir / 'networks/student', file):
    variables, card = load_network(place)
    logits.append(finished.module_of(card).apply(variables, image).logits)
  np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


def test_what_is_exported_is_measured_again(exported, workdir):
  _, file = exported
  alone = measure.evaluate(file)
  in_run = measure.evaluate(workdir, file=file)
  trained = measure.evaluate(workdir)
  assert alone == in_run and alone['network'] == 'student'
  assert alone['images'] == 21 and alone['top1'] == trained['top1']
  assert alone['nll'] == pytest.approx(trained['nll'], rel=1e-4)


def test_the_dynamic_teacher_is_exported_like_the_student(exported, workdir):
  file = workdir.parent / 'teacher.npz'
  report = deploy.export(workdir, file, 'dynamic_teacher')
  _, card = load_network(file)
  assert card['width'] == 2 * exported[0].after['width']
  assert card['branches'] == 1 and report.difference <= 1e-5
  assert card['params'] > 3 * exported[0].after['params']
  measured = measure.evaluate(workdir, 'dynamic_teacher')
  assert measure.evaluate(file)['top1'] == measured['top1']


def test_a_file_is_an_archive_that_numpy_reads(exported):
  _, file = exported
  with zipfile.ZipFile(file) as archive:
    assert json.loads(archive.read('network.json'))['model'] == 'vgg8'
  with np.load(file) as arrays:
    assert arrays['params/head/kernel'].shape == (32, 3)


def test_networks_that_differ_are_not_exported(workdir, tmp_path, monkeypatch):
  monkeypatch.setattr(deploy, 'TOLERANCE', -1.0)
  with pytest.raises(ValueError, match='not been written'):
    deploy.export(workdir, tmp_path / 'student')
  assert not list(tmp_path.iterdir())


def test_unknown_networks_and_runs_are_named(workdir, tmp_path):
  with pytest.raises(FileNotFoundError, match='there are: dynamic_teacher, st'):
    deploy.export(workdir, tmp_path / 'x', 'teacher')
  with pytest.raises(FileNotFoundError, match='no run in'):
    measure.evaluate(tmp_path)
  (tmp_path / 'broken').write_bytes(b'no archive')
  with pytest.raises(ValueError, match='broken is damaged'):
    measure.evaluate(tmp_path / 'broken')
  np.savez(tmp_path / 'arrays.npz', x=np.zeros(3))
  with pytest.raises(ValueError, match='arrays.npz is damaged'):
    measure.evaluate(tmp_path / 'arrays.npz')


def test_a_run_without_its_student_yet_exports_no_other(workdir, tmp_path):
  networks = tmp_path / 'networks'
  networks.mkdir()
  shutil.copy(workdir / 'config.json', tmp_path)
  with pytest.raises(FileNotFoundError, match='no network in .* goes on with'):
    measure.evaluate(tmp_path)
  shutil.copytree(workdir / 'networks/dynamic_teacher', networks / 'teacher')
  with pytest.raises(
    FileNotFoundError, match="'student' .* are: teacher. Name"
  ):
    deploy.export(tmp_path, tmp_path / 'x')


def test_other_data_are_refused(exported):
  _, card = load_network(exported[1])
  settings = finished.data_settings(exported[1], card)
  more = {**settings, 'settings': {**settings['settings'], 'num_classes': 4}}
  with pytest.raises(ValueError, match='classes 4, the network 3: measure'):
    finished.evaluator(more, card)
  with pytest.raises(ValueError, match=r'shape \[10, 10, 1\], the network'):
    finished.evaluator({**settings, 'image_size': 10}, card)


def test_a_config_says_where_the_data_are_now(exported, workdir):
  file = exported[1]
  _, card = load_network(file)
  moved = tiny.config(data__dir='elsewhere', data__name='digits')
  for place in (workdir, file):
    settings = finished.data_settings(place, card, moved)
    assert (settings['dir'], settings['name']) == ('elsewhere', 'synthetic')
  bare = {k: v for k, v in card.items() if k != 'data_settings'}
  assert finished.data_settings(file, bare, moved)['name'] == 'digits'
  with pytest.raises(FileNotFoundError, match='no run in'):
    finished.data_settings(file, bare)


def test_the_gap_is_drawn(workdir):
  picture = draw(workdir)
  assert picture == workdir / 'gap.png'
  assert picture.read_bytes().startswith(b'\x89PNG')


# Going on from what has been exported


def starts(variables, **changes):
  """Returns a GPD program and where its networks start from known variables."""
  method = dict(name='gpd', static=None, noise=0.0)
  experiment = tiny.experiment(**NETS, method=method, **changes)
  program = experiment.program(experiment.stages[-1])
  known = fitted(program, {'student': variables}, seed=0)
  key = jax.random.key(0)

  @jax.jit
  def logits(known, image):
    owned = program.start('dynamic_teacher', key, known)
    own = program.start('student', key, known)
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
  return known['student'], logits(known, image), image


def test_fine_tuning_starts_where_the_student_was(exported):
  variables, card = load_network(exported[1])
  student, logits, image = starts(variables, student__branches=6)
  want = finished.module_of(card).apply(variables, image).logits
  for got in logits.values():
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  # The trained kernels as they are, behind a scale of 1; the rest is silent.
  for name, leaf in tree.leaves(variables['params']).items():
    np.testing.assert_array_equal(tree.leaves(student['params'])[name], leaf)
  scale = student['params']['stem']['conv0']['branch_scale']
  np.testing.assert_array_equal(scale[:, 0], [1, 0, 0, 0, 0, 0])
  assert np.std(student['params']['stem']['conv0']['branch_square']) > 0.1


def test_a_student_with_branches_can_go_on_without(workdir):
  variables, card = load_network(workdir / 'networks/student')
  _, logits, image = starts(variables)
  want = finished.module_of(card).apply(variables, image).logits
  np.testing.assert_allclose(logits['student'], want, rtol=1e-4, atol=1e-5)


def test_a_read_out_is_exported_and_does_not_magnify_rounding(
  exported, workdir, tmp_path
):
  """Outputs around 0, where a read-out jumps, are compared as they are."""
  variables, card = load_network(workdir / 'networks/student')
  _, deployed = load_network(exported[1])
  test = finished.evaluator(deployed['data_settings'], card)
  raw = test.logits(finished.module_of(card), variables, 3)
  variables['params']['head']['bias'] -= np.diagonal(raw)
  card |= {'read_out': 'clip', 'data_settings': deployed['data_settings']}
  save_network(tmp_path / 'student', variables, card)
  report = deploy.export(tmp_path / 'student', tmp_path / 'file')
  assert report.difference <= 1e-5 and report.after['read_out'] == 'clip'
  measured = measure.evaluate(tmp_path / 'file')
  assert measured['nll'] == pytest.approx(report.after['nll'])
