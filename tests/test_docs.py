"""What the documentation says exists, and its examples run."""

import ast
import doctest
import importlib
import pathlib
import re

import pytest

from jaxkd import config as configs
from jaxkd import objectives
from jaxkd.runs import experiment

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


def source(module: str) -> pathlib.Path:
  """Returns the file that `python -m` runs."""
  path = ROOT / module.replace('.', '/')
  return path / '__main__.py' if path.is_dir() else path.with_suffix('.py')


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
    *map(source, modules),
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
  python -m jaxkd.models
  ```
  """
  found = missing(ROOT / 'README.md', text)
  names = [pathlib.Path(name).name for name in found]
  assert names == [
    'make coffee',
    'coffee.py',
    'coffee.py',
    '__main__.py',
    'nowhere.md',
  ]


def test_the_readme_names_every_config():
  text = (ROOT / 'README.md').read_text()
  own = {f'{name}_cifar' for name in objectives.CATALOG}  # are in its table
  files = {path.stem for path in (ROOT / 'configs').glob('*.py')}
  assert {
    name for name in files - own if f'`configs/{name}.py`' not in text
  } == (set())


def examples_of(section: str) -> list[ast.stmt]:
  """Returns the statements of the Python code in a section of the README."""
  text = (ROOT / 'README.md').read_text().split(f'## {section}\n')[1]
  blocks = re.findall(r'```python\n(.*?)```', text.split('\n## ')[0], re.DOTALL)
  return [statement for code in blocks for statement in ast.parse(code).body]


@pytest.mark.parametrize(
  'statement', examples_of('Objectives'), ids=lambda x: str(x.lineno)
)
def test_methods_in_the_readme_can_be_built(statement):
  config = configs.benchmark('resnet14,resnet8')
  exec(ast.unparse(statement), {'config': config})
  assert config.method != configs.default().method
  experiment.build(config)


@pytest.mark.parametrize('module', WITH_EXAMPLES)
def test_examples_print_what_they_say(module):
  options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
  result = doctest.testmod(importlib.import_module(module), optionflags=options)
  assert result.failed == 0, 'see the report above'
