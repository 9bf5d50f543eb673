"""Charts: readable axes, and curves that are where their values are."""

import json
import math
import xml.etree.ElementTree as ElementTree

import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL.Image
import pytest

from jaxkd.plots import scales
from jaxkd.plots.chart import (
  LEFT,
  TOP,
  WIDTH,
  Chart,
  Series,
  chart_svg,
  charts_png,
)
from jaxkd.plots.outcomes import outcomes_png, outcomes_svg
from jaxkd.plots.squares import Point, reliability_svg, scatter_svg

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
LOSSES = [7.0, 2.0, 1.4, 1.1, 1.0, 0.9, 0.85, 0.8]


@hypothesis.given(NUMBERS, st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_even_round_and_cover_the_range(low, span, most):
  high = low + span
  hypothesis.assume(high - low > 1e-9 * abs(low))
  ticks = scales.ticks(low, high, most)
  steps = np.diff(ticks)
  slack = 1e-6 * span + 1e-9 * abs(low)
  assert ticks[0] <= low + slack and ticks[-1] >= high - slack
  assert ticks[0] > low - steps[0] - slack
  assert 2 <= len(ticks) <= most + 2
  np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
  mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-6)
  assert min(abs(mantissa - x) for x in (1, 2, 5, 10)) < 0.02


