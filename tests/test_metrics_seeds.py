"""Statistics over seeds: independent formulas, and the laws that they obey."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from jaxkd.metrics import seeds

numbers = st.floats(-1e3, 1e3).map(lambda x: round(x, 6))
several = st.lists(numbers, min_size=2, max_size=12)
shifts = st.floats(-100, 100)


def named(values):
  return {str(seed): value for seed, value in enumerate(values)}


def close(got, want, size=1.0):
  assert got == pytest.approx(want, rel=1e-9, abs=1e-9 * max(1.0, size))


@given(several)
def test_spread_is_the_formula(values):
  n = len(values)
  mean = math.fsum(values) / n
  sd = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1))
  got = seeds.spread(values)
  assert got.n == n
  close(got.mean, mean, 1e3)
  close(got.sd, sd, 1e3)


def test_one_value_has_no_deviation_and_none_has_no_mean():
  assert seeds.spread([0.5]) == (1, 0.5, None)
  assert seeds.interval([0.5]) is None
  n, mean, sd = seeds.spread([])
  assert (n, sd) == (0, None) and math.isnan(mean)
  assert seeds.difference({'0': 1.0}, {'0': 0.25}) == (1, 0.75, *[None] * 3)
  assert seeds.difference({'0': 1.0}, {'1': 0.25}).n == 0


@given(several, several)
def test_difference_is_scipys_paired_interval(first, second):
  n = min(len(first), len(second))
  gaps = np.subtract(first[:n], second[:n])
  got = seeds.difference(named(first), named(second))
  assert got.n == n
  close(got.mean, gaps.mean(), 1e3)
  if np.ptp(gaps) < 1e-6:  # scipy warns of equal differences
    return
  test = stats.ttest_rel(first[:n], second[:n]).confidence_interval(0.95)
  close(got.error, stats.sem(gaps), 1e3)
  close(got.low, test.low, 1e4)
  close(got.high, test.high, 1e4)


@pytest.mark.parametrize('n', [2, 3, 5, 30])
def test_interval_holds_95_per_cent_of_students_density(n):
  """By integrating the density, without scipy's distributions."""
  values = np.random.default_rng(n).normal(size=n)
  low, high = seeds.interval(values)
  half = (high - low) / 2 / (values.std(ddof=1) / math.sqrt(n))
  k = n - 1

  def density(x):
    factor = special.gamma((k + 1) / 2) / special.gamma(k / 2)
    return factor / math.sqrt(k * math.pi) * (1 + x * x / k) ** (-(k + 1) / 2)

  inside, _ = integrate.quad(density, -half, half)
  assert inside == pytest.approx(0.95, abs=1e-7)


def test_interval_covers_the_mean_as_often_as_it_says():
  rng = np.random.default_rng(0)
  covered = [
    low <= 0 <= high
    for low, high in (seeds.interval(x) for x in rng.normal(size=(4000, 4)))
  ]
  assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


@given(several, shifts)
def test_what_both_runs_of_a_seed_share_cancels(values, shift):
  other = [value + shift for value in values]
  got = seeds.difference(named(other), named(values))
  close(got.mean, shift, 1e3)
  close(got.error, 0.0, 1e3)


@given(several, several)
def test_exchanging_the_recipes_changes_the_sign(first, second):
  forth = seeds.difference(named(first), named(second))
  back = seeds.difference(named(second), named(first))
  close(forth.mean, -back.mean, 1e3)
  close(forth.low, -back.high, 1e4)
  close(forth.error, back.error, 1e3)


@given(st.dictionaries(st.sampled_from('abcdef'), numbers), several)
def test_only_common_seeds_count(values, extra):
  common = {'a': 1.0, 'b': 2.0, 'c': 4.0}
  only = {f'own {n}': x for n, x in enumerate(extra)}
  got = seeds.difference({**values, **only}, common)
  assert got == seeds.difference(
    {k: x for k, x in values.items() if k in common}, common
  )
  assert got.n == len(values.keys() & common.keys())
