"""Reports: pages that open anywhere, with the numbers of the networks."""

import html.parser
import json
import pathlib
import shutil

import browser
import finished
import jax
import numpy as np
import PIL.Image
import pytest
import tiny

import jaxkd
from jaxkd import checkpoints, reports
from jaxkd.api import load
from jaxkd.cli import program
from jaxkd.commands import train
from jaxkd.reports import record
from jaxkd.runs.study import Study

NASTY = '<img src=x onerror="alert(1)">'
RECIPES = {
  'kd': {},
  f'{NASTY}&\'"': {'method': {'temperature': 2.0}},
  'plain': {'method': {'name': 'plain'}},
}


class Page(html.parser.HTMLParser):
  """What a page holds: elements with their attributes, ids, text."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self.elements: list[tuple[str, dict[str, str | None]]] = []
    self.text, self._silent = '', False
    self.feed(path.read_text(encoding='utf-8'))
    self.text = ' '.join(self.text.split())

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    self._silent = tag in ('script', 'style')

  def handle_endtag(self, tag):
    self._silent = False

  def handle_data(self, data):
    if not self._silent:
      self.text += f' {data} '

  def all(self, tag: str) -> list[dict[str, str | None]]:
    return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run with a teacher, and its report."""
  path = tmp_path_factory.mktemp('reports') / 'kd'
  shutil.copytree(finished.run('kd'), path)
  reports.write(path)
  return path


@pytest.fixture
def changed(run, tmp_path):
  """A copy of the run, to be changed."""
  return shutil.copytree(run, tmp_path / 'changed')


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  """A finished study of two seeds, and its report."""
  path = tmp_path_factory.mktemp('reports') / 'study'
  config = tiny.config(
    epochs=1,
    cache=str(finished.folder() / 'cache'),
    study__recipes=RECIPES,
    study__seeds=(0, 3),
    study__baseline='plain',
    **finished.DATA,
  )
  train.run(config, path)
  return path


def edit(file, change):
  content = json.loads(file.read_text())
  change(content)
  file.write_text(json.dumps(content))


@pytest.mark.parametrize('kind', ['run', 'study'])
def test_it_is_one_file_that_opens_on_a_phone(request, kind):
  path = request.getfixturevalue(kind) / 'report.html'
  page = Page(path)
  for tag, attributes in page.elements:
    for key in ('src', 'href', 'data', 'poster', 'srcset'):
      value = attributes.get(key) or ''
      if tag == 'a':
        assert '://' not in value
        assert (
          value.startswith('#') or (path.parent / _unquoted(value)).exists()
        )
      else:
        assert not value or value.startswith('data:')
  (policy,) = (x['content'] for x in page.all('meta') if 'http-equiv' in x)
  assert policy.startswith("default-src 'none'; img-src data:;")
  text = path.read_text(encoding='utf-8')
  assert '@import' not in text and 'url(' not in text
  assert page.all('svg') and page.all('title')
  if not browser.path():
    pytest.skip('Chromium is absent: only the elements have been checked')
  seen = browser.probe(path, 375)
  assert seen['wrong'] == seen['requests'] == seen['wide'] == []
  assert seen['width'] <= seen['window'] == 375
  assert all(min(each) > 0 for each in seen['images'] + seen['drawings'])
  outer = [x for x in page.all('svg') if 'role' in x]
  assert len(seen['drawings']) == len(outer)
  charts = [x for x in page.all('svg') if 'data-chart' in x]
  assert len(seen['tips']) == len(charts)
  assert all(tip.startswith('epoch ') for tip in seen['tips'])


def _unquoted(address: str) -> str:
  from urllib.parse import unquote

  return unquote(address)


