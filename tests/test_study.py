"""Many runs in one command: recipes, seeds, and their comparison."""

import json

import numpy as np
import pytest
import tiny
from scipy import stats

from jaxkd.runs import comparison, experiment
from jaxkd.runs.artifacts import load_network
from jaxkd.runs.expansion import expand
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study, describe, is_study

GAUSSIAN = dict(
  data__name='gaussian_mixture',
  data__image_size=0,
  data__settings=dict(
    num_classes=3,
    dimensions=4,
    train_size=40,
    validation_size=30,
    test_size=50,
  ),
  student__name='mlp',
  teacher__name='mlp',
  method=dict(name='kd', temperature=1.0, label_weight=0.0, guide_weight=1.0),
)
BRIER = {'teacher': {'loss': 'brier'}}


def study_of(**changes):
  recipes = {'ce': {}, 'mse': BRIER}
  return tiny.config(
    **{
      'study__recipes': recipes,
      'study__seeds': (0, 1),
      'study__columns': ('teacher/nll', 'student/top1'),
      **changes,
    }
  )


def test_one_run_is_not_a_study():
  assert not is_study(tiny.config())
  assert is_study(tiny.config(study__seeds=(0,)))
  assert is_study(study_of())


def test_recipes_and_seeds_are_multiplied():
  runs_by_recipe = expand(
    study_of(
      study__vary=('seed', 'teacher.seed', 'data.settings.seed'),
      study__recipes={
        'mse': {'teacher': {'loss': 'brier', 'scale': 2.0}},
        'warm': {'method': {'temperature': 2.0}},
        'slkd': {'method': {'name': 'slkd', 'members': 1}},
      },
      method=dict(name='kd', label_weight=0.5),
    )
  )
  assert set(runs_by_recipe) == {'mse', 'slkd', 'warm'}
  for runs in runs_by_recipe.values():
    assert [run.seed for run in runs] == [0, 1]
    assert [run.teacher.seed for run in runs] == [0, 1]
    assert [run.data.settings.seed for run in runs] == [0, 1]
    assert not any(map(is_study, runs))
  assert runs_by_recipe['mse'][0].teacher.scale == 2.0
  assert (
    runs_by_recipe['mse'][0].teacher.name
    == runs_by_recipe['warm'][0].teacher.name
    == 'mlp'
  )
  # Settings are added to a method's, unless it is another method.
  assert runs_by_recipe['warm'][0].method.to_dict() == dict(
    name='kd', label_weight=0.5, temperature=2.0
  )
  assert runs_by_recipe['slkd'][0].method.to_dict() == dict(
    name='slkd', members=1
  )


def test_some_recipes_can_be_left_out():
  assert set(expand(study_of(study__only=('mse',)))) == {'mse'}
  with pytest.raises(KeyError, match="no recipe 'msee'. Did you mean 'mse'"):
    expand(study_of(study__only=('msee',)))


@pytest.mark.parametrize(
  ('recipe', 'message'),
  [
    ({'teacher': {'los': 'brier'}}, "recipe 'bad': .*no setting 'teacher.los'"),
    ({'teacher': {'loss': 'briar'}}, "recipe 'bad': .*no teacher loss 'briar'"),
    ({'method': {'temprature': 2.0}}, "recipe 'bad': .*'temprature'"),
    ('brier', r'study.recipes.bad must be a tree of settings such as'),
  ],
)
def test_a_mistake_is_refused_before_the_first_training(
  recipe, message, tmp_path
):
  config = study_of(study__recipes={'good': {}, 'bad': recipe})
  with pytest.raises(ValueError, match=message):
    Study(config, tmp_path / 'study')
  assert not (tmp_path / 'study').exists()


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """A finished study of separate runs, its config and its folder."""
  folder = tmp_path_factory.mktemp('alone')
  config = study_of(cache=str(folder / 'cache'), epochs=1)
  return config, Study(config, folder / 'study').finish(), folder / 'study'


def test_runs_are_those_of_their_recipes(alone):
  config, summary, folder = alone
  runs = expand(config)
  single = Run(experiment.build(runs['mse'][1]), folder.parent / 'single')
  want = single.finish()['networks']['student']
  written = json.loads((folder / 'runs/mse/seed1/summary.json').read_text())
  assert written['networks']['student'] == want
  figures = summary['recipes']['mse']['student']
  assert figures['top1'][1] == want['top1']
  assert figures['nll'][1] == want['nll']
  nll = [summary['recipes'][r]['teacher']['nll'] for r in ('ce', 'mse')]
  # Students of all seeds share a teacher.
  assert nll[0][0] == nll[0][1] != nll[1][0] == nll[1][1]


