"""What is said of a run's network: measures, its teacher's, and a picture."""

import json
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest
import tiny
from scipy.special import rel_entr, softmax

from jaxkd.checkpoints import card as cards
from jaxkd.checkpoints.native import load_checkpoint
from jaxkd.commands import evaluate
from jaxkd.commands.export import export
from jaxkd.runs.results import result_table
from jaxkd.runs.run import Run

MEASURED = {'top1', 'top5', 'nll', 'brier', 'ece'}


def finish(workdir, **changes):
  return Run(tiny.experiment(**changes), pathlib.Path(workdir)).finish()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('measure')


@pytest.fixture(scope='module')
def run(folder):
  """A finished run that has trained its teacher."""
  finish(folder / 'run', cache=str(folder / 'cache'))
  return folder / 'run'


@pytest.fixture(scope='module')
def given(folder, run):
  """A finished run that was given a teacher by its checkpoint."""
  shutil.copytree(run / 'networks/teacher', folder / 'checkpoint')
  checkpoint = str(folder / 'checkpoint')
  finish(folder / 'given', teacher__checkpoint=checkpoint)
  return folder / 'given'


def logits(place):
  """What a network says of the test split, and the labels."""
  variables, card = load_checkpoint(place)
  dataset = tiny.experiment().dataset
  image = (dataset.test.image / 255 - dataset.view.mean) / dataset.view.std
  module = cards.module_of(card)
  return module.apply(variables, image.astype(np.float32)).logits


def test_a_student_is_compared_with_the_teacher_of_its_run(run):
  result = evaluate.evaluate(run)
  names = {'network', 'model', 'data', 'images', 'guides'}
  assert set(result) == names | MEASURED
  assert set(result['guides']) == {'teacher'}
  student, teacher = (
    np.asarray(logits(run / 'networks' / name))
    for name in ('student', 'teacher')
  )
  found = result['guides']['teacher']
  same = np.mean(student.argmax(-1) == teacher.argmax(-1))
  assert found['agreement'] == pytest.approx(same)
  q, p = (softmax(np.float64(z), -1) for z in (student, teacher))
  kl = np.mean(np.sum(rel_entr(p, q), -1))
  assert found['kl'] == pytest.approx(kl, rel=1e-3, abs=1e-6)


def test_evaluation_repeats_what_the_run_has_measured(run):
  networks = json.loads((run / 'summary.json').read_text())['networks']
  for name in ('student', 'teacher'):
    result = evaluate.evaluate(run, name)
    card = json.loads((run / f'networks/{name}/network.json').read_text())
    for key in MEASURED:
      assert result[key] == pytest.approx(networks[name][key], rel=1e-5)
      assert card[key] == pytest.approx(networks[name][key], rel=1e-5)


def test_a_teacher_and_a_network_alone_have_no_guide(run):
  assert evaluate.evaluate(run, 'teacher')['guides'] == {}
  alone = evaluate.measure(run, file=run / 'networks/student')
  assert alone.guides == {}


def test_a_given_teacher_is_read_where_it_was_given(given, run):
  assert not (given / 'networks/teacher').exists()
  mark = json.loads((given / 'phases/distil.json').read_text())
  assert set(mark['frozen']['teacher']) == MEASURED
  before = evaluate.evaluate(given)['guides']
  assert set(before) == {'teacher'}
  checkpoint = given.parent / 'checkpoint'
  away = checkpoint.rename(given.parent / 'away')
  assert evaluate.evaluate(given)['guides'] == {}
  shutil.copytree(run / 'networks/student', checkpoint)  # another network
  assert evaluate.evaluate(given)['guides'] == {}
  shutil.rmtree(checkpoint)
  away.rename(checkpoint)
  assert evaluate.evaluate(given)['guides'] == before


def test_several_networks_are_measured_as_an_ensemble(run):
  found = evaluate.measure(run, 'student,teacher')
  both = [logits(run / 'networks' / name) for name in ('student', 'teacher')]
  mean = np.mean([softmax(x, axis=-1) for x in both], axis=0)
  label = tiny.experiment().dataset.test.label
  nll = -np.mean(np.log(mean[np.arange(len(label)), label]))
  np.testing.assert_allclose(found.results['nll'], nll, rtol=1e-5)
  assert found.results['top1'] == np.mean(np.argmax(mean, axis=-1) == label)
  assert found.guides == {}
  assert found.name == 'ensemble'
  assert evaluate.draw(found, run) is None
  with pytest.raises(FileNotFoundError, match='assistant'):
    evaluate.measure(run, 'student,assistant')
  with pytest.raises(ValueError, match='names a network twice'):
    evaluate.measure(run, 'student,student')
  with pytest.raises(ValueError, match='can be measured'):
    export(run, run / 'both.npz', 'student,teacher')


def test_the_picture_is_the_runs(run, tmp_path):
  found = evaluate.measure(run)
  picture = evaluate.draw(found, run)
  assert picture == run / 'reliability.png'
  with PIL.Image.open(picture) as image:
    assert image.format == 'PNG'
  assert evaluate.draw(found, tmp_path) is None
  assert not list(tmp_path.iterdir())


def test_what_is_printed_names_every_measure():
  found = evaluate.Measured(
    card={'network': 'slt0', 'model': 'vgg8', 'width': 0.5},
    data='a mixture',
    images=1234,
    results={name: 0.125 for name in evaluate.MEASURES},
    guides={'teacher': {'agreement': 0.75, 'kl': 0.25}},
    reliability={},
  )
  assert str(found).split('\n') == [
    'slt0, vgg8 x0.5                       test',
    'top-1                              12.50 %',
    'top-5                              12.50 %',
    'NLL (nats)                           0.125',
    'Brier score                          0.125',
    'ECE                                12.50 %',
    'squared distance to the posterior    0.125',
    'KL(posterior || network) (nats)      0.125',
    'agreement with teacher             75.00 %',
    'KL(teacher || slt0) (nats)           0.250',
    '',
    'Measured on 1,234 test images of a mixture.',
  ]


def test_what_an_older_run_has_not_measured_is_a_dash(run):
  summary = json.loads((run / 'summary.json').read_text())
  student = summary['networks']['student']
  line = result_table(summary).split('\n')[-1]
  assert f'{student["brier"]:.3f}  {100 * student["ece"]:.2f} %' in line
  del student['brier'], student['ece']
  head, *_, line = result_table(summary).split('\n')
  assert line.split()[-5:-3] == ['-', '-']
  assert head.split()[-4:] == ['Brier', 'ECE', 'parameters', 'MACs']