def test_the_numbers_are_those_of_the_networks(run):
  kept = json.loads((run / 'report.json').read_text())['predictions']
  dataset = tiny.experiment(**finished.DATA).dataset
  image = dataset.test.image.astype(np.float32) / 255
  image = ((image - dataset.view.mean) / dataset.view.std).astype(np.float32)
  labels, probability = dataset.test.label, {}
  for name in ('student', 'teacher'):
    variables, card = checkpoints.load(run / 'networks' / name)
    logits = jax.jit(card.module().apply)(variables, image).logits
    logits = np.asarray(logits, np.float64)
    each = np.exp(logits - logits.max(-1, keepdims=True))
    probability[name] = each / each.sum(-1, keepdims=True)
  answers = {name: p.argmax(-1) for name, p in probability.items()}
  own, other = answers['student'], answers['teacher']
  assert (kept['network'], kept['other']) == ('student', 'teacher')
  assert kept['images'] == kept['of'] == len(labels) == 60
  assert kept['agreement'] == pytest.approx(np.mean(own == other), abs=1e-4)
  assert kept['mistakes'] == np.sum(own != labels)
  for k, row in enumerate(kept['classes']):
    of_class = labels == k
    assert row['images'] == of_class.sum()
    for name, value in row['values'].items():
      want = np.mean(answers[name][of_class] == k)
      assert value == pytest.approx(want, abs=1e-4)
  counted = {}
  for row in kept['confusions']:
    pair = tuple(
      dataset.class_names.index(row[x]) for x in ('label', 'predicted')
    )
    assert pair[0] != pair[1]
    for name, count in row['counts'].items():
      at = (labels == pair[0]) & (answers[name] == pair[1])
      assert count == at.sum()
    counted[pair] = row['counts']['student']
  assert list(counted.values()) == sorted(counted.values(), reverse=True)
  assert sum(counted.values()) == kept['mistakes']  # 6 pairs of 3 classes
  p, q = probability['student'], probability['teacher']
  mean = (p + q) / 2
  distance = np.sum(p * np.log(p / mean) + q * np.log(q / mean), -1) / 2
  shown = [row['distance'] for row in kept['disagreements']]
  np.testing.assert_allclose(shown, np.sort(distance)[::-1][:12], atol=2e-4)
  summary = json.loads((run / 'summary.json').read_text())['networks']
  for name, bins in kept['reliability'].items():
    assert bins['ece'] == pytest.approx(summary[name]['ece'], abs=1e-5)


def test_the_table_and_the_figures_are_those_of_the_summary(run):
  page = Page(run / 'report.html')
  networks = json.loads((run / 'summary.json').read_text())['networks']
  for name, network in networks.items():
    assert f'{name} mlp' in page.text
    assert f'{100 * network["top1"]:.2f} %' in page.text
    assert f'{network["params"]:,}' in page.text
  gap = 100 * (networks['student']['top1'] - networks['teacher']['top1'])
  assert f'{gap:+.2f}'.replace('-', '−') in page.text
  ids = {attributes.get('id') for _, attributes in page.elements}
  links = {x['href'][1:] for x in page.all('a')}
  assert {'results', 'graph', 'curves', 'mistakes', 'config'} <= links <= ids


def test_pictures_are_files_too(run):
  names = ['curves.png', 'reliability.png', 'graph_teacher.png']
  for name in [*names, 'graph_distil.png']:
    with PIL.Image.open(run / name) as image:
      assert image.format == 'PNG' and min(image.size) > 150


def test_writing_it_again_needs_neither_networks_nor_data(changed):
  shutil.rmtree(changed / 'networks')
  edit(changed / 'config.json', lambda x: x['data'].update(name='folder:/gone'))
  page = Page(reports.write(changed, changed / 'sub' / 'again.html'))
  assert 'missing' not in page.text and 'most confused' in page.text


def test_a_part_that_cannot_be_made_says_why(changed):
  for name in ('report.json', 'metrics.jsonl'):
    (changed / name).unlink()
  shutil.rmtree(changed / 'networks')
  edit(changed / 'config.json', lambda x: x['student'].update(name='gone'))
  page = Page(reports.write(changed))
  assert 'The pictures of the phases are missing: no model ' in page.text
  assert 'The curves are missing: no epoch is in metrics.jsonl' in page.text
  assert 'predict is missing: no network in' in page.text
  # What was missing is tried again.
  shutil.copytree(finished.run('kd') / 'networks', changed / 'networks')
  assert 'predict is missing' not in Page(reports.write(changed)).text


