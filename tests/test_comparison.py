"""Comparisons over seeds: numbers, text, CSV, LaTeX and the page."""

import csv
import html.parser
import io
import math
import re
import shutil
import subprocess

import browser
import made_runs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import jaxkd
from jaxkd.reports import comparison_page, comparison_text
from jaxkd.reports.comparison import compare

KD = [0.70, 0.72, 0.71, 0.75]
DKD = {0: 0.73, 1: 0.74, 3: 0.76, 9: 0.9}
DKD_METHOD = {'method': {'name': 'distil', 'objective': 'dkd'}}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  made_runs.over_seeds(folder / 'a_kd', KD)
  made_runs.over_seeds(folder / 'b_dkd', DKD, DKD_METHOD, commit='b' * 40)
  made_runs.make(folder / 'c_plain', {'method': {'name': 'plain'}}, top1=0.6)
  made_runs.make(folder / 'd', {'seed': 5}, finished=False)
  return folder


@pytest.fixture(scope='module')
def comparison(runs):
  return jaxkd.compare([runs])


def test_the_numbers_are_those_of_scipy(comparison):
  (table,) = comparison.tables
  kd, dkd, plain = table.rows
  assert table.metric == 'student/top1' and table.baseline == kd.label
  assert kd.spread == (
    4,
    pytest.approx(0.72),
    pytest.approx(np.std(KD, ddof=1)),
  )
  assert kd.difference is None
  assert dkd.spread.n == 4 and dkd.difference.n == 3  # seeds 0, 1 and 3
  first, second = [DKD[n] for n in (0, 1, 3)], [KD[n] for n in (0, 1, 3)]
  test = stats.ttest_rel(first, second)
  ends = test.confidence_interval(0.95)
  assert dkd.difference.mean == pytest.approx(np.mean(first) - np.mean(second))
  assert dkd.difference.low == pytest.approx(ends.low)
  assert dkd.difference.high == pytest.approx(ends.high)
  error = dkd.difference.mean / test.statistic
  assert dkd.difference.error == pytest.approx(error)
  assert plain.spread == (1, 0.6, None)
  assert plain.difference == (1, pytest.approx(-0.1), None, None, None)


def test_the_text_says_what_the_numbers_are(comparison, runs):
  text = comparison.table()
  assert text == str(comparison)
  assert '100 test images of cifar100: mean ± standard deviation over n' in text
  rows = {x.split()[0].rstrip(','): x for x in text.splitlines()[3:] if x}
  assert re.search(r' 4 +72.00 ± 2.16 +baseline', rows['kd'])
  assert re.search(r' 4 +78.25 ± 7.93 +\+2.00 ± 0.58 ', rows['distil'])
  assert '[-0.48, +4.48]      3' in rows['distil']
  assert re.search(r' 1 +60.00 +-10.00 +1 ', rows['plain'])
  assert 'n = 1: a single run has no standard deviation' in text
  assert 'seeds of distil, objective dkd: 0, 1, 3, 9' in text
  assert rows['kd'].endswith('aaaaaaa')
  assert rows['distil'].endswith('bbbbbbb')
  assert f'Left out:\n  {runs / "d"}: not finished' in text


@pytest.mark.parametrize(
  ('name', 'want'),
  [
    ('', 'kd'),
    ('kd', 'kd'),
    ('distil, objective dkd', 'distil, objective dkd'),
    ('dkd', 'distil, objective dkd'),
    ('objective=dkd', 'distil, objective dkd'),
    ('objective_dkd , distil', 'distil, objective dkd'),
    ('plain', 'plain'),
    ('{runs}/c_plain', 'plain'),
  ],
)
def test_any_recipe_can_be_the_baseline(runs, name, want):
  (table,) = compare(runs, baseline=name.format(runs=runs)).tables
  assert table.baseline == want
  own = {x.label: x.difference for x in table.rows}
  assert [label for label, x in own.items() if x is None] == [want]


def test_results_are_runs(runs):
  results = [jaxkd.load(runs / 'a_kd' / f'seed{n}') for n in range(4)]
  comparison = jaxkd.compare([*results, str(runs / 'c_plain')])
  assert [x.spread.n for x in comparison.tables[0].rows] == [4, 1]
  assert repr(comparison) == comparison.table()


