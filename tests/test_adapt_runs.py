"""Networks that were not written for jaxkd, named by a config and trained."""

import functools
import json
import pathlib
import re

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, models, tree
from jaxkd import config as configs
from jaxkd.commands.evaluate import evaluate
from jaxkd.commands.export import export
from jaxkd.graph import LABELS, Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.objectives import cross_entropy
from jaxkd.runs.cache import settings_of
from jaxkd.runs.run import Run

SHAPE = (8, 8, 1)
IMAGE = jnp.zeros((2, *SHAPE))
PAIR = dict(
  student__name='foreign:Compact',
  student__settings=dict(sizes=(8, 8)),
  student__taps=dict(pooled='head:input'),
  teacher__name='foreign:Nnx',
  teacher__settings=dict(channels=1, rate=0.1),
  teacher__taps=dict(unit='units/0'),
)


def finish(workdir, **changes):
  return Run(tiny.experiment(**{**PAIR, **changes}), workdir).finish()


def digests(summary):
  return {n: x['params_sha256'] for n, x in summary['networks'].items()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('foreign')


@pytest.fixture(scope='module')
def summary(folder):
  return finish(folder / 'run', cache=str(folder / 'cache'))


class TestRun:
  """A Linen student with dropout learns from an nnx teacher."""

  def test_the_summary_has_models_and_sizes(self, summary):
    names = {n: x['model'] for n, x in summary['networks'].items()}
    assert names == {'teacher': 'foreign:Nnx', 'student': 'foreign:Compact'}
    sizes = {
      n: (x['params'], x['macs']) for n, x in summary['networks'].items()
    }
    student = (64 * 8 + 8 * 8 + 8 * 3, 2 * (8 + 16) + 3)
    teacher = (9 * 4 + 9 * 16 + 4 * 3, 2 * (4 + 8) + 4 + 3)
    assert sizes['student'] == (sum(student), student[0])
    macs = 64 * (9 * 4 + 9 * 16) + 4 * 3
    assert sizes['teacher'] == (sum(teacher), macs)

  @pytest.mark.usefixtures('summary')
  def test_the_card_describes_the_module(self, folder):
    networks = {
      name: checkpoints.load(folder / 'run/networks' / name)
      for name in ('student', 'teacher')
    }
    student = networks['student'].card
    assert student.settings == {'sizes': [8, 8]}
    assert student.taps == {'pooled': 'head:input'}
    taps = {}
    for name, (variables, card) in networks.items():
      outputs = jax.jit(card.module().apply)(variables, IMAGE)
      assert outputs.logits.shape == (2, 3)
      taps[name] = jax.tree.map(jnp.shape, outputs.taps)
    assert taps == {
      'student': {'pooled': (2, 8)},
      'teacher': {'unit': (2, 8, 8, 4)},
    }

  def test_is_evaluated_and_exported(self, summary, folder):
    evaluation = evaluate(folder / 'run')
    nll = summary['networks']['student']['nll']
    assert evaluation.results['nll'] == pytest.approx(nll)
    assert 'agreement' in evaluation.guides['teacher']
    for name in ('student', 'teacher'):
      path = folder / f'{name}.npz'
      assert export(folder / 'run', path, name).difference < 1e-6
      card = checkpoints.load_card(path)
      assert card.params_sha256 == digests(summary)[name]

  @pytest.mark.slow
  def test_the_same_run_ends_with_the_same_bits(self, summary, folder):
    """Also of networks with dropout, saved and trained anew."""
    again = finish(folder / 'again', cache=str(folder / 'no cache'))
    assert digests(again) == digests(summary)

  @pytest.mark.usefixtures('summary')
  def test_a_run_can_start_from_the_result_of_another(self, folder):
    finish(
      folder / 'other',
      student__checkpoint=str(folder / 'run'),
      method=dict(name='plain'),
      epochs=1,
      optimizer__learning_rate=0.0,
    )
    before, after = (
      checkpoints.load(folder / name / 'networks/student')[0]['params']
      for name in ('run', 'other')
    )
    assert tree.digest(before) == tree.digest(after)


def test_a_network_may_be_widened(tmp_path):
  """GPD grows it, if it takes a width."""
  run = tiny.experiment(
    student__name='foreign:Wide', method=dict(name='gpd', static=None), epochs=1
  )
  summary = Run(run, tmp_path / 'run').finish()
  widths = {n: x['width'] for n, x in summary['networks'].items()}
  assert widths == {'dynamic_teacher': 2, 'student': 1}


def test_randomness_is_a_function_of_the_key_and_the_name():
  """Networks without randomness give the same outputs without a key."""
  drawing, other = models.adapt(foreign.Compact([8])), models.build('mlp', 3)
  modules = {'a': drawing, 'b': drawing, 'c': other}
  graph = Graph(
    dict.fromkeys(modules, Learner()),
    tuple(Transfer(LABELS, name, cross_entropy()) for name in modules),
  )
  program = bind(graph, lambda name, *_: modules[name], SHAPE)
  init = jax.jit(program.init_network, static_argnums=0)
  start = {
    name: init('c' if name == 'c' else 'a', jax.random.key(0))
    for name in modules
  }
  params, stats = (
    {name: variables[part] for name, variables in start.items()}
    for part in ('params', 'batch_stats')
  )
  image = jax.random.normal(jax.random.key(1), (4, *SHAPE))

  @functools.partial(jax.jit, static_argnames='names')
  def run(key, names=None):
    outputs, _ = program.forward(params, stats, image, names, key)
    return {name: x.logits for name, x in outputs.items()}

  one, same, later = (run(jax.random.key(n)) for n in (1, 1, 2))
  jax.tree.map(np.testing.assert_array_equal, one, same)
  for drawn in (later['a'], one['b']):
    assert np.all(np.any(drawn != one['a'], axis=1))
  np.testing.assert_array_equal(run(None, names=('c',))['c'], one['c'])


@pytest.mark.usefixtures('summary')
def test_a_pretrained_network_can_be_saved_as_a_checkpoint(folder):
  variables, card = checkpoints.load(folder / 'run/networks/teacher')
  network = ('foreign:Nnx', variables, 3, SHAPE)
  settings = dict(channels=1, rate=0.1)
  checkpoints.save_pretrained(folder / 'saved', *network, **settings)
  again, saved = checkpoints.load(folder / 'saved')
  assert tree.digest(again) == tree.digest(variables)
  assert card.to_json().items() >= saved.to_json().items()
  del variables['params']['offset']
  with pytest.raises(ValueError, match='- params/offset .* missing'):
    checkpoints.save_pretrained(folder / 'odd', *network, channels=1)


def test_the_example_of_the_readme_is_a_pair(tmp_path, monkeypatch):
  text = (pathlib.Path(__file__).parents[1] / 'docs/networks.md').read_text()
  (code,) = re.findall(r'```python\n# (?=mine)(.*?)```', text, re.DOTALL)
  (tmp_path / 'mine.py').write_text(f'# {code}')
  monkeypatch.syspath_prepend(tmp_path)
  taps = {'pooled': 'head:input'}
  for net in (
    models.build('mine:Student', 10, taps=taps),
    models.build('mine:Teacher', 10, pixels=64),
  ):
    models.check(net, SHAPE, train=True)
    run = lambda key, net=net: net.apply(net.init(key, IMAGE), IMAGE)
    assert jax.eval_shape(run, jax.random.key(0)).logits.shape == (2, 10)


class TestNames:
  """Import paths, and what can stand at their end."""

  @pytest.mark.parametrize(
    ('name', 'settings'),
    [
      ('foreign:Compact', dict(sizes=[4])),
      ('foreign:Setup', {}),
      ('foreign:Wide', dict(width=2, dtype=jnp.bfloat16)),
      ('foreign:Nnx', dict(channels=1)),
      ('foreign:by_rngs', {}),
      ('foreign:by_adapt', {}),
    ],
  )
  def test_is_a_network(self, name, settings):
    taps = {'tap': 'head'}
    net = models.build(name, 3, 'clip', taps, **{'width': 1, **settings})
    run = lambda key: net.init_with_output(key, IMAGE)[0]
    shapes = jax.eval_shape(run, jax.random.key(0))
    own = {'pooled'} if name == 'foreign:by_adapt' else set()
    assert shapes.logits.shape == (2, 3) and set(shapes.taps) == {'tap', *own}
    assert net.width == settings.get('width', 1)
    assert net.dtype == settings.get('dtype', jnp.float32)

  @pytest.mark.parametrize(
    ('name', 'settings', 'message'),
    [
      ('forein:Compact', {}, "'forein' cannot be imported .No module named"),
      ('foreign:Compct', {}, "foreign has no 'Compct'. Did you mean 'Compact'"),
      ('foreign:NETWORK', {}, 'is a Compact; name a class, or a function'),
      ('foreign:made', {}, 'must return a Linen module or a function of rngs'),
      ('foreign:Compact', {}, "needs the setting 'sizes'"),
      ('foreign:Nnx', {}, "needs the setting 'channels'"),
      (
        'foreign:Nnx',
        dict(channels=1, rat=0.1),
        "takes no setting 'rat'. Did you mean 'rate'",
      ),
      (
        'foreign:Setup',
        dict(width=2),
        "takes no 'width', so it must be 1, got 2",
      ),
      (
        'foreign:Setup',
        dict(dtype=jnp.bfloat16),
        "'dtype', so it must be float32, got bfloat16",
      ),
      ('foreign:four', {}, 'must have 3 classes, got 4'),
    ],
  )
  def test_mistakes(self, name, settings, message):
    with pytest.raises((KeyError, ValueError), match=message):
      models.build(name, 3, **settings)


class TestConfig:
  """The sections of a config on networks."""

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      (dict(student__settings=dict(width=2)), 'follows from student.width'),
      (dict(teacher__settings=dict(dtype=1)), 'follows from compute_dtype'),
      (dict(student__settings=dict(feature=4)), "no setting 'feature'"),
      (dict(student__taps=dict(a='hidden3')), "no module 'hidden3'. Did you"),
      (dict(student__taps=dict(stage1='head')), "already has a tap 'stage1'"),
      (dict(student__name='foreign:Wide', student__branches=2), "'branches'"),
    ],
  )
  def test_mistakes_are_found_before_anything_is_trained(
    self, changes, message
  ):
    with pytest.raises((KeyError, ValueError), match=message):
      tiny.experiment(**changes)

  def test_settings_are_the_architecture_s(self):
    made = tiny.experiment(student__settings=dict(features=(5, 4)))
    student = made.phases[-1].program.modules['student']
    assert student.features == (5, 4)
    assert 'student  mlp    learns' in made.describe()

  def test_teachers_are_found_under_their_old_keys(self):
    """New settings are in the key only where they are not at their defaults."""
    plain = tiny.experiment()
    key = settings_of(plain, plain.phases[0])['teacher']
    assert not {'settings', 'taps', 'source'} & set(key)
    named = tiny.experiment(**PAIR)
    key = settings_of(named, named.phases[0])['teacher']
    assert key['settings'] == {'channels': 1, 'rate': 0.1}
    assert key['source'] == models.source_digest('foreign:Nnx')

  def test_a_run_from_before_is_the_same_run(self):
    new = configs.resolved(configs.default())
    old = json.loads(json.dumps(new))
    for section in ('student', 'teacher'):
      del old[section]['settings'], old[section]['taps']
    assert configs.differing(old, new) == []
    new['student']['taps'] = {'a': 'head'}
    assert configs.differing(old, new) == ["student.taps.a: None -> 'head'"]
