"""The teacher's recipe: its losses, start, stop, read-out and cache."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, data, methods, models, tree
from jaxkd import config as configs
from jaxkd.commands import evaluate, export
from jaxkd.graph.program import predict
from jaxkd.models.read_out import READ_OUTS
from jaxkd.runs import pretrained
from jaxkd.runs.cache import Cache, settings_of
from jaxkd.runs.experiment import Source, build
from jaxkd.runs.run import Run
from jaxkd.training import log
from jaxkd.training.checkpoint import Checkpoints

# At the default rate, these steps are too large for it.
SQUARE = dict(teacher__loss='square_logits', teacher__learning_rate=0.005)


def finish(workdir, **changes):
  return Run(tiny.experiment(**changes), pathlib.Path(workdir)).finish()


def digest(summary, name='student'):
  return summary['networks'][name]['params_sha256']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('teacher')


@pytest.fixture(scope='module')
def cache(folder):
  return str(folder / 'cache')


@pytest.fixture(scope='module')
def square(folder, cache):
  """A run that trains a teacher by the square loss, and distils it."""
  return finish(folder / 'square', cache=cache, **SQUARE)


@pytest.fixture(scope='module')
def exported(square, folder):
  assert square
  file = folder / 'teacher.npz'
  export.export(folder / 'square', file, 'teacher')
  return file


class TestReadOut:
  """How outputs become logits goes with the teacher wherever it is used."""

  @pytest.mark.parametrize(
    ('changes', 'want'),
    [
      ({}, 'softmax'),
      (dict(teacher__loss='brier'), 'softmax'),
      (SQUARE, 'clip'),
      (dict(**SQUARE, teacher__read_out='simplex'), 'simplex'),
      (dict(teacher__read_out='clip'), 'clip'),
    ],
  )
  def test_fits_the_loss_or_is_set(self, changes, want):
    made = tiny.experiment(**changes)
    for phase, name in zip(made.phases, ('teacher', 'student'), strict=True):
      modules = phase.program.modules
      assert models.read_out_of(modules['teacher']) == want
      assert name in modules
    assert ('read by' in made.describe()) == (want != 'softmax')

  def test_networks_like_the_teacher_are_read_as_logits(self):
    made = tiny.experiment(method=dict(name='slkd'), **SQUARE)
    modules = made.phases[-1].program.modules
    read = {n: models.read_out_of(m) for n, m in modules.items()}
    assert read.pop('teacher') == 'clip'
    assert set(read) == {'slt0', 'slt1', 'student'}
    assert set(read.values()) == {'softmax'}

  @pytest.mark.usefixtures('square')
  def test_applies_to_the_guide(self, folder, cache, exported):
    image = np.random.default_rng(0).normal(size=(16, 8, 8, 1))
    variables, card = checkpoints.load(folder / 'square/networks/teacher')
    plain = card.module(read_out='softmax')
    raw = jax.jit(predict, static_argnums=0)(plain, variables, image).logits
    assert card.read_out == 'clip' and np.any(raw < 0)
    for teacher in (
      SQUARE,
      dict(teacher__checkpoint=str(folder / 'square/networks/teacher')),
      dict(teacher__checkpoint=str(exported)),
    ):
      made = tiny.experiment(cache=cache, **teacher)
      program = made.phases[-1].program
      init = jax.jit(program.init_network, static_argnums=0)
      both = {
        name: init(name, jax.random.key(0)) for name in ('teacher', 'student')
      }
      both['teacher'] = variables
      outputs, _ = jax.jit(program.forward)(
        {name: x['params'] for name, x in both.items()},
        {name: x['batch_stats'] for name, x in both.items()},
        jnp.asarray(image),
      )
      want = READ_OUTS['clip'](raw)
      np.testing.assert_allclose(outputs['teacher'].logits, want, rtol=1e-3)

  def test_students_of_one_teacher_are_the_same(
    self, square, folder, cache, exported, monkeypatch
  ):
    students = {digest(square)}
    # On so few images such a teacher cannot be told from guessing.
    monkeypatch.setattr(pretrained, '_check_accuracy', lambda *_: None)
    for n, place in enumerate((folder / 'square/networks/teacher', exported)):
      teacher = dict(cache=cache, teacher__checkpoint=str(place))
      students.add(digest(finish(folder / f'from {n}', **teacher)))
    assert len(students) == 1
    variables, card = checkpoints.load(exported)
    odd = card.replace(read_out='softmax')
    checkpoints.save(folder / 'odd', variables, odd)
    teacher = dict(cache=cache, teacher__checkpoint=str(folder / 'odd'))
    students.add(digest(finish(folder / 'from odd', **teacher)))
    assert len(students) == 2

  def test_applies_to_evaluation(self, square, folder, exported):
    measured = evaluate.evaluate(folder / 'square', 'teacher').results
    results = square['networks']['teacher']
    assert measured['nll'] == pytest.approx(results['nll'], rel=1e-4)
    variables, card = checkpoints.load(exported)
    dataset = tiny.experiment(**SQUARE).dataset
    images = dataset.test.image / 255
    image = (images - dataset.view.mean) / dataset.view.std
    raw = predict(card.module(read_out='softmax'), variables, image).logits
    logits = np.asarray(READ_OUTS['clip'](raw), np.float64)
    q = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    nll = -np.log(q[np.arange(21), dataset.test.label]).mean()
    assert evaluate.evaluate(exported).results['nll'] == pytest.approx(
      nll, rel=1e-3
    )

  @pytest.mark.usefixtures('square')
  def test_of_a_checkpoint_is_not_changed(self, folder, tmp_path):
    other = dict(
      teacher__checkpoint=str(folder / 'square/networks/teacher'),
      teacher__read_out='simplex',
    )
    with pytest.raises(ValueError, match="read_out 'clip', .* 'simplex'; chan"):
      finish(tmp_path / 'run', **other)

  def test_of_a_missing_checkpoint_is_the_configs(self, tmp_path):
    later = dict(teacher__checkpoint=str(tmp_path / 'later'), **SQUARE)
    assert '(read by clip)' in tiny.experiment(**later).describe()
    with pytest.raises(FileNotFoundError, match='no checkpoint in .*later'):
      finish(tmp_path / 'run', **later)


class TestStart:
  """A training that begins where another one ended."""

  @pytest.mark.usefixtures('square')
  def test_begins_at_the_checkpoint(self, folder, cache):
    start = folder / 'square/networks/teacher'
    alone = dict(
      cache=cache,
      method=dict(name='teacher'),
      optimizer__weight_decay=0.0,
      optimizer__learning_rate=0.0,
      epochs=1,
      teacher__start=str(start),
      teacher__seed=3,
    )
    result = finish(folder / 'kept', **alone)
    variables, card = checkpoints.load(folder / 'kept/networks/teacher')
    assert (
      digest(result, 'teacher') == checkpoints.load(start).card.params_sha256
    )
    assert tree.digest(variables) == digest(result, 'teacher')
    assert card.read_out == 'softmax'  # of the loss that it has learned by

  def test_differs_from_the_checkpoint_of_a_finished_teacher(self):
    alone = dict(method=dict(name='teacher'), teacher__checkpoint='there')
    with pytest.raises(ValueError, match="'there' is .* teacher.start instead"):
      tiny.experiment(**alone)
    both = dict(teacher__checkpoint='there', teacher__start='here')
    with pytest.raises(ValueError, match="'here' is .*'there' is trained"):
      tiny.experiment(**both)

  def test_a_missing_checkpoint_is_refused(self, tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint in .*nowhere'):
      finish(tmp_path, teacher__start='nowhere')


class TestCache:
  """A teacher is found by its settings, and by nothing else."""

  def key(self, **changes) -> str:
    made = tiny.experiment(**changes)
    settings = settings_of(made, made.phases[0])
    settings['fingerprint'] = ''  # of the data, which is not the subject
    return Cache('x').path(settings).name

  def test_keys_have_not_changed(self):
    """They are those of before there were a start, a stop and so on."""
    data = dict(data__settings__train_size=44)
    assert self.key(**data) == '723d811e419c48d9b0d2'
    settings = dict(
      teacher__loss='brier', teacher__scale=2.0, teacher__epochs=3
    )
    assert self.key(**data, **settings) == 'afca4ed30569c207047b'

  @pytest.mark.usefixtures('square')
  def test_every_setting_makes_another_teacher(self, folder, exported, cache):
    finish(folder / 'plain', cache=cache, method=dict(name='teacher'), epochs=1)
    start = str(folder / 'square/networks/teacher')
    changes = [
      {},
      dict(teacher__loss='brier'),
      SQUARE,
      dict(**SQUARE, teacher__reduction='mean'),
      dict(**SQUARE, teacher__read_out='simplex'),
      dict(**SQUARE, teacher__cross_entropy_epochs=1),
      dict(**SQUARE, teacher__blend_epochs=1),
      dict(teacher__stop=1),
      dict(teacher__epochs=1),
      dict(teacher__learning_rate=0.01),
      dict(teacher__start=start),
      dict(teacher__start=str(folder / 'plain')),
    ]
    assert len({self.key(**change) for change in changes}) == len(changes)
    # What it starts from counts, and not where that lies.
    assert checkpoints.load(exported).card.params_sha256 == (
      checkpoints.load(start).card.params_sha256
    )
    again = self.key(teacher__start=str(exported))
    assert again == self.key(teacher__start=start)


class TestBlend:
  """Cross-entropy first, then the loss in its place."""

  def test_weights_at_some_epochs(self):
    (phase,) = methods.teacher(
      'square_logits', scale=2.0, cross_entropy_epochs=3, blend_epochs=4
    )
    labels, loss = phase.graph.transfers
    assert labels.objective.name == 'cross_entropy'
    assert loss.objective.name == 'square_logits'
    for epoch, want in {
      0.0: (1, 0),
      2.9: (1, 0),
      3.0: (1, 0),
      4.0: (0.75, 0.5),
      6.5: (0.125, 1.75),
      7.0: (0, 2),
      50.0: (0, 2),
    }.items():
      got = [t.weight(jnp.float32(epoch), 50) for t in (labels, loss)]
      np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)

  def test_is_described(self):
    text = tiny.experiment(
      epochs=9, **SQUARE, teacher__cross_entropy_epochs=3
    ).describe()
    assert '1 to 0, epoch 3  cross_entropy()' in text
    assert '0 to 1, epoch 3  square_logits(reduction=sum)' in text

  def test_begins_with_cross_entropy_alone(self, folder, cache):
    alone = dict(
      cache=cache, method=dict(name='teacher'), teacher__learning_rate=0.005
    )
    finish(folder / 'entropy', **alone, teacher__stop=1)
    square = {**alone, **SQUARE, 'teacher__cross_entropy_epochs': 1}
    finish(folder / 'blend', **square)
    (first,) = log.read(folder / 'entropy/metrics.jsonl')
    same, other = log.read(folder / 'blend/metrics.jsonl')
    assert same['train/loss'] == pytest.approx(first['train/loss'], rel=1e-6)
    alone = other['train/loss/labels->teacher:square_logits']
    assert other['train/loss'] == pytest.approx(alone, rel=1e-6)


class TestStop:
  """A training that ends early is the beginning of the whole one."""

  def test_parameters_are_those_of_that_epoch(self, folder, cache, monkeypatch):
    saved, save = [], Checkpoints.save

    def noted(self, state, record):
      saved.append(tree.digest(jax.tree.map(np.asarray, state.params)))
      save(self, state, record)

    monkeypatch.setattr(Checkpoints, 'save', noted)
    alone = dict(
      cache=cache,
      method=dict(name='teacher'),
      epochs=3,
      schedule__name='cosine',
    )
    finish(folder / 'whole', **alone)
    whole = saved.copy()
    saved.clear()
    summary = finish(folder / 'stopped', **alone, teacher__stop=2)
    assert saved == whole[:2] and len(set(whole)) == 3
    assert summary['phases']['teacher']['epochs'] == 2
    saved.clear()
    finish(folder / 'short', **{**alone, 'epochs': 2})
    assert saved != whole[:2]  # the schedule was compressed

  @pytest.mark.parametrize('stop', [4, 0.45])
  def test_is_described(self, stop):
    text = tiny.experiment(epochs=9, teacher__stop=stop).describe()
    assert (
      'teacher (4 of 9 epochs x 5 steps' in text and 'distil (9 epochs' in text
    )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(stop=3), 'teacher.stop must be at most the 2 epochs .*, got 3'),
    (
      dict(stop=6, epochs=5),
      'teacher.stop must be at most the 5 epochs .*, got 6',
    ),
    (dict(stop=1.5), 'teacher.stop must be a fraction .*, got 1.5'),
    (dict(start='bayes'), "got 'bayes': a posterior cannot be trained"),
    (dict(stop=-1.0), 'teacher.stop must be at least 0, got -1.0'),
    (dict(blend_epochs=-1), 'teacher.blend_epochs must be at least 0, got -1'),
    (
      dict(cross_entropy_epochs=-1),
      'teacher.cross_entropy_epochs must be at least 0, got -1',
    ),
    (dict(scale=-1.0), 'teacher.scale must be above 0, got -1.0'),
    (dict(blend_epochs=1), "the loss is 'cross_entropy': set another"),
    (dict(cross_entropy_epochs=1), "the loss is 'cross_entropy': set another"),
    (
      dict(loss='brier', cross_entropy_epochs=1, blend_epochs=2),
      "=1 and teacher.blend_epochs=2 lead to the loss 'brier' by epoch 3",
    ),
    (
      dict(loss='brier', cross_entropy_epochs=2),
      'by epoch 2, but its training ends after 2',
    ),
    (dict(read_out='clap'), "no read-out 'clap'. Did you mean 'clip'"),
    (dict(loss='square'), "no teacher loss 'square'. Did you mean 'square_l"),
  ],
)
def test_invalid_settings_are_explained(changes, message):
  settings = {f'teacher__{key}': value for key, value in changes.items()}
  with pytest.raises((KeyError, ValueError), match=message):
    tiny.experiment(**settings)


def test_settings_that_are_not_used_are_not_checked():
  made = tiny.experiment(teacher__checkpoint='there', teacher__stop=3)
  assert [phase.name for phase in made.phases] == ['distil']


@pytest.mark.parametrize('sign', [1, -1], ids=['right', 'wrong'])
def test_a_right_teacher_is_accepted_on_four_test_images(sign, tmp_path):
  """Three standard deviations of guessing are more than 50 points there."""
  label = np.arange(8, dtype=np.int32) % 2
  image = np.broadcast_to(
    (200 * label)[:, None, None, None], (8, 4, 4, 1)
  ).astype(np.uint8)
  dataset = data.arrays((image, label), (image[:4], label[:4]))
  head = {'kernel': jnp.tile(jnp.array([[-1.0, 1.0]]) * sign, (16, 1))}
  head['bias'] = jnp.zeros(2)
  checkpoints.save_pretrained(
    tmp_path / 'teacher', 'linear', {'params': {'head': head}}, 2, (4, 4, 1)
  )
  config = configs.default()
  config.data.name, config.batch_size = 'arrays', 4
  config.student.name = config.teacher.name = 'linear'
  config.teacher.checkpoint = str(tmp_path / 'teacher')
  made = build(config, Source(config.data, dataset))
  networks = pretrained.load_pretrained(made)
  if sign > 0:
    results = pretrained.evaluate_pretrained(made, networks)
    assert results['teacher']['top1'] == 1
  else:
    with pytest.raises(ValueError, match='0.00 % on the 4 test images'):
      pretrained.evaluate_pretrained(made, networks)
