"""What guides may be: several objectives, several teachers of any model."""

import pathlib

import pytest
import tiny

from jaxkd import methods
from jaxkd.graph import Frozen, Fusion, Learner, Model
from jaxkd.methods.network_specs import network
from jaxkd.methods.transfers import weighted_objectives
from jaxkd.methods.weights import Product, Ramp, WarmUp
from jaxkd.runs.run import Run


def weights_of(phase):
  return {t.name: t.weight for t in phase.graph.transfers}


# Objectives


def test_one_objective_is_a_name_or_a_mapping_with_it():
  for spec in ('dkd', {'name': 'dkd', 'beta': 2.0}):
    ((objective, weight),) = weighted_objectives(spec)
    assert objective.name == 'dkd' and weight == 1.0
  ((objective, weight),) = weighted_objectives({'name': 'kd', 'weight': 0.5})
  assert str(objective) == 'kd(temperature=4.0)' and weight == 0.5


def test_several_objectives_have_weights_and_arguments():
  objectives = {
    objective.name: (str(objective), weight)
    for objective, weight in weighted_objectives(
      {
        'kd': 0.9,
        'dkd': {'weight': 2.0, 'beta': 6.0, 'warmup_epochs': 20},
        'early': {'name': 'fitnet', 'stage': 'stage1', 'weight': 100},
        'late': {'name': 'fitnet', 'stage': 'stage2'},
      }
    )
  }
  assert objectives['kd'] == ('kd(temperature=4.0)', 0.9)
  text, weight = objectives['dkd']
  assert 'beta=6.0' in text and weight == WarmUp(2.0, 20)
  text, weight = objectives['early']
  assert 'stage=stage1' in text and weight == 100
  assert objectives['late'][1] == 1.0


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    ({}, 'objective must name one objective or more, got {}'),
    ({'name': 3}, 'an objective is a name, like'),
    ({'kdd': 1.0}, "no objective 'kdd'. .*Did you mean 'kd'"),
    ({'temperature': 2.0}, "one with arguments needs its 'name'"),
    ({'kd': {'temprature': 2.0}}, "takes no setting 'temprature'"),
    (
      {'kd': 'dkd'},
      "a weight .* must be a finite number, 0 or more, got 'dkd'",
    ),
    ({'kd': {'weight': '2'}}, "0 or more, got '2'"),
    ({'kd': {'warmup_epochs': 1.5}}, 'warmup_epochs must be .* got 1.5'),
    ({'kd': {'warmup_epochs': '2'}}, "warmup_epochs must be .* got '2'"),
    ({'kd': {'weight': {'shedule': 'cosine'}}}, "mapping with a 'schedule'"),
  ],
)
def test_an_invalid_objective_is_refused(spec, message):
  with pytest.raises((KeyError, ValueError), match=message):
    weighted_objectives(spec)


def test_a_weight_can_be_that_of_the_benchmark():
  late = {'name': 'fitnet', 'weight': 'benchmark', 'warmup_epochs': 3}
  pairs = weighted_objectives({'crd': 'benchmark', 'late': late})
  assert [weight for _, weight in pairs] == [0.8, WarmUp(100.0, 3)]
  with pytest.raises(KeyError, match="published weight 'cmkd'"):
    weighted_objectives({'cmkd': 'benchmark'})


def test_another_objective_can_compare_with_labels():
  (phase,) = methods.distil(
    'comparative', label_objective={'name': 'comparative'}, label_weight=0.5
  )
  assert weights_of(phase) == {
    'labels->student:comparative': 0.5,
    'teacher->student:comparative': 1.0,
  }