def test_a_baseline_that_does_not_fit_is_refused(runs):
  with pytest.raises(
    KeyError, match='no recipe fits --baseline=gpd. Available: .* kd'
  ):
    compare(runs, baseline='gpd')
  made = runs.parent / 'two'
  made_runs.make(made / 'a', {'method.temperature': 1.0})
  made_runs.make(made / 'b', {'method.temperature': 1.0, 'epochs': 3})
  made_runs.make(made / 'c', {'method.temperature': 2.0})
  with pytest.raises(ValueError, match=r'fits several recipes:(\n  .*){2}'):
    compare(made, baseline='temperature 1')


def test_another_metric_can_be_compared(runs):
  (table,) = compare(runs, metric='student/nll').tables
  assert table.rows[0].spread.mean == 1.0
  text = compare(runs, metric='student/nll').table()
  assert 'student NLL (nats)' in text and '1.0000 ± 0.0000' in text
  assert 'published' not in text
  with pytest.raises(KeyError, match=r"a_kd/seed0: no metric 'nl'. Did you"):
    compare(runs, metric='student/nl')


def test_nothing_to_compare_is_refused(tmp_path):
  made_runs.make(tmp_path / 'run', finished=False)
  with pytest.raises(
    FileNotFoundError, match=r'no finished(.|\n)*run: not fin'
  ):
    compare(tmp_path)


def test_a_value_that_is_not_finite_stays_visible(tmp_path):
  made_runs.over_seeds(tmp_path, [0.5, None])
  comparison = compare(tmp_path)
  (row,) = comparison.tables[0].rows
  assert math.isnan(row.spread.mean) and row.spread.n == 2
  assert 'not finite' in comparison.table()
  assert 'not finite' in comparison.to_html()


def test_seeds_that_no_other_recipe_has_make_no_difference(tmp_path):
  made_runs.over_seeds(tmp_path / 'a', {0: 0.5, 1: 0.6})
  made_runs.over_seeds(tmp_path / 'b', {7: 0.7}, {'epochs': 9})
  text = compare(tmp_path).table()
  assert re.search(r'epochs 9 .*no seed in common +0', text)


# Published figures


def published(folder, settings=None, **others):
  made_runs.make(folder, settings, **others)
  (row,) = compare(folder).tables[0].rows
  return [(x.figure.top1, x.differences) for x in row.published]


@pytest.mark.parametrize(
  ('settings', 'want'),
  [
    ({}, ()),
    ({'seed': 3, 'cache': 'x', 'baseline': True}, ()),
    ({'epochs': 30}, ('published at 240 epochs, here 30',)),
    ({'data.name': 'cifar10'}, ('published on cifar100, here cifar10',)),
    ({'batch_size': 128}, ('batch_size 64, here 128',)),
    ({'data.few_shot': 50}, ('data.few_shot 0, here 50',)),
    ({'method.temperature': 1.0}, ('method.temperature 4.0, here 1.0',)),
    ({'teacher.loss': 'brier'}, ('teacher.loss cross_entropy, here brier',)),
    (
      {'optimizer.learning_rate': 0.1, 'student.width': 2.0},
      ('optimizer.learning_rate 0.05, here 0.1', 'student.width 1.0, here 2.0'),
    ),
  ],
  ids=str,
)
def test_a_published_figure_says_how_its_training_differs(
  settings, want, tmp_path
):
  assert published(tmp_path / 'run', settings) == [(73.33, want)]


def test_figures_are_those_of_pair_and_method(tmp_path):
  def of(name, method, pair='resnet32x4,resnet8x4', **others):
    own = published(tmp_path / name, {'method': method}, pair=pair, **others)
    assert all(differences == () for _, differences in own)
    return [top1 for top1, _ in own]

  assert of('dkd', {'name': 'distil', 'objective': 'dkd'}) == [76.32]
  assert of('plain', {'name': 'plain'}) == [72.5]
  assert of('teacher', {'name': 'teacher'}) == [79.42]
  assert of('gpd', {'name': 'gpd'}) == []
  assert of('pair', {'name': 'kd'}, pair='vgg8,resnet8x4') == []
  # Two sources, and a student that the benchmark trains at another rate.
  sp = {'name': 'distil', 'objective': {'name': 'sp'}}
  assert of('sp', sp, pair='vgg13,mobilenet_v2') == [66.74, 66.3]


