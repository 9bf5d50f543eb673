"""The shape of the code: which modules may import which, and lengths of files.

The levels are those of docs/architecture.md. A module imports only from lower
levels or from its own package, also inside functions.
"""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / 'jaxkd').rglob('*.py'))
LEVEL = {
  name: level
  for level, names in {
    # jaxkd is jaxkd/__init__.py
    0: 'jaxkd allocation catalog disk sharing text tree types',
    1: 'config data losses metrics plots reparam stores',
    2: 'models problems',
    3: 'interop objectives',
    4: 'checkpoints graph',
    5: 'methods training',
    6: 'runs',
    7: 'reports',
    8: 'commands',
    9: 'api cli main',
  }.items()
  for name in names.split()
}
# `import jaxkd` imports nothing else until a name of the Python API is used.
FACADE = ROOT / 'jaxkd' / '__init__.py'
MAX_LINES_OF_FILE = 400
MAX_LINES_OF_FUNCTION = 60


def unit(module: str) -> str:
  """Returns the name of a module in LEVEL: jaxkd.losses.logits is in losses."""
  return [*module.split('.'), 'jaxkd'][1]


def imports(source: str, package: str) -> set[str]:
  """Returns the units of jaxkd that code of a package imports, at any depth."""
  imported = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      imported |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      parents = package.split('.')
      base = parents[: len(parents) + 1 - node.level] if node.level else []
      module = '.'.join([*base, node.module] if node.module else base)
      if module == 'jaxkd':  # `from jaxkd import losses`
        imported |= {f'jaxkd.{alias.name}' for alias in node.names}
      else:
        imported.add(module)
  names = {m for m in imported if m.split('.')[0] == 'jaxkd'}
  return {unit(m) for m in names if not unit(m).startswith('__')}


def complaints(own: str, imported: set[str]) -> list[str]:
  """Returns one sentence for each import that breaks the levels."""
  unknown = sorted(name for name in {own, *imported} if name not in LEVEL)
  if unknown:
    return [f'{name} is not in the table LEVEL: add it' for name in unknown]
  return [
    f'{own} (level {LEVEL[own]}) imports {name} (level {LEVEL[name]})'
    for name in sorted(imported - {own})
    if LEVEL[name] >= LEVEL[own]
  ]


def test_modules_import_only_lower_levels():
  errors = []
  for path in FILES:
    if path == FACADE:
      continue
    parts = path.relative_to(ROOT).with_suffix('').parts
    own = '.'.join(parts).removesuffix('.__init__')
    imported = imports(path.read_text(), '.'.join(parts[:-1]))
    errors += [
      f'{path.relative_to(ROOT)}: {line}'
      for line in complaints(unit(own), imported)
    ]
  assert errors == []


@pytest.mark.parametrize(
  ('own', 'source', 'want'),
  [
    ('losses', 'import jax.numpy as jnp\nfrom jaxkd.types import Array', 0),
    ('losses', 'from jaxkd.losses import logits', 0),
    ('losses', 'from . import logits', 0),
    ('methods', 'from jaxkd.graph import Graph', 0),
    ('main', 'from jaxkd import __version__, runs', 0),
    ('losses', 'from jaxkd import models', 1),
    ('losses', 'import jaxkd.models.vgg as vgg', 1),
    ('losses', 'from jaxkd.data import batches', 1),  # a sibling
    ('losses', 'from ..training import step', 1),
    ('losses', 'def f():\n  from jaxkd.training import step', 1),
    ('graph', 'from jaxkd import methods, losses', 1),
    ('graph', 'from jaxkd import helpers', 1),  # in no level
    ('helpers', 'import jax', 1),
  ],
)
def test_a_wrong_import_is_reported(own, source, want):
  errors = complaints(own, imports(source, f'jaxkd.{own}'))
  assert len(errors) == want, errors


def too_long(source: str) -> list[str]:
  """Returns one sentence for each length above its limit."""
  lines = len(source.splitlines())
  long = [f'{lines} lines'] if lines > MAX_LINES_OF_FILE else []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef):
      lines = node.end_lineno - node.lineno + 1
      if lines > MAX_LINES_OF_FUNCTION:
        long.append(f'{node.name} has {lines} lines')
  return long


def test_files_and_functions_are_short():
  errors = [
    f'{path.relative_to(ROOT)}: {line}'
    for path in FILES
    for line in too_long(path.read_text())
  ]
  assert errors == []


def test_a_long_file_and_a_long_function_are_reported():
  def body(lines):
    return 'def f():\n' + '  pass\n' * (lines - 1)

  assert too_long(body(MAX_LINES_OF_FUNCTION)) == []
  assert too_long(body(MAX_LINES_OF_FUNCTION + 1)) == ['f has 61 lines']
  assert too_long('x = 1\n' * MAX_LINES_OF_FILE) == []
  assert too_long('x = 1\n' * (MAX_LINES_OF_FILE + 1)) == ['401 lines']


def test_no_to_do_marks_remain():
  mark = re.compile(r'\b(TODO|FIXME|XXX|HACK)\b')
  errors = [
    f'{path.relative_to(ROOT)}:{number}: {line.strip()}'
    for folder in ('jaxkd', 'configs', 'benchmarks', 'tests')
    for path in sorted((ROOT / folder).rglob('*.py'))
    if path != pathlib.Path(__file__)
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if mark.search(line)
  ]
  assert errors == []