def test_each_of_several_objectives_has_a_transfer_in_each_method():
  both = {'kd': 0.9, 'dkd': {'weight': 2.0, 'warmup_epochs': 5}}
  (phase,) = methods.distil(both, guide_weight=0.5)
  assert weights_of(phase) == {
    'labels->student:cross_entropy': 1.0,
    'teacher->student:kd': 0.45,
    'teacher->student:dkd': Product(0.5, WarmUp(2.0, 5)),
  }
  (phase,) = methods.slkd(both, members=1)
  fused = '1 slt0->student'
  assert weights_of(phase)[f'{fused}:kd'] == 0.9
  assert weights_of(phase)[f'{fused}:dkd'] == WarmUp(2.0, 5)
  assert weights_of(phase)['teacher->slt0:kd'] == 0.9 * 0.9
  (phase,) = methods.gpd(static=both, dynamic={'kd': 2.0, 'fitnet': 5.0})
  assert weights_of(phase)['teacher->dynamic_teacher:dkd'] == WarmUp(2.0, 5)
  assert weights_of(phase)['dynamic_teacher->student:fitnet'] == 15.0


def test_one_argument_takes_one_objective_or_several():
  both = {'kd': 0.9, 'crd': 0.8}
  for method in (methods.distil, methods.slkd, methods.ban, methods.dml):
    phases = method(objective=both)
    names = {t.objective.name for s in phases for t in s.graph.transfers}
    assert names == {'cross_entropy', 'kd', 'crd'}
  (phase,) = methods.kd(temperature=2.0, guide_weight=0.5, objective=both)
  assert weights_of(phase) == {
    'labels->student:cross_entropy': 0.1,
    'teacher->student:kd': 0.9,
    'teacher->student:crd': 0.8,
  }
  (phase,) = methods.gpd(static=both)
  names = [name for name in weights_of(phase) if name.startswith('teacher->')]
  assert names == [
    f'teacher->{learner}:{name}'
    for learner in ('dynamic_teacher', 'student')
    for name in both
  ]


@pytest.mark.parametrize(
  ('name', 'today'),
  [
    ('kd', 'objective'),
    ('distil', 'objective'),
    ('gpd', 'static'),
    ('pretrained', 'training_objective'),
  ],
)
def test_the_former_argument_of_several_objectives_is_refused(name, today):
  settings = {'objectives': {'kd': 0.9, 'crd': 0.8}}
  with pytest.raises(
    ValueError, match=f"no setting 'objectives': set '{today}'"
  ):
    methods.phases(name, settings, teacher_settings={})
  assert methods.renamed({'name': name, **settings}) == {
    'name': name,
    today: settings['objectives'],
  }


def test_every_weight_can_have_a_schedule():
  schedule = {'schedule': 'step', 'start': 0.9, 'end': 0.0, 'epoch': 0.5}
  ramp = Ramp(0.9, 0.0, 0.5, 0.5)
  (phase,) = methods.kd(label_weight=schedule, guide_weight=schedule)
  assert set(weights_of(phase).values()) == {ramp}
  (phase,) = methods.gpd(weight=schedule)
  name = 'dynamic_teacher->student:soft_cross_entropy'
  assert weights_of(phase)[name] == ramp
  (phase,) = methods.dml(('student', 'student'), guide_weight=schedule)
  assert weights_of(phase)['peer0->student:kd'] == Product(ramp, 0.5)
  with pytest.raises(ValueError, match='warmup_epochs=3 and a weight with a'):
    methods.distil(guide_weight=schedule, warmup_epochs=3)


# Teachers


def test_a_network_has_a_section_or_a_model_of_its_own():
  assert network(Learner, 'teacher') == Learner(like='teacher')
  assert network(Frozen, 'resnet14') == Frozen(model=Model('resnet14'))
  spec = {'name': 'vit_tiny', 'width': 2.0, 'settings': {'patch_size': 4}}
  model = Model('vit_tiny', 2.0, {'patch_size': 4})
  assert network(Learner, spec) == Learner(model=model)
  with pytest.raises(ValueError, match="no setting 'widht'. Did you mean"):
    network(Learner, {'name': 'vit_tiny', 'widht': 2.0})