def test_any_failure_of_a_part_is_a_reason(changed, monkeypatch):
  def fail(*args, **kwargs):
    raise ZeroDivisionError('by zero')

  (changed / 'report.json').unlink()
  monkeypatch.setattr('jaxkd.reports.predictions.of_run', fail)
  monkeypatch.setattr('jaxkd.reports.run.charts_png', fail)
  page = Page(reports.write(changed))
  assert 'missing: ZeroDivisionError: by zero' in page.text
  assert 'Not drawn as files: curves.png: ZeroDivisionError' in page.text
  monkeypatch.setattr('jaxkd.reports.page.render', fail)
  assert reports.written(changed) == 'No report: ZeroDivisionError: by zero'


def test_names_are_text_and_not_elements(changed):
  def rename(content):
    predictions = content['predictions']
    for row in predictions['classes']:
      row['name'] = NASTY
    for row in (*predictions['confusions'], *predictions['disagreements']):
      row['label'] = NASTY
    box = content['graphs'][0]['diagram']['boxes'][0]
    box['notes'] = [NASTY, '</svg><script>alert(1)</script>']

  edit(changed / 'report.json', rename)
  edit(changed / 'summary.json', lambda x: x.update(data=NASTY))
  edit(
    changed / 'config.json',
    lambda x: x['data'].update(name='</pre><script>alert(2)</script>'),
  )
  path = reports.write(changed)
  page = Page(path)
  assert not any(x.get('src') == 'x' or 'onerror' in x for x in page.all('img'))
  assert len(page.all('script')) == 1 and NASTY in page.text
  assert '</pre><script>alert(2)</script>' in page.text


def test_names_in_a_study_are_text_and_not_elements(study):
  page = Page(study / 'report.html')
  assert not page.all('img') and len(page.all('script')) == 1
  assert NASTY in page.text


def test_a_study_links_the_reports_of_its_runs(study):
  links = [x['href'] for x in Page(study / 'report.html').all('a')]
  runs = [_unquoted(x) for x in links if not x.startswith('#')]
  assert sorted(runs) == sorted(
    f'runs/{recipe}/seed{seed}/report.html'
    for recipe in RECIPES
    for seed in (0, 3)
  )


def test_the_table_of_a_study_is_that_of_its_comparison(study):
  values = {
    recipe: [
      json.loads(
        (study / f'runs/{recipe}/seed{seed}/summary.json').read_text()
      )['networks']['student']['top1']
      for seed in (0, 3)
    ]
    for recipe in RECIPES
  }
  text = Page(study / 'report.html').text
  for recipe, own in values.items():
    mean, deviation = 100 * np.mean(own), 100 * np.std(own, ddof=1)
    assert f'{recipe} 2 {mean:.2f} ± {deviation:.2f}' in text
    if recipe != 'plain':
      pairs = 100 * np.subtract(own, values['plain'])
      gap = f'{np.mean(pairs):+.2f}'.replace('-', '−')
      gap = gap[1:] if float(f'{np.mean(pairs):.2f}') == 0 else gap
      assert f'{gap} ± {np.std(pairs, ddof=1):.2f}' in text


def test_a_study_names_what_is_missing(study, tmp_path):
  copy = shutil.copytree(study, tmp_path / 'copy')
  (copy / 'summary.json').unlink()
  shutil.rmtree(copy / 'runs/kd/seed0')
  for name in ('summary.json', 'report.html'):
    (copy / 'runs/plain/seed3' / name).unlink()
  reports.write(copy, failure='recipe <kd>: the disk is full')
  text = Page(copy / 'report.html').text
  assert 'Ended early: recipe <kd>: the disk is full' in text
  assert '4 of 6 2 missing' in text
  assert 'kd 0 not started' in text
  assert 'plain 3 1 epochs of phase train; interrupted or failed' in text


