"""Names, links, commands and examples in the documentation are right."""

import ast
import doctest
import functools
import importlib
import importlib.util
import inspect
import pathlib
import re
import shlex
import unittest.mock
from collections.abc import Iterator

import jax
import pytest
from test_layers import LEVEL

import jaxkd
from jaxkd import config as configs
from jaxkd import methods, objectives
from jaxkd.api import training
from jaxkd.api.results import Result
from jaxkd.runs import experiment

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(
  [*ROOT.glob('*.md'), *DOCS.rglob('*.md'), ROOT / 'benchmarks' / 'README.md']
)
RECORDS = sorted((DOCS / 'decisions').glob('[a-z]*.md'))
TARGETS = set(
  re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
)
WITH_EXAMPLES = [
  '.'.join(path.relative_to(ROOT).with_suffix('').parts)
  for path in sorted((ROOT / 'jaxkd').rglob('*.py'))
  if '>>> ' in path.read_text()
]

each_page = pytest.mark.parametrize(
  'page', PAGES, ids=lambda page: str(page.relative_to(ROOT))
)


def source(module: str) -> pathlib.Path:
  """Returns the file that `python -m` runs."""
  path = ROOT / module.replace('.', '/')
  return path / '__main__.py' if path.is_dir() else path.with_suffix('.py')


def anchors(path: pathlib.Path) -> set[str]:
  """Returns the names by which links refer to the headings of a page."""
  text = re.sub(r'```.*?```', '', path.read_text(), flags=re.DOTALL)
  headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {re.sub(r'[^\w -]', '', x).lower().replace(' ', '-') for x in headings}


def missing(page: pathlib.Path, text: str) -> list[str]:
  """Returns the names in a page that do not exist in the checkout.

  They are config files, files of the package, modules to run with `python -m`
  and make targets in its code, and links to files and headings.
  """
  code = '\n'.join(re.findall(r'```.*?```|`[^`\n]+`', text, re.DOTALL))
  targets = re.findall(r'\bmake ([a-z-]+)', code)
  modules = re.findall(r'-m ((?:jaxkd|benchmarks)[\w.]*)', code)
  links = re.findall(r'\]\(([^)#\s]*)(?:#([^)\s]+))?\)', text)
  links = [
    (page.parent / x if x else page, y) for x, y in links if ':' not in x
  ]
  names = re.findall(r'`(?:jaxkd/)?((?:\w+/)+\w+\.py)`', text)
  paths = [
    *(ROOT / name for name in re.findall(r'\bconfigs/\w+\.py\b', text)),
    *map(source, modules),
    *(path for path, _ in links),
  ]
  return [
    *(f'make {target}' for target in targets if target not in TARGETS),
    *(str(path) for path in paths if not path.exists()),
    *(
      name
      for name in names
      if not any((top / name).exists() for top in (ROOT, ROOT / 'jaxkd'))
    ),
    *(
      f'{path.name}#{anchor}'
      for path, anchor in links
      if anchor and path.exists() and anchor not in anchors(path)
    ),
  ]


@each_page
def test_names_and_links_in_a_page_exist(page):
  assert missing(page, page.read_text()) == []


def test_missing_names_and_links_are_reported():
  text = """
  Make sure that [this](nowhere.md) and [that](https://example.org) work, and
  [a heading](docs/notes.md#not-tried), [none](docs/notes.md#coffee), in
  `jaxkd/coffee/beans.py` and `models/vgg.py`:
  ```
  make test && make coffee
  python -m jaxkd.coffee --config=configs/coffee.py
  python -m jaxkd.models
  ```
  """
  names = [pathlib.Path(x).name for x in missing(ROOT / 'README.md', text)]
  assert names == [
    'make coffee',
    'coffee.py',
    'coffee.py',
    '__main__.py',
    'nowhere.md',
    'beans.py',
    'notes.md#coffee',
  ]


def test_every_page_is_in_the_index():
  index = DOCS / 'README.md', DOCS / 'decisions' / 'README.md'
  links = {
    (page.parent / link).resolve()
    for page in index
    for link in re.findall(r'\]\(([^)#\s]+)\)', page.read_text())
  }
  assert set(DOCS.rglob('*.md')) - {index[0]} <= links


def test_every_config_is_listed():
  text = (DOCS / 'cifar.md').read_text()
  own = {f'{name}_cifar' for name in objectives.CATALOG}  # are in their table
  files = {path.stem for path in (ROOT / 'configs').glob('*.py')}
  assert {x for x in files - own if f'`configs/{x}.py`' not in text} == set()


def test_levels_are_those_of_the_imports():
  text = (DOCS / 'architecture.md').read_text().split('## Levels\n')[1]
  (table,) = re.findall(r'```\n(.*?)```', text.split('\n## ')[0], re.DOTALL)
  units = {
    name: int(line[0])
    for line in table.splitlines()
    for name in line[1:].strip().split('   ')[0].split()
  }
  assert units == {k: x for k, x in LEVEL.items() if k != 'jaxkd'}


@pytest.mark.parametrize('page', RECORDS, ids=lambda page: page.name)
def test_decisions_have_a_date_and_three_parts(page):
  for record in page.read_text().split('\n## ')[1:]:
    parts = re.findall(r'^\*\*(\w+)\.\*\*', record, re.MULTILINE)
    assert parts == ['Context', 'Choice', 'Consequence'], record
    assert re.match(r'.+\n\n20\d\d-\d\d-\d\d', record), record


# Commands