def test_figures_are_marked_where_they_are_shown(tmp_path):
  made_runs.over_seeds(tmp_path, [0.7, 0.71], {'epochs': 30})
  text = compare(tmp_path).table()
  assert '73.33 (a)' in text
  assert '(a) published at 240 epochs, here 30' in text
  assert 'published: SLKD (Liu et al., 2023), table 1, https://' in text
  page = compare(tmp_path).to_html()
  assert '73.33 *' in page and 'published at 240 epochs, here 30' in page
  (line,) = csv.DictReader(io.StringIO(compare(tmp_path).to_csv()))
  assert line['published_percent'] == '73.33'
  assert line['published_differences'] == 'published at 240 epochs, here 30'


# Files


def test_csv_has_all_digits_and_a_line_for_each_recipe(comparison):
  lines = list(csv.DictReader(io.StringIO(comparison.to_csv())))
  (table,) = comparison.tables
  assert [x['recipe'] for x in lines] == [x.label for x in table.rows]
  for line, row in zip(lines, table.rows, strict=True):
    assert float(line['mean']) == row.spread.mean
    assert line['sd'] == ('' if row.spread.sd is None else str(row.spread.sd))
  dkd = table.rows[1].difference
  assert float(lines[1]['difference_low']) == dkd.low
  assert float(lines[1]['difference_error']) == dkd.error
  assert lines[1]['seeds'] == '0 1 3 9' and lines[1]['pairs'] == '3'
  assert lines[1]['method.objective.name'] == 'dkd'


def test_csv_has_a_line_for_each_run_on_request(comparison, tmp_path):
  path = tmp_path / 'new' / 'runs.csv'
  text = comparison.to_csv(path, per_seed=True)
  assert path.read_text() == text
  lines = list(csv.DictReader(io.StringIO(text)))
  assert len(lines) == len(KD) + len(DKD) + 1
  kd = [float(x['student/top1']) for x in lines if x['recipe'] == 'kd']
  assert kd == KD
  assert {x['teacher/top1'] for x in lines} == {'0.75'}


def test_latex_is_a_table_of_booktabs(comparison, tmp_path):
  text = comparison.to_latex(tmp_path / 'table.tex')
  body = [x for x in text.splitlines() if not x.startswith('%')]
  assert body[0] == r'\begin{tabular}{lrrrrr}'
  rules = [x.strip() for x in body if 'rule' in x]
  assert rules == [r'\toprule', r'\midrule', r'\bottomrule']
  rows = [x for x in body if x.endswith(r'\\')]
  assert {x.count('&') - x.count(r'\&') for x in rows} == {5}
  assert r'kd & 4 & $72.00 \pm 2.16$ & baseline &  & 73.33 \\' in text
  assert r'student top-1 (\%)' in text


@given(st.text(alphabet='ab\\~^<>&%$#_{} 1', max_size=20))
def test_escaping_leaves_no_active_character(words):
  latex = comparison_text.escaped(words)
  commands = r'\\(textbackslash|textasciitilde|textasciicircum|textless|'
  plain = re.sub(commands + r'textgreater)\{\}|\\[&%$#_{}]', '', latex)
  assert not set(plain) & set('\\~^<>&%$#_{}')


@pytest.mark.skipif(not shutil.which('pdflatex'), reason='LaTeX is not here')
def test_latex_compiles(comparison, tmp_path):
  text = comparison.to_latex()
  source = tmp_path / 'table.tex'
  source.write_text(
    '\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n'
    f'{text}\\end{{document}}\n'
  )
  subprocess.run(
    ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', source.name],
    check=True,
    cwd=tmp_path,
    stdout=subprocess.DEVNULL,
  )


VOID = {'meta', 'link', 'br', 'img', 'input', 'hr', 'circle', 'line'}


class Checker(html.parser.HTMLParser):
  """Collects what a page has, and checks that its elements are nested."""

  def __init__(self):
    super().__init__()
    self.open, self.counts, self.attributes = [], {}, []

  def handle_starttag(self, tag, attrs):
    self.counts[tag] = self.counts.get(tag, 0) + 1
    self.attributes += attrs
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.counts[tag] = self.counts.get(tag, 0) + 1
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert tag in VOID or self.open.pop() == tag