def test_a_finished_study_is_read(alone, monkeypatch):
  config, summary, folder = alone
  monkeypatch.setattr(Run, 'finish', None)
  study = Study(config, folder)
  assert study.summary == summary == study.finish()
  text = study.report(summary)
  assert '± 0.0000' in text.splitlines()[2]
  assert study.draw(summary) is None


def changed(config, **changes):
  other = config.copy_and_resolve_references()
  other.update(changes)
  return other


def test_other_settings_are_refused(alone):
  config, _, folder = alone
  with pytest.raises(ValueError, match=r'another config(.|\n)*epochs: 1 -> 2'):
    Study(changed(config, epochs=2), folder)


def test_columns_can_be_changed_afterwards(alone, monkeypatch):
  config, summary, folder = alone
  monkeypatch.setattr(Run, 'finish', None)
  study = Study(changed(config, study={'columns': ('student/ece',)}), folder)
  assert study.summary == summary
  assert 'ece' in study.report(summary)


def test_recipes_and_seeds_can_be_added(alone, monkeypatch):
  config, summary, folder = alone
  few = changed(config, study={'only': ('ce',), 'baseline': 'mse'})
  study = Study(few, folder)
  assert study.summary is None
  with monkeypatch.context() as patch:
    patch.setattr(Run, 'finish', None)  # nothing has to be trained for it
    assert set(study.finish()['recipes']) == {'ce'}
  more = changed(config, study={'only': ('ce',), 'seeds': (0, 1, 2)})
  top1 = Study(more, folder).finish()['recipes']['ce']['student']['top1']
  assert top1[:2] == summary['recipes']['ce']['student']['top1']
  assert len(top1) == 3
  Study(config, folder).finish()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(study__seeds=(0, 0)), 'one run for several seeds: they are equal'),
    (
      dict(
        method=dict(name='teacher'),
        study__columns=(),
        study__outcome='teacher/nll',
      ),
      'seeded by teacher.seed',
    ),
    (dict(study__outcome='student'), "shows 'student', which is not NETWORK"),
    (dict(study__columns=('studnt/nll',)), 'of recipe .ce.: student, teacher'),
    (
      dict(study__outcome='student/top7'),
      "no metric 'top7'. Did you mean 'top5' or",
    ),
    (dict(study__outcome='student_ema/top1'), "shows 'student_ema/top1', whi"),
    (dict(study__outcome='student_best/top1'), "'student_best/top1', which is"),
    (dict(study__baseline='mce'), "no baseline 'mce'. Did you mean"),
    (
      dict(study__together=True, study__vary=('seed', 'teacher.stop')),
      r"nothing but seed, .*; recipe 'ce' has teacher.stop: 0 -> 1",
    ),
  ],
)
def test_an_invalid_study_is_refused(changes, message, tmp_path):
  with pytest.raises((KeyError, ValueError), match=message):
    Study(study_of(**changes), tmp_path / 'study')


def test_seeds_together_can_have_their_own_test_splits(tmp_path):
  config = study_of(
    data__hold_out=0.25,
    study__together=True,
    study__vary=('seed', 'teacher.seed', 'data.hold_out_seed'),
  )
  assert Study(config, tmp_path / 'study').summary is None


def test_a_failure_names_its_recipe(tmp_path):
  wild = {'optimizer': {'learning_rate': 1e9, 'weight_decay': 1e9}}
  config = study_of(
    study__recipes={'wild': wild},
    study__columns=(),
    method=dict(name='plain'),
    epochs=9,
  )
  message = r"recipe 'wild': (.|\n)*loss is (NaN|infinite)(.|\n)*study.only"
  with pytest.raises(ValueError, match=message):
    Study(config, tmp_path / 'study').finish()


def test_seeds_together_have_results_for_their_config_only(together):
  config, study, summary = together
  again = Study(config, study.workdir)
  assert again.summary == summary
  other = changed(config, study={'seeds': (0, 1, 2)})
  with pytest.raises(ValueError, match=r'ce.json holds(.|\n)*2 -> 3 seeds'):
    Study(other, study.workdir).finish()


def test_a_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').touch()
  with pytest.raises(ValueError, match="holds no study .'thesis.tex' is in it"):
    Study(study_of(), tmp_path)


def test_a_study_is_described_by_its_first_runs(alone):
  text = describe(alone[0])
  assert text.startswith('2 recipes x 2 seeds: 4 runs')
  assert 'brier(reduction=sum)' in text.partition('Recipe mse')[2]