@hypothesis.given(st.lists(NUMBERS, min_size=1, max_size=60), st.integers(1, 4))
def test_limits_leave_out_few_values_and_only_for_half_the_range(
  values, curves
):
  low, high = scales.robust_limits(values, curves)
  assert low < high
  outside = sum(not low <= x <= high for x in values)
  assert outside <= max(curves, len(values) // 10)
  if outside:
    assert len(values) >= 4 * curves
    assert high - low <= (max(values) - min(values)) / 2


def test_the_first_epoch_does_not_flatten_the_rest():
  assert scales.robust_limits(LOSSES) == (0.8, 2.0)
  chart = Chart('loss', [Series('student', range(1, 9), LOSSES)])
  assert chart.ticks[-1] < 3 and chart.note == (
    'Outside the frame: student 7 in epoch 1'
  )
  lasting = [2.0, 1.9, 1.8, 1.7, 1.6, 1.5]
  assert scales.robust_limits(lasting) == (1.5, 2.0)


def test_a_curve_is_where_its_values_are():
  chart = Chart('loss', [Series('a<b', [1, 2, 3], [0.0, 1.0, 0.5], colour=3)])
  svg = ElementTree.fromstring(chart_svg(chart))
  dots = [x for x in svg.iter() if x.tag.endswith('circle')]
  low, high = chart.ticks[0], chart.ticks[-1]
  y = [float(dot.get('cy')) for dot in dots]
  x = [float(dot.get('cx')) for dot in dots]
  assert x[1] - x[0] == pytest.approx(x[2] - x[1])
  assert y[1] < y[2] < y[0]  # 1, 0.5 and 0, from top to bottom
  heights = {
    float(text.get('y')) - 4: float(text.text.replace('−', '-'))
    for text in svg.iter()
    if text.tag.endswith('text')
    and text.get('text-anchor') == 'end'
    and text.text != 'epoch'
  }
  for place, value in zip(y, [0.0, 1.0, 0.5], strict=True):
    want = np.interp(
      place, sorted(heights), [heights[k] for k in sorted(heights)]
    )
    assert want == pytest.approx(value, abs=0.01 * (high - low))
  assert all(dot.get('class') == 's3 dot' for dot in dots)
  data = json.loads(svg.get('data-chart'))
  assert data['series'][0]['name'] == 'a<b'
  assert data['series'][0]['y'] == ['0', '1', '0.5']
  assert all(TOP <= at for at in data['series'][0]['at'])
  assert LEFT < x[0] < x[-1] < WIDTH


def test_missing_values_are_gaps():
  nan = math.nan
  chart = Chart('loss', [Series('a', [1, 2, 3, 4], [1.0, nan, 2.0, 3.0])])
  svg = chart_svg(chart)
  (path,) = (
    x for x in ElementTree.fromstring(svg).iter() if x.tag.endswith('path')
  )
  assert path.get('d').count('M') == 2 and path.get('d').count('L') == 1
  assert 'NaN' not in svg and 'nan' not in svg
  assert Chart('empty', [Series('a', [1], [nan])]).values == []


def test_rates_have_a_logarithmic_axis():
  rates = [0.05, 0.005, 0.0005]
  chart = Chart('rate', [Series('a', [1, 2, 3], rates)], logarithmic=True)
  data = json.loads(ElementTree.fromstring(chart_svg(chart)).get('data-chart'))
  first, second, third = data['series'][0]['at']
  assert second - first == pytest.approx(third - second, abs=0.11)
  assert not Chart(
    'rate', [Series('a', [1, 2], [0.1, 0])], logarithmic=True
  ).is_logarithmic


@pytest.mark.parametrize('values', [[0.5], [1.0, 1.0], [0.0, 0.0, 0.0], LOSSES])
def test_every_length_can_be_drawn(values, tmp_path):
  series = Series('a', range(1, len(values) + 1), values)
  charts = [Chart('one', [series]), Chart('two', [series], ' %', zero=True)]
  for chart in charts:
    ElementTree.fromstring(chart_svg(chart))
  with PIL.Image.open(charts_png(charts, tmp_path / 'x.png')) as image:
    assert image.width > image.height


def test_a_reliability_diagram_has_the_height_of_its_accuracies():
  bins = {
    'confidence': np.array([np.nan, 0.75]),
    'accuracy': np.array([np.nan, 0.5]),
    'share': np.array([0.0, 1.0]),
  }
  svg = ElementTree.fromstring(reliability_svg('a<b', bins))
  rects = [x for x in svg.iter() if x.tag.endswith('rect')]
  kinds = {x.get('class'): float(x.get('height')) / 240 for x in rects}
  assert kinds['s0 dot'] == pytest.approx(0.5)
  assert kinds['over dot'] == pytest.approx(0.25)
  assert svg.get('aria-label') == 'Reliability of a<b'


def test_points_above_the_diagonal_are_those_of_a_better_result():
  points = [Point('<cat>', 0.5, 0.9), Point('dog', 0.9, 0.5)]
  svg = ElementTree.fromstring(scatter_svg(points, 'teacher', 'student'))
  x, y = zip(
    *(
      (float(dot.get('cx')) - LEFT - 2, 248 - float(dot.get('cy')))
      for dot in svg.iter()
      if dot.tag.endswith('circle')
    ),
    strict=True,
  )
  assert y[0] > x[0] and y[1] < x[1]
  scatter_svg([Point('one', 1.0, 1.0)], 'teacher', 'student')


def test_outcomes_are_dots_by_seed(tmp_path):
  svg = outcomes_svg(
    {'kd<': [60.0, 62.0], 'plain': [59.0, math.nan], 'none': [math.nan] * 2},
    'top-1',
    ' %',
    'plain',
    (3, 5),
  )
  root = ElementTree.fromstring(svg)
  titles = [x.text for x in root.iter() if x.tag.endswith('title')]
  assert 'kd<, seed 5: 62 %' in titles and 'plain, seed 3: 59 %' in titles
  assert len([x for x in root.iter() if x.tag.endswith('circle')]) == 3
  assert 'kd<: mean 61 %, standard deviation 1.4' in titles
  assert 'no value yet' in svg and 'nan' not in svg.lower()
  with PIL.Image.open(
    outcomes_png({'kd<': [60.0, 62.0]}, tmp_path / 'x.png', 'top-1')
  ) as image:
    assert image.width > image.height
  with pytest.raises(ValueError, match='no recipe has a value'):
    outcomes_svg({'a': [math.nan]}, 'top-1')
