"""Pictures of two runs: their numbers, their panels, and refusals."""

import json
import shutil

import finished
import jax
import numpy as np
import PIL.Image
import pytest
import tiny

from jaxkd import checkpoints, plots
from jaxkd.checkpoints import Card, SavedNetwork
from jaxkd.commands import visualize
from jaxkd.runs import artifacts


@pytest.fixture(scope='module')
def runs():
  """A run with a teacher, 'kd', and one without, 'plain', of the same data."""
  assert finished.run('kd').parent == finished.run('plain').parent
  return finished.folder()


@pytest.fixture(scope='module')
def drawn(runs, tmp_path_factory):
  """Both runs side by side, in a folder that did not exist before."""
  output = tmp_path_factory.mktemp('both') / 'drawn'
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
  """A network's outputs on the 60 test images, without the evaluator."""
  variables, card = checkpoints.load(place)
  dataset = tiny.experiment(**finished.DATA).dataset
  image = dataset.test.image.astype(np.float32) / 255
  image = (image - dataset.view.mean) / dataset.view.std
  apply = jax.jit(card.module().apply)
  outputs = apply(variables, image.astype(np.float32))
  return jax.tree.map(np.asarray, outputs), dataset.test.label


def test_the_numbers_are_those_of_the_networks(runs, drawn):
  teacher, labels = outputs(runs / 'kd/networks/teacher')
  for name, portrait in zip(('kd', 'plain'), drawn.students, strict=True):
    student, _ = outputs(runs / name / 'networks/student')
    summary = json.loads((runs / name / 'summary.json').read_text())
    assert portrait.name == f'{name}/student' and portrait.model == 'mlp x0.5'
    assert portrait.top1 == summary['networks']['student']['top1']
    np.testing.assert_array_equal(portrait.labels, labels)
    pooled = np.asarray(student.taps['pooled'])
    want = plots.neighbour_accuracy(pooled, labels)
    assert portrait.neighbours == pytest.approx(want, abs=1.5 / 60)
    want = np.abs(np.corrcoef(student.logits.T) - np.corrcoef(teacher.logits.T))
    np.testing.assert_allclose(portrait.difference, want, atol=1e-4)
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
  for portrait in drawn.students:
    difference = plots.mean_difference(portrait.difference)
    assert f'{100 * portrait.neighbours:.2f} %' in str(drawn)
    assert f'{100 * portrait.top1:.2f} %' in str(drawn)
    assert f'{difference:.4f}' in str(drawn)
  assert str(drawn.tsne) in str(drawn) and '60 test images' in str(drawn)


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
  edit(changed / 'phases/train.json', lambda x: x['frozen'].update(teacher={}))
  results = json.loads((runs / 'kd/summary.json').read_text())['networks']
  edit(
    changed / 'summary.json',
    lambda x: x['networks'].update(teacher=results['teacher']),
  )
  (alone,) = visualize.draw(changed, None, tmp_path / 'out').students
  assert alone.teacher == 'mlp'
  np.testing.assert_array_equal(alone.difference, drawn.students[1].difference)


def test_the_teacher_of_a_chain_is_its_first_guide(runs, changed):
  for name in ('teacher', 'assistant'):
    shutil.copytree(runs / 'kd/networks/teacher', changed / 'networks' / name)
  mark = {'networks': ['assistant'], 'frozen': {'teacher': {}}}
  (changed / 'phases/assistant.json').write_text(json.dumps(mark))
  edit(
    changed / 'phases/train.json', lambda x: x['frozen'].update(assistant={})
  )
  edit(changed / 'summary.json', lambda x: x['phases'].update(assistant={}))
  edit(
    changed / 'summary.json',
    lambda x: x.update(phases=dict(reversed(x['phases'].items()))),
  )
  student = checkpoints.load_card(changed)
  assert list(artifacts.guides(changed, student)) == ['assistant']
  teacher = artifacts.first_guide(changed, student)
  assert teacher is not None and teacher.card.network == 'teacher'
  assert artifacts.first_guide(changed, teacher.card) is None


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
  message = 'kd/student and changed/student have different test images'
  with pytest.raises(ValueError, match=message):
    visualize.draw(runs / 'kd', changed, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_a_network_that_diverged_is_refused(runs, changed, tmp_path):
  file = changed / 'networks/student/variables.npz'
  with np.load(file) as arrays:
    broken = {name: np.full_like(x, np.nan) for name, x in arrays.items()}
  np.savez(file, **broken)
  with pytest.raises(ValueError, match='of changed/student on .* are NaN or'):
    visualize.draw(runs / 'kd', changed, tmp_path / 'out')


def test_a_folder_without_a_run_is_named(runs, tmp_path):
  with pytest.raises(FileNotFoundError, match=f'no run in {tmp_path}'):
    visualize.draw(runs / 'kd', tmp_path, tmp_path / 'out')


def test_a_run_of_a_study_is_named_by_its_variant(tmp_path):
  run = tmp_path / 'runs' / 'MSE' / 'seed1'
  network = SavedNetwork({}, Card('mlp', network='student'))
  student = visualize.Student(run, network, None)
  assert student.name == 'MSE/seed1/student'
  assert student._replace(run=tmp_path / 'seeds').name == 'seeds/student'
