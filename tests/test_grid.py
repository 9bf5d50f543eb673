"""The grid of a sweep, and the commands of its runs."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxkd import config as configs
from jaxkd.commands import config_files, grid, run_commands
from jaxkd.runs.expansion import expand
from jaxkd.runs.members import Member

plain = st.text(alphabet='ab1 .=/-', max_size=6)
nested = st.recursive(
  plain,
  lambda x: st.builds(
    lambda parts, pair: pair[0] + ','.join(parts) + pair[1],
    st.lists(x, max_size=3),
    st.sampled_from(['()', '[]', '{}', '""', "''"]),
  ),
  max_leaves=6,
)
quotes_inside = st.builds(lambda x: f'"{x}"', st.text("a,()[]{}'", max_size=6))


def outside_of_quotes(value):
  """Whether quotes are not in other quotes of their kind."""
  return all(value.count(x) in (0, 2) for x in '\'"')


@given(st.lists((nested | quotes_inside).filter(outside_of_quotes), min_size=1))
def test_values_are_split_at_outer_commas_only(values):
  assert grid.split(','.join(values)) == [value.strip() for value in values]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('(1,2', r'a \) is missing'),
    ('1,2)', r'there is a \) too many'),
    ('(1,2]', r'there is a \] too many'),
    ("'a,b", "a ' is missing"),
  ],
)
def test_brackets_and_quotes_are_closed(text, message):
  with pytest.raises(ValueError, match=message):
    grid.split(text)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('method.weight', 'write KEY=VALUE,VALUE'),
    ('method.weight=', 'write KEY=VALUE,VALUE'),
    ('=3', 'write KEY=VALUE,VALUE'),
    ('seed=1,2', 'seeds are set by --seeds'),
    ('epochs=1,2,1', "has '1' more than once"),
  ],
)
def test_an_axis_that_is_none_is_refused(text, message):
  with pytest.raises(ValueError, match=message):
    grid.axis(text)


@given(st.integers(1, 50))
def test_a_number_of_seeds_counts_from_zero(n):
  assert grid.seeds(str(n)) == tuple(range(n))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_seeds_are_listed(numbers):
  assert grid.seeds(','.join(map(str, numbers)) + ',') == tuple(numbers)


@pytest.mark.parametrize('text', ['0', '-1', 'x', '1.5', ',', '1,,2', '1;2'])
def test_seeds_that_are_none_are_refused(text):
  with pytest.raises(ValueError, match=f'--seeds={text}: '):
    grid.seeds(text)


def study_of(name, over=(), seeds='2', settings=()):
  config = config_files.load(name)
  config_files.change(config, settings)
  axes = [grid.axis(each) for each in over]
  return grid.study(config, axes, grid.seeds(seeds) if seeds else ())


OVERS = [
  [],
  ['method.temperature=1,2.5,10'],
  ['method.temperature=1,4', 'teacher.loss=cross_entropy,brier'],
  ['schedule.milestones=(0.5,0.75),[0.9]', 'baseline=True,False'],
  ['data.settings.note="a, b",c', 'student.width=0.25,0.5'],
  ['student.checkpoint=,~/x.npz', 'cache="/a,b"'],
]


@pytest.mark.parametrize('over', OVERS, ids=str)
def test_runs_are_those_of_settings_on_the_command_line(over):
  study = study_of('kd_digits', over)
  runs = expand(study)
  axes = [grid.axis(each) for each in over]
  combinations = list(itertools.product(*(axis.values for axis in axes)))
  assert len(runs) == len(combinations)
  for values, members in zip(combinations, runs.values(), strict=True):
    for seed, member in enumerate(members):
      want = config_files.load('kd_digits')
      settings = [
        f'{axis.key}={value.strip(chr(34))}'
        for axis, value in zip(axes, values, strict=True)
      ]
      config_files.change(want, [*settings, f'seed={seed}'])
      assert configs.resolved(member) == configs.resolved(want)


def test_recipes_are_named_by_their_settings():
  over = ['method.temperature=1,2.5', 'teacher.name=resnet14,mlp']
  assert list(expand(study_of('kd_digits', over))) == [
    'temperature=1,teacher=resnet14',
    'temperature=1,teacher=mlp',
    'temperature=25e-1,teacher=resnet14',
    'temperature=25e-1,teacher=mlp',
  ]
  same_end = ['student.width=1,2', 'teacher.width=1,2']
  assert list(expand(study_of('kd_digits', same_end)))[0] == (
    'student_width=1,teacher_width=1'
  )
  alike = ["data.settings.x='a b','a-b','a,b'"]
  names = list(expand(study_of('kd_digits', alike)))
  assert names == ['x=a_b', 'x=a-b', 'x=a_b_2']
  assert list(expand(study_of('kd_digits'))) == ['run']


@given(st.floats(1e-6, 1e6, allow_nan=False).map(lambda x: f'{x:f}'))
def test_a_number_in_a_name_is_that_number(value):
  name = grid._slug(value)
  assert '.' not in name and float(name) == float(value)


def test_another_method_has_only_the_settings_of_the_axis():
  runs = expand(study_of('kd_digits', ['method.name=kd,slkd']))
  kd, slkd = (members[0].method.to_dict() for members in runs.values())
  assert slkd == {'name': 'slkd'} and kd['temperature'] == 4.0


def test_a_grid_over_recipes_combines_them():
  settings = ['study.together=False', "study.only=('K=3/CE','K=10/CE')"]
  study = study_of('bcpd_gaussian', ['epochs=3,4'], '', settings)
  runs = expand(study)
  assert list(runs) == [
    *('K=3/CE,epochs=3', 'K=3/CE,epochs=4'),
    *('K=10/CE,epochs=3', 'K=10/CE,epochs=4'),
  ]
  assert [len(x) for x in runs.values()] == [6] * 4
  assert {x[0].data.settings.num_classes for x in runs.values()} == {3, 10}


@pytest.mark.parametrize(
  ('over', 'settings', 'message'),
  [
    (['epochs=1,2', 'epochs=3'], (), 'epochs=... is given twice'),
    (['epochs=1,x'], (), 'epochs'),
    (['optimzer.eps=1,2'], (), 'no such section'),
    ([], ['study.together=True'], 'in one process'),
  ],
)
def test_a_mistake_in_the_grid_is_refused(over, settings, message):
  with pytest.raises(ValueError, match=message):
    study_of('kd_digits', over, settings=settings)


# Commands


def members_of(name, over, seeds, settings):
  study = study_of(name, over, seeds, settings)
  for recipe, runs in expand(study).items():
    for seed, config in enumerate(runs):
      yield Member(recipe, seed, config, f'runs/{recipe}', {}), study


@pytest.mark.parametrize(
  ('name', 'over', 'seeds', 'settings'),
  [
    *(('kd_digits', over, '2', ['epochs=3']) for over in OVERS),
    ('kd_digits', ['method.name=kd,slkd'], '1', []),
    ('kd_cifar:resnet20,resnet8', ['method.objective=dkd,at'], '3,5', []),
    (
      'kd_digits',
      ["method={'name': 'distil', 'objective': {'kd': 0.9, 'crd': 0.8}}"],
      '1',
      ['study.seeds=(7,8)', "study.columns=('student/nll',)"],
    ),
    (
      'bcpd_gaussian',
      ['epochs=3,4'],
      '2',
      ['study.together=False', "study.only=('K=3/CE','K=3/MSE sum')"],
    ),
    ('kd_digits', ["teacher.classes={'a b': 'c'},same"], '1', []),
  ],
  ids=str,
)
def test_commands_make_the_configs_of_the_runs(name, over, seeds, settings):
  for member, study in members_of(name, over, seeds, settings):
    words = run_commands.words(name, settings, member, study.study.vary)
    verb, config_name, workdir, *own = words
    assert (verb, config_name) == ('train', name)
    assert workdir == f'--workdir={member.folder}'
    config = config_files.load(name)
    config_files.change(config, own)
    assert configs.resolved(config) == configs.resolved(member.config)
    assert f'seed={member.config.seed}' in own
    assert len({x.partition('=')[0] for x in own}) == len(own)


def test_a_config_that_settings_cannot_say_is_refused():
  (member, _), *_ = members_of('kd_digits', [], '1', [])
  member = member._replace(config=Odd(member.config))
  with pytest.raises(ValueError, match="'run' cannot be written as settings"):
    run_commands.words('kd_digits', [], member)


class Odd:
  """A config without one of the settings."""

  def __init__(self, config):
    self._config = config
    self.method = config.method

  def to_dict(self):
    tree = self._config.to_dict()
    del tree['epochs']
    return tree