def test_the_page_is_one_file_with_a_dot_for_each_run(comparison, tmp_path):
  page = comparison.to_html(tmp_path / 'page.html')
  checker = Checker()
  checker.feed(page)
  assert checker.open == []
  keys = 1  # in the legend
  assert checker.counts['circle'] == len(KD) + len(DKD) + 1 + keys
  loads = ('src', 'srcset', 'href')
  loaded = [x for name, x in checker.attributes if name in loads]
  assert all(x.startswith(('data:', '#', 'https://')) for x in loaded)
  assert 'img' not in checker.counts and checker.counts['link'] == 1  # the icon
  assert 'url(' not in page and '@import' not in page
  for words in ('aaaaaaa', 'bbbbbbb', 'not finished', 'RepDistiller', 'dkd'):
    assert words in page


CHROMIUM = shutil.which('chromium')
FLAGS = (*browser.FLAGS, '--allow-file-access-from-files')
# A phone's width, in which the page must not be wider.
FRAME = (
  '<iframe id="page" src="page.html" width="375" height="3000" onload="'
  'const all = page.contentDocument; document.title ='
  " [all.documentElement.scrollWidth, all.querySelectorAll('circle').length]"
  '"></iframe>'
)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason='Chromium is not here')
def test_the_page_fits_a_phone(comparison, tmp_path):
  comparison.to_html(tmp_path / 'page.html')
  (tmp_path / 'frame.html').write_text(FRAME)
  done = subprocess.run(
    [
      *(CHROMIUM, *FLAGS, f'--user-data-dir={tmp_path / "profile"}'),
      *('--dump-dom', f'file://{tmp_path / "frame.html"}'),
    ],
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  )
  width, circles = re.search(r'<title>(\d+),(\d+)', done.stdout).groups()
  assert int(width) <= 375
  assert int(circles) == len(KD) + len(DKD) + 1 + 1  # and one in the legend


def test_names_are_escaped_in_the_page(tmp_path):
  made_runs.make(tmp_path / '<em>run', {'data.name': 'folder:<u>&co'})
  page = compare(tmp_path).to_html()
  assert '<em>' not in page and '<u>' not in page
  assert 'folder:&lt;u&gt;&amp;co' in page


finite = st.floats(0, 1).map(lambda x: round(x, 4))


@given(st.lists(finite, min_size=1, max_size=5))
def test_dots_are_in_the_plot_and_in_order(tmp_path_factory, values):
  folder = tmp_path_factory.mktemp('plot')
  made_runs.over_seeds(folder, values)
  (table,) = compare(folder).tables
  plot = comparison_page.plot(table)
  (strip,) = plot.strips
  places = [dot.x for dot in strip.dots]
  assert all(0 <= x <= 100 for x in places)
  order = np.argsort(values, kind='stable')
  assert np.all(np.diff(np.array(places)[order]) >= 0)
  if strip.low is not None:
    assert 0 <= strip.low <= strip.mean <= strip.high <= 100


@given(st.floats(-1e4, 1e4), st.floats(1e-4, 1e4))
def test_ticks_are_a_few_round_numbers(low, width):
  ticks = comparison_page.nice_ticks(low, low + width)
  assert 2 <= len(ticks) <= 11
  steps = np.diff(ticks)
  np.testing.assert_allclose(steps, steps[0], rtol=1e-5)
  assert low - 1e-6 * width <= ticks[0]
  assert ticks[-1] <= low + width * (1 + 1e-6)


def test_test_images_that_differ_are_explained(tmp_path):
  made_runs.over_seeds(tmp_path / 'a', [0.1, 0.2])
  made_runs.over_seeds(tmp_path / 'b', [0.3], {'data.name': 'digits'})
  comparison = compare(tmp_path)
  assert len(comparison.tables) == 2
  words = '2 tables: results on different test images are not compared'
  assert words in comparison.table() and words in comparison.to_html()
  assert comparison.to_latex().count(r'\begin{tabular}') == 2


def test_an_interval_of_a_fraction_is_drawn_between_0_and_1(tmp_path):
  made_runs.over_seeds(tmp_path, [0.1, 0.9])
  (table,) = compare(tmp_path).tables
  (row,) = table.rows
  assert row.interval[0] < 0 and row.interval[1] > 1
  assert comparison_page._ends(table, row) == (0.0, 1.0)
