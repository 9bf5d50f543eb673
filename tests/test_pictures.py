"""Pictures of two runs: what is measured, what is drawn, what is refused."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tiny

from jaxkd import plots
from jaxkd.checkpoints import card as cards
from jaxkd.checkpoints.native import load_network
from jaxkd.commands import visualize
from jaxkd.runs.run import Run

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
  """A run with a teacher, 'kd', and one without, 'plain', of the same data."""
  folder = tmp_path_factory.mktemp('runs')
  for name in ('kd', 'plain'):
    experiment = tiny.experiment(
      epochs=1,
      data__settings__train_size=40,
      data__settings__test_size=60,
      student__width=0.5,
      method=dict(name=name),
    )
    Run(experiment, folder / name).finish()
  return folder


@pytest.fixture(scope='session')
def drawn(runs):
  """Both runs side by side, in a folder that was not there before."""
  output = runs.parent / 'both' / 'drawn'
  return visualize.draw(runs / 'kd', runs / 'plain', output)


@pytest.fixture
def changed(runs, tmp_path):
  """A copy of the run without a teacher, to be changed."""
  return shutil.copytree(runs / 'plain', tmp_path / 'changed')


def edit(file, change):
  """Changes the content of a JSON file in place."""
  content = json.loads(file.read_text())
  change(content)
  file.write_text(json.dumps(content))


def outputs(place):
  """What a network says of the 60 test images, without the evaluator."""
  variables, card = load_network(place)
  dataset = tiny.experiment(
    data__settings__train_size=40, data__settings__test_size=60
  ).dataset
  image = dataset.test.image.astype(np.float32) / 255
  image = (image - dataset.view.mean) / dataset.view.std
  said = cards.module_of(card).apply(variables, image.astype(np.float32))
  return said, dataset.test.label


def test_the_numbers_are_those_of_the_networks(runs, drawn):
  teacher, labels = outputs(runs / 'kd/networks/teacher')
  for name, seen in zip(('kd', 'plain'), drawn.students, strict=True):
    student, _ = outputs(runs / name / 'networks/student')
    summary = json.loads((runs / name / 'summary.json').read_text())
    assert seen.name == f'{name}/student' and seen.model == 'mlp x0.5'
    assert seen.top1 == summary['networks']['student']['top1']
    np.testing.assert_array_equal(seen.labels, labels)
    pooled = np.asarray(student.taps['pooled'])
    want = plots.neighbour_accuracy(pooled, labels)
    assert seen.neighbours == pytest.approx(want, abs=1.5 / 60)
    want = np.abs(np.corrcoef(student.logits.T) - np.corrcoef(teacher.logits.T))
    np.testing.assert_allclose(seen.difference, want, atol=1e-4)
  first, second = drawn.students
  assert not np.allclose(first.difference, second.difference, atol=1e-3)
  assert (first.teacher, second.teacher) == ('mlp', 'mlp of kd')


def test_both_pictures_have_two_panels(drawn):
  assert drawn.tsne.name == 'tsne.png'
  assert drawn.correlation.name == 'correlation.png'
  for path in (drawn.tsne, drawn.correlation):
    with PIL.Image.open(path) as image:
      assert image.format == 'PNG' and image.width > 1.3 * image.height


def test_the_numbers_are_printed(drawn):
  for seen in drawn.students:
    difference = plots.mean_difference(seen.difference)
    assert f'{100 * seen.neighbours:.2f} %' in str(drawn)
    assert f'{100 * seen.top1:.2f} %' in str(drawn)
    assert f'{difference:.4f}' in str(drawn)
  assert str(drawn.tsne) in str(drawn) and '60 test images' in str(drawn)


def test_the_command_prints_them_too(runs, drawn):
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'jaxkd.main', '--mode=pictures'),
      *(f'--workdir={runs / "kd"}', f'--against={runs / "plain"}'),
      f'--output={drawn.tsne.parent}',
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == str(drawn).split()


def test_one_run_has_one_panel(runs, tmp_path):
  alone = visualize.draw(runs / 'kd', None, tmp_path, examples=35)
  assert len(alone.students) == 1 and len(alone.students[0].points) == 35
  with PIL.Image.open(alone.correlation) as image:
    assert image.width < 1.3 * image.height


def test_two_networks_of_one_run(runs, tmp_path):
  folder = runs / 'kd/networks'
  both = visualize.draw(folder / 'student', folder / 'teacher', tmp_path)
  assert [x.name for x in both.students] == ['kd/student', 'kd/teacher']
  assert not both.students[1].difference.any()  # from itself, of the first


def test_a_teacher_by_checkpoint(runs, drawn, changed, tmp_path):
  teacher = str(runs / 'kd/networks/teacher')
  edit(
    changed / 'config.json', lambda x: x['teacher'].update(checkpoint=teacher)
  )
  results = json.loads((runs / 'kd/summary.json').read_text())['networks']
  edit(
    changed / 'summary.json',
    lambda x: x['networks'].update(teacher=results['teacher']),
  )
  (alone,) = visualize.draw(changed, None, tmp_path / 'out').students
  assert alone.teacher == 'mlp'
  np.testing.assert_array_equal(alone.difference, drawn.students[1].difference)


@pytest.mark.parametrize('alone', ['plain', 'kd/networks/teacher'])
def test_no_teacher_at_all(runs, tmp_path, alone):
  with pytest.raises(ValueError, match='no teacher in the run of .*--against'):
    visualize.draw(runs / alone, None, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('data', 'digits', 'data set synthetic, changed/student has digits'),
    (
      'class_names',
      list('abcd'),
      r'classes .*, changed/\w+ has 4: a, b, c, \.',
    ),
    ('image_shape', [9, 9, 3], r'images \[8, 8, 1\], .* has \[9, 9, 3\]'),
  ],
)
def test_other_data_are_refused(runs, changed, tmp_path, key, value, message):
  card = changed / 'networks/student/network.json'
  edit(card, lambda x: x.update({key: value}))
  with pytest.raises(ValueError, match=f'kd/student has the {message}'):
    visualize.draw(runs / 'kd', changed, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_other_test_images_are_refused(runs, changed, tmp_path):
  edit(changed / 'config.json', lambda x: x['data'].update(validation=9))
  message = 'kd/student and changed/student have other test images'
  with pytest.raises(ValueError, match=message):
    visualize.draw(runs / 'kd', changed, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_a_network_that_diverged_is_refused(runs, changed, tmp_path):
  file = changed / 'networks/student/variables.npz'
  with np.load(file) as arrays:
    broken = {name: np.full_like(x, np.nan) for name, x in arrays.items()}
  np.savez(file, **broken)
  with pytest.raises(
    ValueError, match='changed/student says what is not finit'
  ):
    visualize.draw(runs / 'kd', changed, tmp_path / 'out')


def test_a_folder_without_a_run_is_named(runs, tmp_path):
  with pytest.raises(FileNotFoundError, match=f'no run in {tmp_path}'):
    visualize.draw(runs / 'kd', tmp_path, tmp_path / 'out')


def test_a_run_of_a_study_is_called_by_its_recipe(tmp_path):
  run = tmp_path / 'runs' / 'MSE' / 'seed1'
  student = visualize.Student(run, ({}, {'network': 'student'}), None)
  assert student.name == 'MSE/seed1/student'
  assert student._replace(run=tmp_path / 'seeds').name == 'seeds/student'
