"""Trainings on images with any number of labels, and what they refuse."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import tagged
import tiny

from jaxkd import checkpoints, objectives
from jaxkd.commands import evaluate, visualize
from jaxkd.data import Split
from jaxkd.graph import LABELS, Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.graph.several_labels import check_sigmoid
from jaxkd.metrics import several_labels
from jaxkd.models import build as build_model
from jaxkd.objectives import table
from jaxkd.objectives.dependence import depends_on
from jaxkd.problems import CLASSIFICATION, MULTI_LABEL
from jaxkd.runs.experiment import build
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study
from jaxkd.training import mesh as meshes
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.feed import Feed

KD = dict(name='kd', objective='binary_kd', label_weight=1.0)


@pytest.fixture(scope='module')
def name(tmp_path_factory):
  return tagged.write(tmp_path_factory.mktemp('tagged'))


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return str(tmp_path_factory.mktemp('cache'))


def experiment(name, **changes):
  return build(tagged.config(name, **changes))


@pytest.fixture(scope='module')
def run(name, cache, tmp_path_factory):
  """A finished run: a teacher by binary cross-entropy, and its student."""
  made = experiment(name, method=KD, cache=cache, epochs=4)
  folder = tmp_path_factory.mktemp('run')
  Run(made, folder).finish()
  return made, folder


# Training.


def test_a_teacher_and_its_student_learn_the_labels(run):
  made, folder = run
  summary = json.loads((folder / 'summary.json').read_text())
  assert summary['problem'] == 'multi_label'
  guess, deviation = MULTI_LABEL.chance(made.dataset)
  for network in ('teacher', 'student'):
    result = summary['networks'][network]
    assert result['map'] > guess + 3 * deviation
    assert 0 < result['f1_micro'] <= 1 and result['best_map_on_test'] <= 1
    assert 'top1' not in result
  losses = [
    json.loads(line)['train/loss']
    for line in (folder / 'metrics.jsonl').read_text().splitlines()
    if json.loads(line)['phase'] == 'distil'
  ]
  assert losses[-1] < losses[0]


def test_labels_teach_by_binary_cross_entropy_unless_told_otherwise(name):
  made = experiment(name, method=KD)
  names = [t.name for phase in made.phases for t in phase.graph.transfers]
  assert names == [
    'labels->teacher:binary_cross_entropy',
    'labels->student:binary_cross_entropy',
    'teacher->student:binary_kd',
  ]
  weighted = dict(name='binary_cross_entropy', positive_weight=(1.0, 2.0, 3.0))
  (phase,) = experiment(
    name, method=dict(name='plain', label_objective=weighted)
  ).phases
  (transfer,) = phase.graph.transfers
  assert transfer.objective.settings['positive_weight'] == (1.0, 2.0, 3.0)
  assert tiny.experiment().phases[0].graph.transfers[0].name == (
    'labels->teacher:cross_entropy'
  )


@pytest.mark.parametrize(
  'method',
  [
    dict(name='gpd', static='binary_kd', dynamic='binary_kd'),
    dict(name='slkd', objective='binary_kd'),
    dict(name='dml', objective='binary_kd'),
    dict(name='distil', objective={'binary_kd': 1.0, 'rkd': 0.1}),
    dict(name='simkd'),
    dict(
      name='distil',
      objective={
        'name': 'annealed',
        'start': 3.0,
        'objective': dict(name='binary_kd', temperature=1.0),
      },
    ),
  ],
  ids=lambda method: method['name'],
)
def test_methods_take_a_binary_objective(name, method):
  small = dict(student__name='mlp', student__width=0.5)
  if method['name'] in ('gpd', 'slkd'):
    small = dict(student__name='resnet8', student__width=0.25)
  made = experiment(name, method=method, **small)
  assert made.source.problem is MULTI_LABEL


def test_evaluation_gathers_the_scores_of_the_whole_split(run, monkeypatch):
  """Also in several batches, with padding in the last one."""
  made, folder = run
  monkeypatch.setattr('jaxkd.training.evaluation.BATCH', 2)
  test = made.dataset.test
  mesh = meshes.make_mesh()
  evaluator = Evaluator(test, made.dataset.view, MULTI_LABEL, mesh)
  network = checkpoints.load(folder / 'networks/student')
  own = network.card.module(), network.module_variables()
  logits = evaluator.logits(*own, len(test))
  want = several_labels.mean_average_precision(logits, test.label)
  assert evaluator(*own)['map'] == pytest.approx(want)
  assert network.card.results['map'] == pytest.approx(want, abs=1e-3)
  got = evaluator.totals_of(
    lambda image: np.asarray(own[0].apply(own[1], image).logits)
  )
  assert MULTI_LABEL.summary(got)['map'] == pytest.approx(want, abs=1e-3)


def test_classification_gathers_nothing():
  assert CLASSIFICATION.rows is None


def test_a_network_is_evaluated_and_compared_with_its_teacher(run):
  _, folder = run
  result = evaluate.evaluate(folder)
  text = str(result)
  assert result.card.problem == 'multi_label'
  for word in ('mAP', 'micro F1', 'agreement with teacher', 'KL(teacher ||'):
    assert word in text
  assert evaluate.draw(result, folder) is None


# What is refused.


def test_pictures_and_ensembles_are_refused(run, tmp_path):
  _, folder = run
  with pytest.raises(
    ValueError, match="'multi_label', whose images have sever"
  ):
    visualize.draw(folder, None, tmp_path)
  with pytest.raises(ValueError, match='averages probabilities of a softmax'):
    evaluate.evaluate(folder, 'student,teacher')


@pytest.mark.parametrize(
  ('method', 'message'),
  [
    (dict(name='kd'), "kd.* takes logits .*Set objective='binary_kd'"),
    (dict(name='distil', objective='dkd'), 'dkd.* takes label and logits'),
    (
      dict(name='distil', objective='pkt', label_objective='cross_entropy'),
      "takes label .*label_objective='binary_cross_entropy'",
    ),
    (
      dict(name='distil', objective=dict(name='weighted', score='target')),
      'weighted.* takes label and logits',
    ),
    (dict(name='gpd', static='binary_kd'), 'soft_cross_entropy'),
  ],
)
def test_objectives_of_a_softmax_are_refused(name, method, message):
  small = dict(student__name='mlp', student__width=0.5)
  if method['name'] == 'gpd':
    small = dict(student__name='resnet8', student__width=0.25)
  with pytest.raises(ValueError, match=message):
    experiment(name, method=method, **small)


@pytest.mark.parametrize('loss', ['brier', 'square_logits'])
def test_teacher_losses_of_one_label_are_refused(name, loss):
  with pytest.raises(ValueError, match=f'{loss}.* takes label and logits'):
    experiment(name, method=KD, teacher__loss=loss)


def test_a_softmax_teacher_is_refused_unless_it_is_stated(
  run, name, tmp_path, cache
):
  _, folder = run
  teacher = checkpoints.load(folder / 'networks/teacher')
  assert teacher.card.to_json()['problem'] == 'multi_label'
  other = teacher.card.replace(problem='')  # of data, by an older version
  checkpoints.save(tmp_path / 'softmax', teacher.variables, other)
  settings = dict(method=KD, teacher__checkpoint=str(tmp_path / 'softmax'))
  made = experiment(name, **settings)
  message = "trained for the problem 'classification', and .*'multi_label'"
  with pytest.raises(ValueError, match=message):
    Run(made, tmp_path / 'a').finish()
  settings |= dict(teacher__problem='multi_label', epochs=1)
  Run(experiment(name, **settings), tmp_path / 'b').finish()
  settings['teacher__problem'] = 'multilabel'
  with pytest.raises(KeyError, match="no problem 'multilabel'. Did you mean"):
    Run(experiment(name, **settings), tmp_path / 'c').finish()


def test_a_teacher_at_chance_is_refused(run, name, tmp_path):
  _, folder = run
  teacher = checkpoints.load(folder / 'networks/teacher')
  params = teacher.variables['params']
  zero = {**params, 'head': {k: 0 * x for k, x in params['head'].items()}}
  blank = {**teacher.variables, 'params': zero}
  checkpoints.save(tmp_path / 'blank', blank, teacher.card)
  made = experiment(
    name, method=KD, teacher__checkpoint=str(tmp_path / 'blank')
  )
  with pytest.raises(ValueError, match='has mAP .* where guessing has'):
    Run(made, tmp_path / 'run').finish()


def test_a_study_of_accuracies_is_refused(name, tmp_path):
  study = tagged.config(name, method=KD)
  study.study.seeds = (0, 1)
  with pytest.raises(
    ValueError, match="has no metric 'top1', but map, best_map"
  ):
    Study(study, tmp_path)


# Every objective says how it reads logits and labels.


def graph_of(objective):
  guide = 'teacher'
  networks = {'teacher': Learner(), 'student': Learner()}
  own = objectives.binary_cross_entropy()
  transfers = (
    Transfer(LABELS, 'teacher', own),
    Transfer(guide, 'student', objective),
  )
  return Graph(networks, transfers)


QUICK = ('binary_kd', 'cross_entropy', 'dkd', 'fitnet', 'kd', 'rkd', 'weighted')


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted(objectives.CATALOG)
  ],
)
def test_an_objective_that_reads_logits_or_labels_is_refused(name):
  objective = objectives.make(objectives.example(name, table.CLASSES))
  graph = graph_of(objective)
  program = bind(
    graph, lambda *_: build_model('resnet8', table.CLASSES), (8, 8, 3)
  )
  reads = {x.rpartition('/')[2] for x in table.tapped(objective)}
  if objective.sigmoid or not reads & {'logits', 'label'}:
    check_sigmoid(program)
  else:
    with pytest.raises(ValueError, match=f'->student:{name}: .* takes '):
      check_sigmoid(program)


def test_dependence_is_on_values_not_on_shapes():
  def function(inputs):
    used = inputs['a'] * inputs['b'].shape[0]
    return {'x': used, 'y': 0 * inputs['d']['e']}, 1.0

  inputs = dict(a=np.ones(2), b=np.ones(3), c=np.ones(1), d={'e': np.ones(1)})
  assert depends_on(function, inputs) == ['a', 'd/e']


def test_weights_and_sets_come_from_the_host_as_from_memory(name):
  """A split that is decoded batch by batch yields all rows of an example."""
  dataset = experiment(name, method=KD).dataset
  split = dataset.train
  weight = np.linspace(0, 2, len(split), dtype=np.float32)
  image, label = split.image, split.label
  splits = (
    Split(label, image, weight=weight),
    Split(label, load=lambda index, _: image[index], weight=weight),
  )

  def step(state, batch):
    total = jnp.sum(batch['mask'][:, None] * batch['label'], axis=0)
    return state + total, {'loss': jnp.sum(batch['mask'])}

  sums = []
  for train in splits:
    made = dataclasses.replace(dataset, train=train)
    mesh = meshes.make_mesh()
    feed = Feed(made, MULTI_LABEL, mesh, 8, seed=0, step=step)
    state = jnp.zeros(3)
    for call in feed.calls(0, 0):
      state, _ = call.run(state)
    sums.append(state)
  np.testing.assert_allclose(sums[0], weight @ label, rtol=1e-5)
  np.testing.assert_allclose(sums[1], weight @ label, rtol=1e-5)