def commands(text: str) -> Iterator[list[str]]:
  """Yields the arguments of each run of `jaxkd.main` in a page's code."""
  for block in re.findall(r'```\n(.*?)```', text, re.DOTALL):
    code = block.replace('\\\n', ' ')
    for shared in re.findall(r'^C="([^"]*)"$', block, re.MULTILINE):
      code = code.replace('$C', shlex.join(shared.split()))
    for line in code.splitlines():
      line = line.removeprefix('$ ')
      if line.startswith('python -m jaxkd.main '):
        yield shlex.split(line, comments=True)[3:]


@functools.cache
def module_of(path: str):
  spec = importlib.util.spec_from_file_location('a_config', ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def value(text: str):
  """Returns the value of a setting on the command line."""
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def config_of(arguments: list[str]):
  """Returns the config that a command selects and changes."""
  named = [x.split('=', 1)[1] for x in arguments if x.startswith('--config=')]
  path, _, pair = named[0].partition(':')
  config = module_of(path).get_config(*[pair] if pair else [])
  for argument in arguments:
    key, _, text = argument.partition('=')
    if not key.startswith('--config.'):
      continue
    *sections, last = key.split('.')[1:]
    section = config
    for name in sections:
      if name not in section:
        section[name] = {}
      section = section[name]
    section[last] = value(text)
  return config


@each_page
def test_commands_have_settings_that_exist(page):
  for arguments in commands(page.read_text()):
    if any(x.startswith('--config=') for x in arguments):
      config = config_of(arguments)
      configs.check(config)
      method = methods.CATALOG[config.method.name]
      settings = {*config.method} - {'name'}
      assert settings <= set(inspect.signature(method).parameters), arguments


def test_a_setting_that_does_not_exist_is_reported():
  (arguments,) = commands(
    '```\npython -m jaxkd.main --config=configs/kd_cifar.py:resnet20,resnet8'
    ' \\\n  --config.student.coffee=3 --config.epochs=2  # two\n```'
  )
  with pytest.raises(KeyError, match='student.coffee'):
    configs.check(config_of(arguments))


# Python


def examples(page: pathlib.Path) -> list[str]:
  """Returns the blocks of Python code in a page."""
  return re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)


def unresolved(code: str) -> list[str]:
  """Returns the names of jaxkd in code that do not exist there."""
  program = ast.parse(code)
  things, wrong = {}, []
  for node in ast.walk(program):
    if isinstance(node, ast.Import):
      things |= {x.name: jaxkd for x in node.names if x.name == 'jaxkd'}
    if isinstance(node, ast.ImportFrom) and node.module.startswith('jaxkd'):
      for alias in node.names:
        thing = imported(node.module, alias.name)
        things[alias.asname or alias.name] = thing
        wrong += [] if thing else [f'{node.module}.{alias.name}']
  for node in ast.walk(program):
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
      thing = things.get(node.value.id)
      if inspect.ismodule(thing) and not hasattr(thing, node.attr):
        wrong.append(f'{thing.__name__}.{node.attr}')
  return wrong


def imported(module: str, name: str):
  """Returns what `from module import name` does, or None if that fails."""
  try:
    thing = getattr(importlib.import_module(module), name, None)
    return thing or importlib.import_module(f'{module}.{name}')
  except ImportError:
    return None


@each_page
def test_names_in_python_code_exist(page):
  assert [name for code in examples(page) for name in unresolved(code)] == []


def test_missing_names_in_python_code_are_reported():
  code = 'from jaxkd import coffee, losses\nlosses.kd(1)\nlosses.tea(2)'
  assert unresolved(code) == ['jaxkd.coffee', 'jaxkd.losses.tea']


def test_the_loss_of_the_readme_is_a_number():
  names = {}
  exec(examples(ROOT / 'README.md')[0], names)
  assert names['value'] > 0 and names['gradient'].shape == (8, 100)


def test_the_training_of_the_readme_is_a_run(monkeypatch):
  """Its experiment is built; the result is that of a run that is finished."""
  seen = []

  def finish(experiment, workdir, callbacks):
    seen.append((experiment.config.data.name, str(workdir)))
    return unittest.mock.create_autospec(Result, instance=True)

  monkeypatch.setattr(training, '_finish', finish)
  exec(examples(ROOT / 'README.md')[1], {})
  assert seen == [('digits', 'runs/dkd')]


@pytest.mark.slow
def test_the_loop_of_ones_own_trains():
  names = {}
  for code in examples(DOCS / 'python.md')[-2:]:
    exec(code, names)
  assert names['state'].step == 3 and 'params' in names['variables']
  assert names['losses'].shape == (2,)


def test_the_parts_of_gpd_map_shapes_there_and_back():
  names = {}

  def parts():
    (code,) = examples(DOCS / 'gpd.md')
    exec(code, names)
    return names['variables']['params'], names['params']

  narrow, back = jax.eval_shape(parts)
  assert jax.tree.map(jax.numpy.shape, narrow) == jax.tree.map(
    jax.numpy.shape, back
  )


@pytest.mark.parametrize(
  'statement',
  ast.parse('\n'.join(examples(DOCS / 'objectives.md'))).body,
  ids=lambda x: str(x.lineno),
)
def test_configs_with_objectives_can_be_built(statement):
  config = configs.benchmark('resnet14,resnet8')
  exec(ast.unparse(statement), {'config': config})
  assert config.method != configs.default().method
  experiment.build(config)


# Their examples compile for seconds, and their functions have other tests.
SLOW = {
  f'jaxkd.losses.{name}'
  for name in ('correlations', 'features', 'groups', 'relations', 'stages')
}


@pytest.mark.parametrize(
  'module',
  [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in WITH_EXAMPLES
  ],
)
def test_doctests_print_the_stated_output(module):
  options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
  result = doctest.testmod(importlib.import_module(module), optionflags=options)
  assert result.failed == 0, 'see the report above'
