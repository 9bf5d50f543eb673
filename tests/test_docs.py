"""What the documentation says exists, and its examples run."""

import doctest
import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])
TARGETS = set(
  re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
)
WITH_EXAMPLES = [
  '.'.join(path.relative_to(ROOT).with_suffix('').parts)
  for path in sorted((ROOT / 'jaxkd').rglob('*.py'))
  if '>>> ' in path.read_text()
]


def missing(page: pathlib.Path, text: str) -> list[str]:
  """Returns what a page names and the checkout does not have.

  It looks at config files, at modules to run with `python -m` and at make
  targets in its code, and at links to files.
  """
  code = '\n'.join(re.findall(r'```.*?```|`[^`\n]+`', text, re.DOTALL))
  targets = re.findall(r'\bmake ([a-z]+)', code)
  modules = re.findall(r'-m ((?:jaxkd|benchmarks)[\w.]*)', code)
  links = re.findall(r'\]\(([^)#\s]+)', text)
  paths = [
    *(ROOT / name for name in re.findall(r'\bconfigs/\w+\.py\b', text)),
    *(ROOT / f'{name.replace(".", "/")}.py' for name in modules),
    *(page.parent / link for link in links if '://' not in link),
  ]
  return [
    *(f'make {target}' for target in targets if target not in TARGETS),
    *(str(path) for path in paths if not path.exists()),
  ]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page):
  assert missing(page, page.read_text()) == []


def test_what_does_not_exist_is_seen():
  text = """
  Make sure that [this](nowhere.md) and [that](https://example.org) work:
  ```
  make test && make coffee
  python -m jaxkd.coffee --config=configs/coffee.py
  ```
  """
  found = missing(ROOT / 'README.md', text)
  names = [pathlib.Path(name).name for name in found]
  assert names == ['make coffee', 'coffee.py', 'coffee.py', 'nowhere.md']


@pytest.mark.parametrize('module', WITH_EXAMPLES)
def test_examples_print_what_they_say(module):
  options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
  result = doctest.testmod(importlib.import_module(module), optionflags=options)
  assert result.failed == 0, 'see the report above'
