"""Evaluation of a run's networks: results, guides, and a picture."""

import json
import shutil

import finished
import jax
import numpy as np
import PIL.Image
import pytest
import tiny
from scipy.special import rel_entr, softmax

from jaxkd import checkpoints
from jaxkd.checkpoints import Card
from jaxkd.commands import evaluate
from jaxkd.commands.export import export
from jaxkd.problems import CLASSIFICATION
from jaxkd.runs.results import result_table
from jaxkd.runs.run import Run

METRICS = {'top1', 'top5', 'nll', 'brier', 'ece'}


@pytest.fixture(scope='module')
def run():
  """A finished run that has trained its teacher."""
  return finished.run('kd')


@pytest.fixture(scope='module')
def pretrained(run, tmp_path_factory):
  """A finished run whose teacher is a checkpoint."""
  folder = tmp_path_factory.mktemp('pretrained')
  shutil.copytree(run / 'networks/teacher', folder / 'checkpoint')
  experiment = tiny.experiment(
    epochs=1,
    student__width=0.5,
    teacher__checkpoint=str(folder / 'checkpoint'),
    **finished.DATA,
  )
  Run(experiment, folder / 'run').finish()
  return folder / 'run'


def evaluated(*arguments, **named):
  """The results of `evaluate`, with what they are of."""
  return evaluate.evaluate(*arguments, **named).to_json()


def data():
  """The data set of the runs."""
  return tiny.experiment(**finished.DATA).dataset


def logits(place):
  """The logits of a network on the test split, without the evaluator."""
  variables, card = checkpoints.load(place)
  dataset = data()
  image = (dataset.test.image / 255 - dataset.view.mean) / dataset.view.std
  apply = jax.jit(card.module().apply)
  return np.asarray(apply(variables, image.astype(np.float32)).logits)


def test_a_student_is_compared_with_the_teacher_of_its_run(run):
  result = evaluated(run)
  names = {'network', 'model', 'data', 'images', 'guides'}
  assert set(result) == names | METRICS
  assert set(result['guides']) == {'teacher'}
  student, teacher = (
    np.asarray(logits(run / 'networks' / name))
    for name in ('student', 'teacher')
  )
  agreement = result['guides']['teacher']
  same = np.mean(student.argmax(-1) == teacher.argmax(-1))
  assert agreement['agreement'] == pytest.approx(same)
  q, p = (softmax(np.float64(z), -1) for z in (student, teacher))
  kl = np.mean(np.sum(rel_entr(p, q), -1))
  assert agreement['kl'] == pytest.approx(kl, rel=1e-3, abs=1e-6)


def test_evaluation_has_the_results_of_the_run(run):
  networks = json.loads((run / 'summary.json').read_text())['networks']
  for name in ('student', 'teacher'):
    result = evaluated(run, name)
    card = json.loads((run / f'networks/{name}/network.json').read_text())
    for key in METRICS:
      assert result[key] == pytest.approx(networks[name][key], rel=1e-5)
      assert card[key] == pytest.approx(networks[name][key], rel=1e-5)


def test_a_teacher_and_a_network_alone_have_no_guide(run):
  assert evaluate.evaluate(run, 'teacher').guides == {}
  alone = evaluate.evaluate(run, file=run / 'networks/student')
  assert alone.guides == {}


def test_a_pretrained_teacher_is_read_from_its_checkpoint(pretrained, run):
  assert not (pretrained / 'networks/teacher').exists()
  mark = json.loads((pretrained / 'phases/distil.json').read_text())
  assert set(mark['frozen']['teacher']) == METRICS
  before = evaluate.evaluate(pretrained).guides
  assert set(before) == {'teacher'}
  checkpoint = pretrained.parent / 'checkpoint'
  away = checkpoint.rename(pretrained.parent / 'away')
  assert evaluate.evaluate(pretrained).guides == {}
  shutil.copytree(run / 'networks/student', checkpoint)  # another network
  assert evaluate.evaluate(pretrained).guides == {}
  shutil.rmtree(checkpoint)
  away.rename(checkpoint)
  assert evaluate.evaluate(pretrained).guides == before


def test_several_networks_are_evaluated_as_an_ensemble(run, tmp_path):
  result = evaluate.evaluate(run, 'student,teacher')
  both = [logits(run / 'networks' / name) for name in ('student', 'teacher')]
  mean = np.mean([softmax(x, axis=-1) for x in both], axis=0)
  label = data().test.label
  nll = -np.mean(np.log(mean[np.arange(len(label)), label]))
  np.testing.assert_allclose(result.results['nll'], nll, rtol=1e-5)
  assert result.results['top1'] == np.mean(np.argmax(mean, axis=-1) == label)
  assert result.guides == {}
  assert result.card.name == 'ensemble'
  assert evaluate.draw(result, run) is None
  with pytest.raises(FileNotFoundError, match='assistant'):
    evaluate.evaluate(run, 'student,assistant')
  with pytest.raises(ValueError, match='names a network twice'):
    evaluate.evaluate(run, 'student,student')
  with pytest.raises(ValueError, match='can be evaluated'):
    export(run, tmp_path / 'both.npz', 'student,teacher')


def test_calibration_is_drawn_in_the_folder_of_the_run(pretrained, tmp_path):
  result = evaluate.evaluate(pretrained)
  picture = evaluate.draw(result, pretrained)
  assert picture == pretrained / 'reliability.png'
  with PIL.Image.open(picture) as image:
    assert image.format == 'PNG'
  assert evaluate.draw(result, tmp_path) is None
  assert not list(tmp_path.iterdir())


def test_every_metric_is_printed():
  result = evaluate.Evaluation(
    card=Card('vgg8', network='slt0', width=0.5),
    problem=CLASSIFICATION,
    data='a mixture',
    images=1234,
    results={name: 0.125 for name in CLASSIFICATION.displays},
    guides={'teacher': {'agreement': 0.75, 'kl': 0.25}},
    reliability={},
  )
  assert str(result).split('\n') == [
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


def test_a_metric_that_an_older_run_lacks_is_a_dash(run):
  summary = json.loads((run / 'summary.json').read_text())
  student = summary['networks']['student']
  line = result_table(summary).split('\n')[-1]
  assert f'{student["brier"]:.3f}  {100 * student["ece"]:.2f} %' in line
  del student['brier'], student['ece']
  head, *_, line = result_table(summary).split('\n')
  assert line.split()[-5:-3] == ['-', '-']
  assert head.split()[-4:] == ['Brier', 'ECE', 'parameters', 'MACs']
