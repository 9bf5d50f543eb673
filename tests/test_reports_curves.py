"""The charts of a run: which curves they have, from which records."""

import math

import pytest

from jaxkd import problems
from jaxkd.reports import curves

NETWORKS = ['teacher', 'plain_student', 'student', 'student_ema']
PHASES = {
  'teacher': {'networks': ['teacher'], 'frozen': {}},
  'baseline': {'networks': ['plain_student'], 'frozen': {}},
  'distil': {'networks': ['student', 'student_ema'], 'frozen': {'teacher': {}}},
}


def rows(**further):
  """Two epochs of each phase."""
  records = []
  for phase, name in (('teacher', 'teacher'), ('baseline', 'plain_student')):
    for epoch in (1, 2):
      records.append(
        {
          'phase': phase,
          'epoch': epoch,
          'train/loss': 1.0 / epoch,
          f'train/top1/{name}': 0.5,
          f'test/{name}/top1': 0.3 * epoch,
          f'test/{name}/nll': 2.0 / epoch,
          'images_per_second': 100.0,
        }
      )
  for epoch in (1, 2):
    records.append(
      {
        'phase': 'distil',
        'epoch': epoch,
        'train/loss': 3.0,
        'train/loss/teacher->student:kd': 1.0,
        'train/loss/labels->student:cross_entropy': 2.0,
        'train/top1/student': 0.2,
        'test/teacher/top1': 0.6,
        'test/teacher/nll': 1.0,
        'test/student/top1': 0.25 * epoch,
        'test/student/nll': None if epoch == 1 else 0.5,
        'test/student_ema/top1': 0.4,
        'test/student_ema/nll': 0.7,
        'images_per_second': 50.0,
        **further,
      }
    )
  return records


def charts(records, networks=NETWORKS, phases=PHASES):
  made = curves.of_run(
    records, phases, networks, 'student', problems.CLASSIFICATION
  )
  return {chart.title: chart for chart in made}


def by_name(chart):
  return {series.name: series for series in chart.series}


def test_each_network_is_shown_in_the_phase_that_trained_it():
  top1 = by_name(charts(rows())['Test top-1'])
  assert list(top1) == NETWORKS
  assert top1['teacher'].y == pytest.approx([30, 60])
  assert top1['student'].y == pytest.approx([25, 50])
  assert top1['student'].bold and top1['student'].colour == 0
  assert top1['student_ema'].dashed and top1['student_ema'].colour == 0
  assert top1['teacher'].colour != top1['plain_student'].colour
  nll = by_name(charts(rows())['Test NLL (nats)'])
  assert math.isnan(nll['student'].y[0]) and nll['student'].y[1] == 0.5


def test_a_network_that_no_phase_trained_is_a_dashed_line():
  last = {'distil': PHASES['distil']}
  records = [row for row in rows() if row['phase'] == 'distil']
  top1 = by_name(charts(records, ['teacher', 'student'], last)['Test top-1'])
  frozen = top1['teacher (frozen)']
  assert frozen.dashed and list(frozen.x) == [1, 2]
  assert frozen.y == pytest.approx([60, 60])


def test_the_gap_is_the_lead_of_the_others():
  gap = charts(rows())['Gap: lead over student']
  own = by_name(gap)
  assert own['teacher'].y == pytest.approx([35, 10]) and own['teacher'].dashed
  assert own['plain_student'].y == pytest.approx([5, 10])
  assert gap.zero and gap.unit == ' points'


def test_losses_and_throughput_are_by_phase():
  made = charts(rows())
  loss = by_name(made['Training loss, by phase'])
  assert [x.y for x in loss.values()] == [[1, 0.5], [1, 0.5], [3, 3]]
  assert loss['distil'].bold and loss['distil'].colour == 0
  parts = by_name(made['Losses of phase distil, unweighted'])
  assert set(parts) == {'teacher->student:kd', 'labels->student:cross_entropy'}
  assert made['Throughput, by phase'].unit == ' images/s'


def test_what_was_not_logged_has_no_chart():
  assert not any('rate' in title for title in charts(rows()))
  assert not any('guide' in title for title in charts(rows()))


def test_learning_rates_and_gaps_are_shown_where_they_were_logged():
  logged = {
    'learning_rate': 0.1,
    'learning_rate/student': 0.01,
    'gap/student': 0.3,
    'gap/plain_student': -0.1,
    'gap/student/teacher': 0.3,
  }
  made = charts(rows(**logged))
  rate = made['Learning rate, by phase']
  assert by_name(rate)['distil'].y == [0.1, 0.1]
  assert by_name(made['Learning rate of student, by phase'])
  gap = by_name(made['Gap of each learner to its best guide'])
  assert set(gap) == {'student', 'plain_student'}
  assert gap['student'].y == pytest.approx([30, 30])
  # Of the result alone, the other chart has it.
  del logged['gap/plain_student']
  assert not any('guide' in title for title in charts(rows(**logged)))
