"""Phases before the training: which parameters learn, and which are kept."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_methods import NoCheckpoints, start

from jaxkd import methods, tree
from jaxkd.checkpoints import native
from jaxkd.runs import run, vmapped
from jaxkd.runs.run import Run
from jaxkd.training import phase as training
from jaxkd.training.vmapped import train_together

FT = 'teacher->student:ft'


def weights_of(phase):
  return {t.name: t.weight for t in phase.graph.transfers}


def test_features_come_first_and_labels_next():
  first, second = methods.pretrained('fsp', pretraining_rate=0.2)
  assert weights_of(first) == {'teacher->student:fsp': 1.0}
  assert weights_of(second) == {'labels->student:cross_entropy': 1.0}
  assert (first.epochs, first.learning_rate, first.schedule) == (
    30,
    0.2,
    'constant',
  )
  assert (second.epochs, second.learning_rate, second.schedule) == (None,) * 3
  _, second = methods.pretrained(
    {'fitnet': 2.0, 'ab': {}}, training_objective={'kd': 0.9}, label_weight=0.1
  )
  assert weights_of(second) == {
    'labels->student:cross_entropy': 0.1,
    'teacher->student:kd': 0.9,
  }


def test_the_paraphraser_comes_first_and_the_student_next():
  first, second = methods.ft(stage='stage2', guide_stage='stage3', rate=0.25)
  assert weights_of(first) == {FT: 1.0}
  assert weights_of(second) == {'labels->student:cross_entropy': 1.0, FT: 200.0}
  assert (first.epochs, first.learning_rate) == (30, 0.01)
  ends = dict(stage='stage2', guide_stage='stage3', rate=0.25)
  for phase in (first, second):
    settings = phase.graph.transfers[-1].objective.settings
    assert {key: settings[key] for key in ends} == ends
  assert settings['reconstruction'] == 0


@pytest.mark.parametrize('method', [methods.pretrained, methods.ft])
def test_a_stage_has_an_epoch(method):
  with pytest.raises(ValueError, match='pretraining_epochs must be .* got 0'):
    method(pretraining_epochs=0)


def test_the_first_phase_has_a_constant_rate():
  method = dict(name='pretrained', pretraining_epochs=4)
  experiment = tiny.experiment(method=method, schedule__milestones=(0.5,))
  lines = [x for x in experiment.describe().splitlines() if 'Phase' in x]
  assert lines[1].endswith(
    '(4 epochs x 5 steps, sgd at 0.05, constant schedule)'
  )
  assert lines[2].endswith(
    '(2 epochs x 5 steps, sgd at 0.05, milestones schedule)'
  )
  sizes = []
  for phase in experiment.phases[1:]:
    optimizer = phase.make_optimizer(1)
    state, params = optimizer.init(jnp.ones(())), jnp.ones(())
    for _ in range(2):
      change, state = optimizer.update(jnp.ones(()), state, params)
    sizes.append(-change)
  assert sizes[0] > 5 * sizes[1]


# Which parameters learn


@functools.cache
def moved(index, **method):
  """The parameters and the memory that two steps of a phase change."""
  experiment = tiny.experiment(method=method, optimizer__weight_decay=0.1)
  feed, state = start(experiment.phases[index].task(experiment.dataset))
  # A step donates its arguments.
  before = jax.tree.map(np.array, state)
  for call in list(feed.calls(0, 0))[:2]:
    state, _ = call.run(state)

  def names(part):
    old, new = (
      tree.leaves(getattr(before, part)),
      tree.leaves(state._asdict()[part]),
    )
    return {name for name in old if np.any(old[name] != new[name])}, set(old)

  return {part: names(part) for part in ('params', 'objectives', 'memory')}


def test_parameters_that_no_loss_reaches_are_not_updated():
  """The head is such, although it would decay."""
  changed, everything = moved(1, name='pretrained')['params']
  own = {name for name in everything if name.startswith('student/')}
  assert own - changed == {'student/head/kernel', 'student/head/bias'}


def test_the_paraphraser_learns_in_the_first_phase_only():
  first, second = (moved(index, name='ft') for index in (1, 2))
  assert not first['params'][0]
  changed, everything = first['objectives']
  assert changed == everything
  assert all('/paraphraser/' in name for name in changed)
  changed, everything = second['params']
  assert 'student/head/kernel' in changed
  assert not any('paraphraser' in name for name in second['objectives'][1])
  changed, everything = second['memory']
  assert not changed
  assert all(f'{FT}/paraphraser/' in name for name in everything)


# Which parameters are kept


def first_state(index, carried):
  experiment = tiny.experiment(method=dict(name='ft'))
  task = experiment.phases[index].task(experiment.dataset)
  teacher = jax.jit(functools.partial(task.program.init_network, 'teacher'))
  initial = {'teacher': teacher(jax.random.key(0, impl='rbg'))}
  initial = training.module_variables(task.program, initial, seed=0)
  state, _ = training.start(task, initial, NoCheckpoints(), carried)
  return state


@pytest.fixture(scope='module')
def paraphraser():
  """Parameters as after the first phase."""
  own = first_state(1, {}).objectives[FT]
  return jax.tree.map(lambda x: np.array(x + 1), own)


def test_an_objective_keeps_its_parameters(paraphraser):
  others = {FT: paraphraser, 'another->transfer:ft': paraphraser}
  state = first_state(2, others)
  chex.assert_trees_all_equal(state.memory, {FT: paraphraser})
  assert set(state.objectives[FT]) == {'translator'}
  chex.assert_trees_all_equal(
    first_state(2, {}).params,
    state.params,  # the others are initialised as usual
  )


def test_parameters_of_another_shape_are_explained(paraphraser):
  wide = jax.tree.map(lambda x: np.stack([x, x]), paraphraser)
  message = "'teacher->student:ft' from an earlier phase"
  with pytest.raises(ValueError, match=message):
    first_state(2, {FT: wide})


class Killed(Exception):
  """The end of a process."""


# One learned number, of the same transfer in both phases.
CTKD = 'teacher->student:ctkd'
AGAIN = dict(
  name='pretrained',
  objective='ctkd',
  training_objective={'ctkd': 1.0},
  pretraining_epochs=1,
)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return str(tmp_path_factory.mktemp('pretrain') / 'cache')


def again(cache, **changes):
  return tiny.experiment(method=AGAIN, cache=cache, epochs=1, **changes)


@pytest.mark.slow
def test_resume_after_the_first_phase_is_bit_identical(
  tmp_path, cache, monkeypatch
):
  """With the objective's parameters, which the first phase saves."""

  def digest(name):
    summary = Run(again(cache), tmp_path / name).finish()
    return summary['networks']['student']['params_sha256']

  def killed(task, *args, **others):
    if task.name == 'train':
      raise Killed
    return train(task, *args, **others)

  whole, train = digest('whole'), run.train_phase
  for folder in ('kept', 'lost'):
    with monkeypatch.context() as patch:
      patch.setattr(run, 'train_phase', killed)
      with pytest.raises(Killed):
        digest(folder)
  assert digest('kept') == whole
  left = {x: x / 'phases/pretrain.npz' for x in tmp_path.iterdir()}
  arrays = native.load_tree(left[tmp_path / 'lost'])
  assert arrays[CTKD]['curriculum'] != 1  # where it starts
  left[tmp_path / 'lost'].unlink()
  assert digest('lost') != whole
  assert not (tmp_path / 'kept/phases/train.npz').exists()  # it is the last


def test_seeds_together_keep_their_objectives(cache, monkeypatch):
  before, after = [], []

  def spy(tasks, initial, carried):
    before.append([dict(x) for x in carried])
    outcomes = train_together(tasks, initial, carried)
    after.append([outcome.objectives for outcome in outcomes])
    return outcomes

  monkeypatch.setattr(vmapped, 'train_together', spy)
  vmapped.run_together([again(cache, seed=seed) for seed in (0, 1)])
  teacher, first, second = before
  assert teacher == first == [{}, {}]
  chex.assert_trees_all_equal(second, after[1])
  numbers = [own[CTKD]['curriculum'] for own in second]
  assert len({*map(float, numbers), 1.0}) == 3