def test_a_study_that_fails_has_a_report(tmp_path, monkeypatch):
  def fail(self):
    raise ValueError('the loss is NaN')

  config = tiny.config(epochs=1, study__seeds=(0, 1), method=dict(name='plain'))
  monkeypatch.setattr('jaxkd.runs.study.Run.finish', fail)
  with pytest.raises(ValueError, match='the loss is NaN'):
    train.run(config, tmp_path / 'study')
  text = Page(tmp_path / 'study/report.html').text
  assert 'the loss is NaN' in text and '0 of 2' in text
  assert 'no recipe has a value yet' in text


def test_recipes_are_compared_within_their_group(study, tmp_path):
  copy = shutil.copytree(study, tmp_path / 'copy')
  for name in ('one', 'two'):
    shutil.copytree(copy / 'runs/kd', copy / 'runs/b' / name)
  (copy / 'runs/plain').rename(copy / 'runs/b/plain')
  recipes = {'kd': {}, 'b/one': {}, 'b/two': {}, 'b/plain': RECIPES['plain']}
  edit(copy / 'config.json', lambda x: x['study'].update(recipes=recipes))
  text = Page(reports.write(copy)).text
  assert 'top1 vs. kd' in text and 'top1 vs. plain' in text
  assert 'runs/b/one/seed3/report.html' in (copy / 'report.html').read_text()
  assert (copy / 'outcomes.png').exists() and (copy / 'outcomes_b.png').exists()


def test_seeds_that_are_trained_together(tmp_path):
  config = tiny.config(
    epochs=1,
    method=dict(name='plain'),
    study__seeds=(0, 1),
    study__together=True,
    **finished.DATA,
  )
  Study(config, tmp_path).finish()
  text = Page(reports.write(tmp_path)).text
  assert '2 of 2' in text and 'run 2 ' in text


def test_both_command_lines_and_python_write_it(changed, tmp_path, capsys):
  program.main(['report', str(changed), f'--output={tmp_path}/one.html'])
  assert f'Written: {tmp_path}/one.html' in capsys.readouterr().out
  path = load(changed).report(tmp_path / 'two.html')
  assert path == tmp_path / 'two.html'
  one, two = (
    (tmp_path / f'{n}.html').read_text(encoding='utf-8') for n in ('one', 'two')
  )
  assert one == two
  (changed / 'report.html').unlink()
  assert load(changed).report() == changed / 'report.html'


def test_a_folder_that_is_no_run_is_refused(tmp_path, changed):
  with pytest.raises(FileNotFoundError, match=r'no run in .*config\.json'):
    reports.write(tmp_path)
  (changed / 'summary.json').unlink()
  with pytest.raises(FileNotFoundError, match='no finished run in .*resumes'):
    reports.write(changed)


def test_a_finished_run_gets_a_report_once(changed, capsys):
  config = record.config_of(changed)
  config.cache = str(finished.folder() / 'cache')
  for name in ('report.html', 'report.json'):
    (changed / name).unlink()
  train.run(config, changed)
  assert f'Report: {changed}/report.html' in capsys.readouterr().out
  before = (changed / 'report.html').stat().st_mtime_ns
  train.run(config, changed)
  assert f'Report: {changed}/report.html' in capsys.readouterr().out
  assert (changed / 'report.html').stat().st_mtime_ns == before


def test_data_in_memory(tmp_path):
  data = tiny.experiment(**finished.DATA).dataset
  result = jaxkd.train('mlp', data, epochs=1, batch_size=8, workdir=tmp_path)
  assert Page(tmp_path / 'report.html').all('svg')
  page = Page(result.report())  # the data are not needed again
  assert 'missing' not in page.text


def test_a_run_of_version_0_1(tmp_path):
  source = pathlib.Path(__file__).parent / 'data/version_0_1/run'
  copy = shutil.copytree(source, tmp_path / 'run')
  assert 'missing' not in Page(reports.write(copy)).text
  assert (copy / 'graph_distil.png').exists()


def test_an_older_config_has_the_defaults_of_new_settings(changed):
  edit(changed / 'config.json', lambda x: x['teacher'].pop('loss'))
  assert record.config_of(changed).teacher.loss == 'cross_entropy'
