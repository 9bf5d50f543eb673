"""Networks of runs with an input and classes of their own."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, models, tree
from jaxkd import config as configs
from jaxkd.commands import evaluate, export, store, visualize
from jaxkd.graph.program import predict
from jaxkd.interop import files
from jaxkd.interop.torch import to_state_dict
from jaxkd.models.class_map import ClassMap
from jaxkd.models.own_input import OwnInput, convert
from jaxkd.runs import experiment, study
from jaxkd.runs.cache import Cache, settings_of
from jaxkd.runs.interfaces import input_of
from jaxkd.runs.run import Run

FIRST = 'hidden1'  # the first layer of an MLP


def finish(workdir, **changes):
  settings = dict(epochs=1, teacher__allow_guessing=True, **changes)
  return Run(tiny.experiment(**settings), pathlib.Path(workdir)).finish()


def digest(summary, name='student'):
  return summary['networks'][name]['params_sha256']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('interfaces')


@pytest.fixture(scope='module')
def teacher(folder):
  """The network of a run that trains a teacher, and its student's digest."""
  finish(folder / 'alone', method=dict(name='teacher'), cache=str(folder))
  place = folder / 'alone/networks/teacher'
  student = digest(finish(folder / 'kd', teacher__checkpoint=str(place)))
  return *checkpoints.load(place), student


def saved(folder, name, variables, card, **changes) -> dict:
  """Saves a changed network; returns the config's settings that name it."""
  checkpoints.save(folder / name, variables, card.replace(**changes))
  return dict(teacher__checkpoint=str(folder / name))


def with_head(variables, kernel, bias):
  params = {**variables['params'], 'head': {'kernel': kernel, 'bias': bias}}
  return {**variables, 'params': params}


@pytest.fixture(scope='module')
def permuted(teacher, folder):
  """The teacher with its classes in another order."""
  variables, card, _ = teacher
  head, order = variables['params']['head'], [2, 0, 1]
  odd = with_head(variables, head['kernel'][:, order], head['bias'][order])
  names = tuple(card.class_names[k] for k in order)
  return saved(folder, 'permuted', odd, card, class_names=names)


