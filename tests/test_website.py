"""The pages of the documentation site: all there, all linked, all built."""

import importlib
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

from jaxkd import losses, methods, objectives
from website import docstrings, gallery, pages

ROOT = pathlib.Path(__file__).parents[1]
WRITTEN = set(pages.written())
GENERATED = pages.generated()
NAVIGATION = pages.paths(pages.navigation())


def links(page: str) -> list[str]:
  """Returns the paths in the site that a generated page links to."""
  folder = (ROOT / page).parent
  found = re.findall(r'\]\(([^)#:\s]+)(?:#[^)\s]*)?\)', GENERATED[page])
  return [(folder / x).resolve().relative_to(ROOT).as_posix() for x in found]


def test_every_page_of_the_navigation_exists_and_is_there_once():
  assert set(NAVIGATION) <= WRITTEN | {*GENERATED}
  assert len(NAVIGATION) == len(set(NAVIGATION))


def test_every_page_is_in_the_navigation_but_the_code_that_pages_show():
  shown = {f'{path}.md' for path in pages.linked_sources()}
  assert (WRITTEN | {*GENERATED}) - shown - {*NAVIGATION} == set()


def test_links_of_generated_pages_lead_to_pages():
  code = {x for x in pages.linked_sources() if f'{x}.md' in GENERATED}
  site = WRITTEN | {*GENERATED} | code
  assert {x for page in GENERATED for x in links(page)} <= site


def test_tutorials_are_in_the_navigation_if_there_are_any(monkeypatch):
  monkeypatch.setattr(pages, 'notebooks', lambda: [ROOT / 'notebooks/1.ipynb'])
  assert 'notebooks/1.ipynb' in pages.paths(pages.navigation())
  monkeypatch.setattr(pages, 'notebooks', lambda: [])
  assert not any('Tutorials' in entry for entry in pages.navigation())


@pytest.mark.parametrize('package', pages.REFERENCE)
def test_the_reference_has_the_public_names_of_each_package(package):
  module = importlib.import_module(f'jaxkd.{package}')
  page = GENERATED[f'reference/{package}.md']
  assert getattr(module, '__all__', None) or package in pages.MODULES
  for name in re.findall(r'^        - (\w+)$', page, re.MULTILINE):
    assert hasattr(module, name)
  for name in re.findall(r'^::: (\S+)$', page, re.MULTILINE):
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize('name', sorted(methods.CATALOG))
def test_every_method_has_a_page_with_paper_graph_formula_and_settings(name):
  page = GENERATED[f'gallery/methods/{name}.md']
  assert gallery.method_source(name) in page
  assert (name in gallery.NO_PAPER) != ('\nPaper: [' in page)
  assert page.count('<svg') == len(gallery.method_phases(name))
  assert f'::: jaxkd.methods.{methods.CATALOG[name].__module__[14:]}' in page
  assert f'](methods/{name}.md)' in GENERATED['gallery/README.md']


@pytest.mark.parametrize('name', sorted(objectives.CATALOG))
def test_every_objective_has_a_page_with_paper_formula_and_settings(name):
  page = GENERATED[f'gallery/objectives/{name}.md']
  assert re.search(r'^Paper: \[.+ \d{4}\]\(https?://\S+\)$', page, re.MULTILINE)
  for loss in gallery.loss_names(name):
    summary = gallery.summary(getattr(losses, loss))
    assert summary in ' '.join(page.split())
  formula = page.split('## Formula\n\n')[1].split('\n\n## ')[0]
  assert len(formula) > 20
  assert '\n## Settings\n\n::: jaxkd.objectives.' in page
  assert f'](objectives/{name}.md)' in GENERATED['gallery/README.md']


def test_pages_say_what_arrows_do_not():
  said = {
    name: [
      word
      for word in ('Dashed arrows', 'several starts', 'after another')
      if word in GENERATED[f'gallery/methods/{name}.md']
    ]
    for name in ('dgkd', 'slkd', 'dml', 'kd')
  }
  assert said == {
    'dgkd': ['Dashed arrows'],
    'slkd': ['several starts'],
    'dml': ['after another'],
    'kd': [],
  }


def test_a_method_without_a_paper_or_a_reason_is_refused(monkeypatch):
  monkeypatch.setattr(gallery, 'NO_PAPER', {})
  with pytest.raises(ValueError, match='plain has no paper'):
    gallery.method_source('plain')


def test_every_config_is_on_the_page_of_its_method():
  for config in gallery.configs():
    page = GENERATED[f'gallery/methods/{config.method}.md']
    assert f'](../../{config.path})' in page
    assert f'](../{config.path})' in GENERATED['gallery/configs.md']


def test_measured_rows_are_on_the_pages_of_what_they_measure():
  page = GENERATED['gallery/objectives/fitnet.md']
  (row,) = [
    x
    for x in (ROOT / 'docs' / 'results.md').read_text().splitlines()
    if x.startswith('| fitnet | 100 FitNet |')
  ]
  assert row in page
  assert '| at |' not in page


def test_docstrings_become_markdown():
  text = """A loss of logits.

With K networks, the loss is
  l CE + g D
with D in nats.

name: of a thing,
  on two lines.
other: of another.

Args:
  x: logits [B, K].

Returns:
  The loss.

References:
  Hinton, 2015,
  section 2.

>>> f(1)
2"""
  assert (
    docstrings.markdown(text)
    == """A loss of logits.

With K networks, the loss is

```text
l CE + g D
```

with D in nats.

- `name`: of a thing, on two lines.
- `other`: of another.

References: Hinton, 2015, section 2.

```pycon
>>> f(1)
2
```

Args:
  x: logits [B, K].

Returns:
  The loss."""
  )


def test_links_to_code_become_links_to_its_pages():
  text = 'See [it](../jaxkd/tree.py), [her](a.md) and `x.py`.'
  assert pages.to_pages(text) == (
    'See [it](../jaxkd/tree.py.md), [her](a.md) and `x.py`.'
  )


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec('mkdocs') is None,
  reason="the extra 'docs' is not installed: pip install -e '.[docs]'",
)
def test_the_site_is_built_without_warnings(tmp_path):
  command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir']
  built = subprocess.run(
    [*command, tmp_path / 'site'], cwd=ROOT, capture_output=True, text=True
  )
  assert built.returncode == 0, built.stderr
  page = tmp_path / 'site' / 'gallery' / 'methods' / 'gpd' / 'index.html'
  assert '<svg' in page.read_text()
