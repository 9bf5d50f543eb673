"""The published figures agree with themselves and with the catalogues."""

import collections
import json
import pathlib

import pytest

from jaxkd import config as configs
from jaxkd import methods, models, objectives
from jaxkd.catalog import published
from jaxkd.commands import config_files
from jaxkd.runs.records import complete

FILE = pathlib.Path(published.__file__).with_name(published.FILE)


def test_pairs_are_models_of_the_catalogue():
  for each in published.figures():
    assert {each.teacher, each.student} <= set(models.CATALOG), each


def test_methods_are_those_of_jaxkd_or_marked_otherwise():
  printed = published.read()['methods']
  assert {each.method for each in published.figures()} == set(printed)
  assert [name for name, own in printed.items() if own is None] == ['SLKD*']
  for own in filter(None, printed.values()):
    assert set(own) <= {'method', 'optimizer', 'settings'}
    assert own['method']['name'] in methods.CATALOG
    assert own['method'].get('objective', 'kd') in objectives.CATALOG


def test_sources_are_complete_and_used():
  contents = published.read()
  used = {row['source'] for row in contents['figures']}
  assert used == set(contents['sources'])
  for each in published.figures():
    (source,) = each.sources
    assert source.title and source.protocol
    assert source.url.startswith('https://')
    assert bool(source.commit) == ('github.com' in source.url)
    assert source.url in str(source)


def test_figures_are_accuracies_in_per_cent():
  for each in published.figures():
    assert 50 < each.top1 < 90
    assert each.epochs in (None, 240)
    assert (each.epochs == 240) == (each.data == 'cifar100')
  rows = json.loads(FILE.read_text())['figures']
  assert len(published.figures()) == sum(len(row['top1']) for row in rows)


def test_a_pair_is_once_in_a_source():
  keys = [
    (row['source'], row['data'], row['teacher'], row['student'])
    for row in published.read()['figures']
  ]
  assert len(set(keys)) == len(keys)


def test_networks_alone_have_one_accuracy():
  alone = collections.defaultdict(set)
  for each in published.figures():
    if each.method == published.TEACHER:
      alone[each.data, each.teacher].add(each.top1)
    elif each.method == published.PLAIN:
      alone[each.data, each.student].add(each.top1)
  assert {k: x for k, x in alone.items() if len(x) > 1} == {}


def test_sources_disagree_only_where_that_is_known():
  by_key = collections.defaultdict(set)
  for each in published.figures():
    if not each.note:
      key = each.data, each.teacher, each.student, each.method
      by_key[key].add(each.top1)
  assert {(t, s, m): x for (_, t, s, m), x in by_key.items() if len(x) > 1} == {
    ('wrn_40_2', 'wrn_40_1', 'SP'): {72.65, 72.43},
    ('wrn_40_2', 'wrn_16_2', 'SP'): {73.89, 73.83},
    ('wrn_40_2', 'wrn_16_2', 'DKD'): {76.24, 76.23},
    ('vgg13', 'vgg8', 'SP'): {73.36, 72.68},
    ('vgg13', 'mobilenet_v2', 'SP'): {66.74, 66.3},
    ('resnet50', 'mobilenet_v2', 'SP'): {68.61, 68.08},
    ('resnet32x4', 'shufflenet_v1', 'SP'): {75.51, 73.48},
    ('resnet32x4', 'shufflenet_v2', 'SP'): {75.75, 74.56},
    ('wrn_40_2', 'shufflenet_v1', 'SP'): {75.94, 74.52},
  }


@pytest.mark.parametrize(
  ('config', 'want'),
  [
    ('kd_cifar', 'KD'),
    ('dkd_cifar', 'DKD'),
    ('plain_cifar', 'plain'),
    ('teacher_cifar', 'teacher'),
    ('slkd_cifar', 'SLKD'),
    ('dot_cifar', 'KD+DOT'),
    ('ab_cifar', 'AB'),
    ('fsp_cifar', 'FSP'),
    ('ft_cifar', 'FT'),
    ('fitnet_cifar', 'FitNet'),
    ('reviewkd_cifar', 'ReviewKD'),
    ('gpd_cifar', None),
    ('dml_cifar', None),
    ('dist_cifar', None),
  ],
)
def test_a_config_has_the_printed_name_of_its_method(config, want):
  own = config_files.load(config)
  config_files.change(own, ['student.name=vgg8'])
  settings = complete(configs.resolved(own))
  assert published.method_of(settings) == want


def test_figures_of_a_pair():
  (figure,) = published.lookup('KD', 'resnet32x4', 'resnet8x4')
  assert (figure.top1, figure.epochs, figure.data) == (73.33, 240, 'cifar100')
  assert len(figure.sources) == 4 and len({*figure.sources}) == 4
  both = published.lookup('DKD', 'wrn_40_2', 'wrn_16_2')
  assert [each.top1 for each in both] == [76.24, 76.23]
  assert {x.top1 for x in published.lookup('plain', 'any', 'vgg8')} == {70.36}
  assert {x.top1 for x in published.lookup('teacher', 'vgg13', '')} == {74.64}
  assert published.lookup('KD', 'vgg8', 'vgg13') == []


@pytest.mark.parametrize(
  ('objective', 'want'),
  [
    ('kd', 'KD'),
    ({'name': 'dkd', 'beta': 2.0}, 'DKD'),
    ({'kd': 0.9, 'crd': 0.8}, None),
    ('dist', None),
  ],
)
def test_an_objective_in_any_form_names_the_method(objective, want):
  config = configs.default()
  config.method = {'name': 'distil', 'objective': objective}
  assert published.method_of(complete(configs.resolved(config))) == want
  config.method = {'name': 'distil'}
  assert published.method_of(complete(configs.resolved(config))) == 'KD'