class TestClasses:
  """A teacher with other classes than the data."""

  def test_undoing_a_permutation_gives_the_same_student(
    self, teacher, permuted, folder, tmp_path, capsys
  ):
    run = folder / 'kd of permuted'
    assert digest(finish(run, **permuted)) == teacher[2]
    assert 'teacher: its 3 classes are those of' in capsys.readouterr().out
    mapped = dict(teacher__classes={0: 2, 1: 0, 2: 1}, **permuted)
    assert digest(finish(tmp_path / 'indices', **mapped)) == teacher[2]
    same = dict(teacher__classes='same', **permuted)
    assert digest(finish(tmp_path / 'same', **same)) != teacher[2]

  def test_a_class_that_is_split_gives_nearly_the_same_student(
    self, teacher, folder, tmp_path
  ):
    """Two classes of half the probability, and one that is left out."""
    variables, card, _ = teacher
    head = variables['params']['head']
    kernel = np.concatenate([head['kernel'][:, [0, 0, 1, 2, 2]]], axis=1)
    bias = head['bias'][[0, 0, 1, 2, 2]] - np.float32(
      [1, 1, 0, 0, -3]
    ) * np.log(2)
    split = saved(
      folder,
      'split',
      with_head(variables, kernel, bias.astype(np.float32)),
      card,
      num_classes=5,
      class_names=('a', 'b', 'c', 'd', 'e'),
    )
    classes = {'a': 0, 'b': 0, 'c': 1, 'd': 2}
    made = tiny.experiment(teacher__classes=classes, **split)
    assert '4 of its 5 classes are the 3 of the data, whose' in made.describe()
    module = made.phases[0].program.modules['teacher']
    network, _ = checkpoints.load(folder / 'split')
    image = np.random.default_rng(0).normal(size=(6, 8, 8, 1))
    got = predict(module, network, jnp.asarray(image, jnp.float32)).logits
    plain = card.module()
    want = predict(plain, variables, jnp.asarray(image, jnp.float32)).logits
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

  def test_a_guide_of_a_finished_run_is_compared_by_the_data_s_classes(
    self, permuted, folder, tmp_path
  ):
    run = folder / 'kd of permuted'
    summary = finish(run, **permuted)
    whole = evaluate.evaluate(run)
    assert whole.results['top1'] == summary['networks']['student']['top1']
    outside = evaluate.evaluate(
      pathlib.Path(permuted['teacher__checkpoint']), config=tiny.config()
    )
    measured = summary['networks']['teacher']
    assert outside.results['nll'] == pytest.approx(measured['nll'], rel=1e-5)
    plain = evaluate.evaluate(
      pathlib.Path(permuted['teacher__checkpoint']),
      config=tiny.config(teacher__classes='same'),
    )
    assert plain.results['nll'] != pytest.approx(measured['nll'], rel=1e-3)
    visualize.draw(run, None, tmp_path, examples=21)

  def test_the_classifier_of_other_classes_is_not_reused(self, permuted):
    with pytest.raises(ValueError, match="'student' has the classifier of"):
      tiny.experiment(method=dict(name='simkd'), **permuted)

  def test_networks_like_the_teacher_have_the_classes_of_the_data(
    self, permuted
  ):
    made = tiny.experiment(method=dict(name='slkd'), **permuted)
    modules = made.phases[-1].program.modules
    mapped = {n for n, m in modules.items() if isinstance(m, ClassMap)}
    assert mapped == {'teacher'}

  def test_several_teachers_have_their_own(self, teacher, permuted, tmp_path):
    second = dict(name='mlp', checkpoint=permuted['teacher__checkpoint'])
    whole = dict(name='mlp', checkpoint=str(tmp_path / 'plain'))
    checkpoints.save(tmp_path / 'plain', *teacher[:2])
    made = tiny.experiment(
      method=dict(name='distil', teachers=dict(second=second, whole=whole))
    )
    modules = made.phases[0].program.modules
    assert modules['second'].groups == ((1,), (2,), (0,))
    assert not isinstance(modules['whole'], ClassMap)

  def test_classes_are_merged_where_they_exclude_each_other(self, permuted):
    one_by_one = dict(teacher__classes={0: 1, 1: 0}, **permuted)
    merged = dict(teacher__classes={0: 1, 1: 1, 2: 0}, **permuted)
    made = tiny.experiment(**merged).phases[0]
    experiment._check_merges(tiny.experiment(**one_by_one).phases[0], 'tags')
    with pytest.raises(ValueError, match="of 'teacher' can be merged where"):
      experiment._check_merges(made, 'tags')

  def test_a_class_of_the_data_can_be_missing(self, permuted, tmp_path, capsys):
    classes = dict(teacher__classes={'class0': 0, 'class1': 1})
    summary = finish(tmp_path / 'run', **classes, **permuted)
    assert (
      'it has no class for class2: probability 0' in capsys.readouterr().out
    )
    assert np.isfinite(summary['networks']['student']['nll'])
    # Its stored outputs have an infinite result, which JSON does not have.
    store.run(tiny.config(**classes, **permuted), tmp_path / 'x.store')
    stored = finish(
      tmp_path / 'stored', teacher__outputs=str(tmp_path / 'x.store')
    )
    for name, want in summary['networks']['teacher'].items():
      if name in ('top1', 'nll', 'brier'):
        assert stored['networks']['teacher'][name] == want

  def test_a_map_in_a_config_file_has_names_and_indices(
    self, permuted, tmp_path
  ):
    classes = {'class0': 0, 0: 'class2', 2: 1}
    config = tiny.config(
      teacher__classes=classes, teacher__allow_guessing=True, **permuted
    )
    store.run(config, tmp_path / 'x.store')
    recipes = {'a': {'teacher': {'classes': {'class0': 0, 0: 1}}}}
    with pytest.raises(ValueError, match='both names and numbers as keys'):
      configs.check(tiny.config(study__recipes=recipes))

  def test_an_evaluation_says_what_differs(self, permuted):
    config = tiny.config(teacher__classes={'class0': 0}, **permuted)
    place = pathlib.Path(permuted['teacher__checkpoint'])
    assert (
      'teacher: 1 of its 3 classes is 1 of the 3 of the data; the other 2 are'
      ' left out; it has no class for class1, class2: probability 0'
    ) in evaluate.run(place, config=config)
    same = 'its 3 classes are those of the data in another order'
    assert same in evaluate.run(place, config=tiny.config())

  def test_a_study_has_maps_with_any_names(self, permuted, tmp_path):
    config = tiny.config(
      teacher__classes={'class 0.5': 'class0', 0: 1}, **permuted
    )
    config.study.seeds = (0, 1)
    for one in study.expand(config)['run']:
      assert one.teacher.classes == {'class 0.5': 'class0', 0: 1}
    (tmp_path / 'map.json').write_text('{"class0": "class0"}')
    config.study.recipes = {'a': {'teacher': {'classes': str(tmp_path)}}}
    assert study.expand(config)['a'][0].teacher.classes == str(tmp_path)

  def test_a_trained_teacher_has_no_map(self):
    with pytest.raises(ValueError, match="teacher.classes .* 'teacher' is tr"):
      tiny.experiment(teacher__classes={0: 1})