def test_each_teacher_has_transfers_of_its_weight():
  phases = methods.distil(
    teachers={
      'teacher': 0.5,
      'resnet56': {'weight': 0.25, 'checkpoint': 'runs/56'},
      'third': {'name': 'resnet14'},
    },
    guide_weight=2.0,
  )
  (third, phase) = phases
  assert third.name == 'third'
  assert third.graph.networks == {'third': Learner(model=Model('resnet14'))}
  assert weights_of(phase) == {
    'labels->student:cross_entropy': 1.0,
    'teacher->student:kd': 1.0,
    'resnet56->student:kd': 0.5,
    'third->student:kd': 2.0,
  }
  networks = phase.graph.networks
  assert networks['resnet56'].model.checkpoint == 'runs/56'
  assert networks['third'] == Frozen(model=Model('resnet14'))


def test_teachers_can_be_fused_into_one_guide():
  settings = {'checkpoint': 'runs/56', 'weight': 0.3}
  teachers = {'teacher': 0.7, 'resnet56': settings}
  (phase,) = methods.distil(teachers=teachers, fuse=True)
  (guide,) = {str(t.guide) for t in phase.graph.transfers[1:]}
  assert guide == str(Fusion({'teacher': 0.7, 'resnet56': 0.3}))
  settings['weight'] = {'schedule': 'linear', 'start': 1, 'end': 0}
  with pytest.raises(ValueError, match="teacher 'resnet56' has a schedule"):
    methods.distil(teachers=teachers, fuse=True)


@pytest.mark.parametrize(
  ('teachers', 'message'),
  [
    ({}, 'one network or more, and not the student'),
    ({'student': 1.0}, 'one network or more, and not the student'),
    (['teacher', 'resnet56'], r"a mapping .*; got \['teacher', 'resnet56'\]"),
    ({'teacher': -1.0}, '0 or more, got -1.0'),
  ],
)
def test_invalid_teachers_are_refused(teachers, message):
  with pytest.raises(ValueError, match=message):
    methods.distil(teachers=teachers)


# Runs


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('guides')


def finish(folder, name, **changes):
  made = tiny.experiment(cache=str(folder / 'cache'), epochs=1, **changes)
  return Run(made, pathlib.Path(folder / name)).finish()


@pytest.fixture(scope='module')
def summary(folder):
  """Of a run whose second teacher is trained in it."""
  method = dict(
    name='distil', teachers={'teacher': 0.5, 'second': {'name': 'linear'}}
  )
  return finish(folder, 'two', method=method)


def test_a_teacher_without_a_checkpoint_is_trained_first(summary):
  assert list(summary['phases']) == ['teacher', 'second', 'distil']
  sizes = {n: x['params'] for n, x in summary['networks'].items()}
  assert sizes['second'] < sizes['teacher'] == sizes['student']


def test_a_second_teacher_can_come_from_a_checkpoint(folder, summary, capsys):
  place = str(folder / 'two/networks/second')
  method = dict(
    name='distil',
    teachers={
      'teacher': 0.5,
      'second': {'name': 'linear', 'checkpoint': place},
    },
  )
  again = finish(folder, 'again', method=method)
  assert list(again['phases']) == ['teacher', 'distil']
  for name in ('second', 'student'):
    digests = {x['networks'][name]['params_sha256'] for x in (summary, again)}
    assert len(digests) == 1
  assert 'second, frozen' in capsys.readouterr().out


@pytest.mark.usefixtures('summary')
def test_a_checkpoint_of_another_network_is_refused(folder):
  place = str(folder / 'two/networks/second')
  method = dict(
    name='distil', teachers={'other': {'name': 'resnet8', 'checkpoint': place}}
  )
  message = "model 'linear', the config asks for a other with model 'resnet8'"
  with pytest.raises(ValueError, match=f'{message}; change --config.method'):
    finish(folder, 'refused', method=method)


def test_a_network_with_its_own_model_is_described():
  second = {'name': 'mlp128', 'width': 2.0, 'weight': 0.5}
  made = tiny.experiment(
    method=dict(name='distil', teachers={'teacher': 1.0, 'second': second})
  )
  models = made.phases[-1].models
  assert models['second'] == Model('mlp128', 2.0)
  assert models['teacher'] is made.models['teacher']
  text = made.describe()
  lines = [x.split() for x in text.splitlines() if 'second ' in x]
  assert ['second', 'mlp128', 'x2', 'frozen'] in [line[:4] for line in lines]