@pytest.fixture(scope='module')
def together(tmp_path_factory):
  folder = tmp_path_factory.mktemp('together')
  noisy = {
    'teacher': {'name': 'linear', 'checkpoint': 'bayes'},
    'method': {'label_weight': 0.25, 'guide_weight': 0.75},
  }
  config = study_of(
    **GAUSSIAN,
    study__together=True,
    study__recipes={'a/ce': {}, 'b/noisy': noisy},
    study__vary=('seed', 'teacher.seed', 'data.settings.seed'),
    study__against='target/train_frobenius',
    epochs=1,
  )
  study = Study(config, folder / 'study')
  return config, study, study.finish()


def test_together_reports_both_splits_and_the_chosen_epoch(together):
  *_, summary = together
  recipe = summary['recipes']['a/ce']
  assert set(recipe) == {
    'teacher',
    'teacher_best',
    'student',
    'student_best',
    'target',
  }
  teacher = recipe['teacher']
  assert set(recipe['target']) == {'train_posterior_square', 'train_frobenius'}
  for key, values in recipe['target'].items():
    np.testing.assert_allclose(values, teacher[key], rtol=1e-5)
  np.testing.assert_allclose(
    np.square(teacher['train_frobenius']),
    40 * np.array(teacher['train_posterior_square']),
  )


def test_the_posterior_itself_can_teach(together):
  config, _, summary = together
  recipe = summary['recipes']['b/noisy']
  assert max(recipe['teacher']['posterior_square']) < 1e-10
  for n, run in enumerate(expand(config)['b/noisy']):
    split = experiment.build(run).dataset.train
    target = 0.25 * np.eye(3)[split.label] + 0.75 * split.posterior
    want = np.linalg.norm(target - split.posterior)
    got = recipe['target']['train_frobenius'][n]
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_the_outcome_is_drawn_against_another_metric(together):
  _, study, summary = together
  assert study.draw(summary).stat().st_size > 10_000
  assert study.report(summary).count('difference') == 2


def test_data_without_a_posterior_cannot_be_taught_by_it(tmp_path):
  config = tiny.config(teacher__name='linear', teacher__checkpoint='bayes')
  with pytest.raises(ValueError, match='posterior of synthetic is unknown'):
    Run(experiment.build(config), tmp_path).finish()


def test_a_study_is_not_a_run(alone):
  with pytest.raises(ValueError, match='holds a study: name one of its runs'):
    load_network(alone[2])
  assert load_network(alone[2] / 'runs/ce/seed0').card.network == 'student'


# Comparison


def recipes_of(rng, names, seeds=4):
  return {
    name: {
      'student': {'top1': rng.random(seeds).tolist()},
      'teacher': {'nll': rng.random(seeds).tolist()},
    }
    for name in names
  }


def test_differences_are_paired():
  recipes = recipes_of(np.random.default_rng(0), 'abc')
  top1 = {name: np.array(r['student']['top1']) for name, r in recipes.items()}
  gaps = comparison.differences(recipes, 'student/top1', baseline='b')
  assert set(gaps) == {'a', 'c'}
  np.testing.assert_allclose(gaps['a'], top1['a'] - top1['b'])
  first = comparison.differences(recipes, 'student/top1')
  np.testing.assert_allclose(first['c'], top1['c'] - top1['a'])


def test_the_table_has_means_and_deviations():
  recipes = recipes_of(np.random.default_rng(0), 'ab')
  text = comparison.report(
    'K',
    recipes,
    columns=('teacher/nll', 'student/top1'),
    outcome='student/top1',
  )
  a, b = (np.array(recipes[n]['student']['top1']) for n in 'ab')
  row = text.splitlines()[-1]
  assert f'{100 * b.mean():.2f} ± {100 * b.std(ddof=1):.2f} %' in row
  gap = 100 * (b - a)
  assert row.endswith(f'{gap.mean():+.2f} ± {gap.std(ddof=1):.2f} %')
  with pytest.raises(KeyError, match="no metric 'top2'"):
    comparison.report(
      'K', recipes, columns=('student/top2',), outcome='student/top1'
    )


def test_rank_correlations_are_scipys():
  recipes = recipes_of(np.random.default_rng(1), 'abcdefg')
  recipes['a']['teacher']['nll'][0] = recipes['b']['teacher']['nll'][0]  # a tie
  correlations = comparison.rank_correlations(
    recipes, 'teacher/nll', 'student/top1'
  )
  for n in range(4):
    pair = (
      [recipe[net][key][n] for recipe in recipes.values()]
      for net, key in (('teacher', 'nll'), ('student', 'top1'))
    )
    want = stats.spearmanr(*pair).statistic
    np.testing.assert_allclose(correlations[n], want)