class TestInput:
  """A network with another input than the images of the data."""

  def test_the_normalisation_of_a_card_is_used(self, teacher, folder, tmp_path):
    """The teacher's first layer undoes another normalisation."""
    variables, card, _ = teacher
    params = dict(variables['params'])
    first = FIRST
    kernel, bias = params[first]['kernel'], params[first]['bias']
    mean, std = card.mean[0], card.std[0]
    # y = (x std + mean - 0.5) / 0.25 is what the network now sees.
    params[first] = {
      'kernel': kernel * np.float32(0.25 / std),
      'bias': bias + kernel.sum(axis=0) * np.float32((0.5 - mean) / std),
    }
    other = saved(
      folder,
      'other',
      {**variables, 'params': params},
      card,
      mean=(0.5,),
      std=(0.25,),
    )
    made = tiny.experiment(**other)
    assert 'normalised by mean (0.5) and deviation (0.25)' in made.describe()
    image = np.random.default_rng(0).normal(size=(6, 8, 8, 1))
    image = jnp.asarray(image, jnp.float32)
    module = made.phases[0].program.modules['teacher']
    got = predict(module, {**variables, 'params': params}, image).logits
    want = predict(card.module(), variables, image).logits
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    said = dict(teacher__mean=card.mean, teacher__std=card.std, **other)
    assert not isinstance(
      tiny.experiment(**said).phases[0].program.modules['teacher'], OwnInput
    )

  def test_nothing_is_inserted_where_nothing_differs(self, folder, teacher):
    assert teacher
    place = dict(teacher__checkpoint=str(folder / 'alone'))
    for changes in ({}, place, dict(student__image_size=8)):
      for phase in tiny.experiment(**changes).phases:
        for module in phase.program.modules.values():
          assert not isinstance(module, OwnInput | ClassMap)
        assert phase.differences == []

  def test_a_state_dict_of_colours_teaches_on_grey(self, tmp_path, capsys):
    network = models.build('resnet8', 3, width=1 / 8)
    shapes = tree.shapes(network, (16, 16, 3))
    draw = np.random.default_rng(0).uniform
    variables = jax.tree.map(
      lambda x: np.float32(draw(0, 0.3, x.shape)), shapes
    )
    state = to_state_dict('resnet8', variables, width=1 / 8)
    files.write(tmp_path / 'x.npz', state, {})
    settings = dict(
      teacher__name='resnet8',
      teacher__width=1 / 8,
      teacher__checkpoint=str(tmp_path / 'x.npz'),
      teacher__image_size=16,
    )
    made = tiny.experiment(**settings)
    module = made.phases[0].program.modules['teacher']
    assert module.target.shape == (16, 16, 3)
    text = made.describe()
    assert 'teacher: takes images of 16x16x3, normalised by mean (' in text
    macs = f'{models.macs(network, (16, 16, 3)) / 1e6:,.1f} M'
    assert [x for x in text.splitlines() if 'resnet8' in x][0].endswith(macs)
    with pytest.raises(
      ValueError, match='16x16x3.*teacher.allow_guessing=True'
    ):
      Run(made, tmp_path / 'no').finish()
    finish(tmp_path / 'run', **settings)
    assert 'teacher: takes images of 16x16x3' in capsys.readouterr().out
    comparison = evaluate.evaluate(tmp_path / 'run').guides
    assert set(comparison) == {'teacher'}

  @pytest.mark.slow
  def test_a_transformer_has_the_size_of_its_positions(self, tmp_path):
    settings = dict(patch=8)
    network = models.build('vit_tiny', 3, width=1 / 3, **settings)
    shapes = tree.shapes(network, (32, 32, 3))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    state = to_state_dict('vit_tiny', variables, width=1 / 3, **settings)
    files.write(tmp_path / 'x.npz', state, {})
    made = tiny.experiment(
      teacher__name='vit_tiny',
      teacher__width=1 / 3,
      teacher__settings=settings,
      teacher__checkpoint=str(tmp_path / 'x.npz'),
    )
    assert made.phases[0].interfaces['teacher'].target.shape == (32, 32, 3)

  def test_a_student_is_trained_exported_and_tested_at_its_own_size(
    self, tmp_path
  ):
    summary = finish(
      tmp_path / 'run', method=dict(name='plain'), student__image_size=6
    )
    variables, card = checkpoints.load(tmp_path / 'run')
    assert card.image_shape == (6, 6, 1)
    assert variables['params'][FIRST]['kernel'].shape[0] == 36
    for suffix in ('.npz', '.stablehlo'):
      file = tmp_path / f'student{suffix}'
      report = export.export(tmp_path / 'run', file)
      assert report.difference <= 1e-5
      results = evaluate.evaluate(file).results
      assert results['top1'] == summary['networks']['student']['top1']
    predict_file, card = checkpoints.load_function(tmp_path / 'student.npz')
    dataset = tiny.experiment().dataset
    source = input_of(dataset.image_shape, dataset.view)
    target = input_of(card.shape, dataset.view)
    image = (dataset.test.image / 255 - dataset.view.mean) / dataset.view.std
    image = convert(jnp.asarray(image, jnp.float32), source, target)
    logits = predict_file(np.asarray(image))
    top1 = np.mean(logits.argmax(axis=-1) == dataset.test.label)
    assert top1 == pytest.approx(summary['networks']['student']['top1'])

  def test_a_grown_student_and_its_owner_have_one_input(self):
    made = tiny.experiment(
      method=dict(name='gpd', static_weight=0.0),
      student__name='resnet8',
      student__width=1 / 8,
      student__image_size=12,
    )
    (phase,) = made.phases
    assert set(phase.interfaces) == {'dynamic_teacher', 'student'}
    for module in phase.program.modules.values():
      assert module.target.shape == (12, 12, 1)

  def test_a_teacher_trained_on_another_input_is_another_teacher(self):
    keys = set()
    for changes in (
      {},
      dict(teacher__image_size=6),
      dict(teacher__channels=3),
      dict(teacher__mean=(0.5,), teacher__std=(1.0,)),
    ):
      made = tiny.experiment(**changes)
      keys.add(Cache('x').path(settings_of(made, made.phases[0])))
    assert len(keys) == 4
    made = tiny.experiment(teacher__allow_guessing=True)
    assert Cache('x').path(settings_of(made, made.phases[0])) in keys

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      (dict(mean=(0.5,)), r'teacher.mean=.* belong together: set both'),
      (
        dict(mean=(0.5, 0.5), std=(1.0, 1.0)),
        'a finite number for each of the 1',
      ),
      (dict(mean=(0.5,), std=(0.0,)), r'teacher.std\[0\] must be above 0'),
      (
        dict(mean=(float('nan'),), std=(1.0,)),
        r'teacher.mean\[0\] must be fin',
      ),
      (dict(mean=('x',), std=(1.0,)), 'teacher.mean must have numbers only'),
      (dict(channels=2), 'takes 2 channels, the images have 1'),
      (dict(image_size=-1), 'teacher.image_size must be at least 0'),
    ],
  )
  def test_mistakes_are_explained(self, changes, message):
    settings = {f'teacher__{key}': x for key, x in changes.items()}
    with pytest.raises(ValueError, match=message):
      tiny.experiment(**settings)

  def test_grey_of_unknown_normalisation_is_refused(self):
    data = dict(num_classes=3, channels=3, train_size=40, test_size=21)
    with pytest.raises(ValueError, match='takes grey images, and nothing says'):
      tiny.experiment(data__settings=data, teacher__channels=1)


class TestOverrides:
  """Refusals that a user who knows better can overrule."""

  def test_a_resumed_run_may_have_other_data(self, tmp_path, capsys):
    run = tmp_path / 'run'
    summary = finish(run, method=dict(name='plain'))
    (run / 'summary.json').unlink()
    data = json.loads((run / 'data.json').read_text())
    edited = {**data, 'fingerprint': 'another'}
    (run / 'data.json').write_text(json.dumps(edited))
    with pytest.raises(ValueError, match=r"allow_changed=\"\('data',\)\""):
      finish(run, method=dict(name='plain'))
    again = finish(run, method=dict(name='plain'), allow_changed=('data',))
    assert digest(again) == digest(summary)
    assert (
      'resumed with another data set: fingerprint' in capsys.readouterr().out
    )
    assert json.loads((run / 'data.json').read_text()) == data
    (changes,) = json.loads((run / 'changes.json').read_text())
    assert changes['data'][0].startswith("fingerprint: 'another' -> ")

  def test_a_resumed_run_may_have_another_config(self, tmp_path):
    plain = dict(method=dict(name='plain'))
    finish(tmp_path, **plain)
    (tmp_path / 'summary.json').unlink()
    longer = dict(**plain, batch_size=4)
    with pytest.raises(ValueError, match=r'batch_size: 8 -> 4'):
      finish(tmp_path, **longer)
    finish(tmp_path, allow_changed=('config',), **longer)
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['batch_size'] == 4
    with pytest.raises(KeyError, match="no kind of settings .* 'datas'"):
      finish(tmp_path, allow_changed=('datas',), **longer)

  def test_a_model_of_a_method_has_every_setting_of_a_teacher(self):
    spec = dict(
      name='mlp',
      checkpoint='later',
      image_size=6,
      channels=3,
      mean=(0.5,),
      std=(0.2,),
      classes={0: 1},
      unmapped='class2',
      allow_guessing=True,
    )
    made = tiny.experiment(method=dict(name='distil', teachers={'other': spec}))
    model = made.phases[0].models['other']
    want = {k: x for k, x in spec.items() if k != 'name'}
    got = dataclasses.asdict(model)
    assert {key: got[key] for key in want} == want
