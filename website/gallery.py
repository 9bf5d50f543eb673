"""The gallery of methods and objectives, made from the catalogues.

Each page is a function of the code: the head of the module's docstring has the
paper, docstrings have the formulas, the graph is drawn, and the configs that
run it are those whose section `method` names it.
"""

import ast
import dataclasses
import functools
import importlib.util
import inspect
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxkd import losses, methods, objectives
from jaxkd.graph import Graph, Phase, graph_svg
from jaxkd.objectives import table
from website import docstrings, figures
from website.figures import table as _table

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
# What a method needs besides its defaults, for its picture.
EXAMPLES: dict[str, dict[str, Any]] = {
  'dgkd': dict(assistants=('resnet14', 'resnet8')),
  'pro_kd': dict(objective='kd', tune_epochs=20),
  'takd': dict(assistants=('resnet14',)),
}
# Why a method has no paper of its own.
NO_PAPER = {
  'plain': 'Training from labels alone, to compare others with.',
  'pretrained': (
    'The order of training of several papers: those of'
    ' [ab](../objectives/ab.md), [fsp](../objectives/fsp.md) and'
    ' [FitNets](../objectives/fitnet.md).'
  ),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """A config file.

  path: from the root of the checkout.
  title: the first line of its docstring.
  method: a key of `methods.CATALOG`.
  objectives: keys of `objectives.CATALOG` that its method names.
  """

  path: str
  title: str
  method: str
  objectives: frozenset[str]


def pages() -> dict[str, str]:
  """Returns the Markdown of each page of the gallery, by its path."""
  return {
    'gallery/README.md': index(),
    'gallery/configs.md': config_index(),
    **{f'gallery/methods/{x}.md': method_page(x) for x in methods.CATALOG},
    **{
      f'gallery/objectives/{x}.md': objective_page(x)
      for x in objectives.CATALOG
    },
  }


# Sources


@functools.cache
def configs() -> tuple[Config, ...]:
  """Returns all config files, with what their defaults train."""
  return tuple(map(_config, CONFIGS))


def _config(path: pathlib.Path) -> Config:
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  method = module.get_config().method.to_dict()
  named = {x for x in _names(method, skip='name') if x in objectives.CATALOG}
  defaults = inspect.signature(methods.CATALOG[method['name']]).parameters
  for key in {'objective', 'static', 'dynamic'} & {*defaults} - {*method}:
    default = defaults[key].default
    named |= {*_names({'objective': default})} & {*objectives.CATALOG}
  if method['name'] in ('kd', 'ft', 'simkd'):  # named after their objective
    named.add(method['name'])
  title = (module.__doc__ or '').splitlines()[0]
  return Config(
    str(path.relative_to(ROOT)), title, method['name'], frozenset(named)
  )


def _names(spec: Any, skip: str = '') -> Iterator[str]:
  """Yields the strings in the values and keys of nested settings."""
  if isinstance(spec, str):
    yield spec
  elif isinstance(spec, Mapping):
    for key, value in spec.items():
      if key != skip:
        yield str(key)
        yield from _names(value)
  elif isinstance(spec, list | tuple):
    for value in spec:
      yield from _names(value)


def method_phases(name: str) -> tuple[Phase, ...]:
  """Returns the phases of a method with its defaults, for its picture."""
  return methods.CATALOG[name](**EXAMPLES.get(name, {}))


def summary(function: Callable[..., Any]) -> str:
  """Returns the first paragraph of a docstring, in one line."""
  text = (inspect.getdoc(function) or '').split('\n\n')[0]
  return ' '.join(text.split())


def title(function: Callable[..., Any]) -> str:
  """Returns the first clause of a docstring, without authors."""
  return re.split(r'; |\.$', re.sub(r' \(.*?\)', '', summary(function)))[0]


def about(function: Callable[..., Any]) -> str:
  """Returns what a module's docstring says, without its title and address."""
  text = inspect.getdoc(_module(function)) or ''
  _, _, text = text.partition('\n\n')
  text = re.sub(r'^https?://\S+\s*', '', text)
  return _linked(docstrings.markdown(text))


def method_source(name: str) -> str:
  """Returns the paper of a method as Markdown, or why it has none.

  The paper is in the docstring of its function or in its module's, first with
  authors and year, then with its address.

  Raises:
    ValueError: there is neither.
  """
  if name in NO_PAPER:
    return NO_PAPER[name]
  function = methods.CATALOG[name]
  texts = [inspect.getdoc(function), inspect.getdoc(_module(function))]
  whole = ' '.join(' '.join(x.split()) for x in texts if x)
  cited = re.search(
    r'([A-Z][\w-]+(?: et al\.|, \w+, \w+), [^():.]*\d{4})', whole
  )
  address = re.search(r'https?://[^\s)>,;]+', whole)
  if cited is None or address is None:
    raise ValueError(
      f'the method {name} has no paper: name its authors, the year and the'
      ' address in its docstring, or say in NO_PAPER why there is none'
    )
  return f'[{cited[1]}]({address[0].rstrip(".")})'


def _module(function: Callable[..., Any]) -> Any:
  return sys.modules[function.__module__]


def loss_names(name: str) -> list[str]:
  """Returns the functions of `jaxkd.losses` that an objective calls."""
  source = inspect.getsource(_module(objectives.CATALOG[name]))
  called = {
    node.attr: None
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == 'losses'
  }
  return [x for x in called if callable(getattr(losses, x, None))]


# Pages


def index() -> str:
  """Returns the page that lists all methods and objectives."""
  rows = [
    (f'[{x}](methods/{x}.md)', title(f), _up(method_source(x)))
    for x, f in sorted(methods.CATALOG.items())
  ]
  losses_rows = [
    (f'[{x}](objectives/{x}.md)', paper.title, _paper_link(paper))
    for x in sorted(objectives.CATALOG)
    for paper in [table.paper(x)]
  ]
  return '\n'.join(
    [
      '# Gallery of methods',
      '',
      'A *method* says which networks are trained and who teaches whom; an'
      ' *objective* is the loss of one transfer. A method takes any objective.'
      ' These pages are made from the catalogues of the code; the'
      ' [config files](configs.md) run them.',
      '',
      '## Methods',
      '',
      _table(('method', 'about', 'paper'), rows),
      '',
      '## Objectives',
      '',
      _table(('objective', 'about', 'paper'), losses_rows),
      '',
    ]
  )


def config_index() -> str:
  """Returns the page that lists all config files."""
  rows = [
    (
      f'[{pathlib.Path(x.path).stem}](../{x.path})',
      x.title,
      f'[{x.method}](methods/{x.method}.md)',
    )
    for x in configs()
  ]
  return '\n'.join(
    [
      '# Config files',
      '',
      'Each names its paper, its variants, its cost and the expected result.',
      '',
      _table(('config', 'trains', 'method'), rows),
      '',
    ]
  )


def method_page(name: str) -> str:
  """Returns the page of a method."""
  function = methods.CATALOG[name]
  parts = [
    f'# {name}: {title(function)}',
    f'Paper: {method_source(name)}' if name not in NO_PAPER else NO_PAPER[name],
    about(function),
    '## Graph',
    *(_phase(x) for x in method_phases(name)),
    '## Run it',
    _runs(name, [x for x in configs() if x.method == name]),
    figures.of(name),
    '## Formula and settings',
    _directive(function),
  ]
  return '\n\n'.join(filter(None, parts)) + '\n'


def objective_page(name: str) -> str:
  """Returns the page of an objective."""
  paper, function = table.paper(name), objectives.CATALOG[name]
  called = loss_names(name)
  parts = [
    f'# {name}: {paper.title}',
    f'Paper: {_paper_link(paper)}',
    about(function),
    '## Formula',
    *(_loss(x) for x in called),
    '' if called else _description(function),
    '## Run it',
    _runs(name, [x for x in configs() if name in x.objectives]),
    _spec(name),
    _published(name),
    figures.of(name),
    '## Settings',
    _directive(function),
  ]
  return '\n\n'.join(filter(None, parts)) + '\n'


def _description(function: Callable[..., Any]) -> str:
  """Returns the description in a docstring, without references."""
  text, _ = docstrings.split(inspect.getdoc(function) or '')
  return docstrings.markdown(re.split(r'\n\n(?:References:|>>> )', text)[0])


def _loss(name: str) -> str:
  """Returns the description of a loss, with a link to its reference."""
  return (
    f'[`losses.{name}`](../../reference/losses.md#jaxkd.losses.{name}):'
    f' {_description(getattr(losses, name))}'
  )


def _spec(name: str) -> str:
  """Returns how a config names an objective."""
  settings = objectives.example(name, 100)
  spec: Any = settings if len(settings) > 1 else name
  return (
    'In a config, or as `objective` of any method:\n\n```python\n'
    f"config.method = dict(name='distil', objective={spec!r})\n```"
  )


def _published(name: str) -> str:
  if name not in objectives.PUBLISHED:
    return ''
  weight, labels = objectives.PUBLISHED[name]
  return (
    f'Published weight on CIFAR-100: {weight:,g}, beside cross-entropy of'
    f' weight {labels:g}.'
  )


def _phase(phase: Phase) -> str:
  """Returns a phase's picture and the settings of its transfers."""
  rows = [
    (
      str(x.guide),
      x.learner,
      str(x.weight) if callable(x.weight) else f'{x.weight:g}',
      f'`{x.objective}`',
    )
    for x in phase.graph.transfers
  ]
  epochs = f', {phase.epochs} epochs' if phase.epochs else ''
  return '\n\n'.join(
    [
      f'Phase *{phase.name}*{epochs}:',
      picture(phase.graph, f'Phase {phase.name}'),
      *_notes(phase.graph),
      _table(('guide', 'learner', 'weight', 'objective'), rows),
    ]
  )


def _notes(graph: Graph) -> list[str]:
  """Returns what a picture's arrows do not say by themselves."""
  turns = ', then '.join(' and '.join(f'`{x}`' for x in t) for t in graph.turns)
  notes = {
    'Dashed arrows are left out on some batches.': any(
      x.dropout for x in graph.transfers
    ),
    'An arrow with several starts has the sum of their outputs as its'
    ' guide.': any(len(x.guides) > 1 for x in graph.transfers),
    f'On each batch, one is updated after another: {turns}.': graph.turns,
  }
  text = ' '.join(note for note, said in notes.items() if said)
  return [text] if text else []


def picture(graph: Graph, title: str) -> str:
  """Returns a graph's picture as HTML for a page."""
  return f'<div class="picture">\n{graph_svg(graph, title)}</div>'


def _runs(name: str, found: list[Config]) -> str:
  """Returns the commands of config files, the one of this name first."""
  if not found:
    return 'It has no config file of its own.'
  found = sorted(found, key=lambda x: not x.path.startswith(f'configs/{name}_'))
  stem = pathlib.Path(found[0].path).stem
  command = f'jaxkd train {stem} --workdir=runs/{stem}'
  rows = [
    (f'[{pathlib.Path(x.path).name}](../../{x.path})', x.title) for x in found
  ]
  return '\n\n'.join(
    [f'```\n{command}\n```', _table(('config', 'trains'), rows)]
  )


def _directive(function: Callable[..., Any]) -> str:
  """Returns the mkdocstrings directive of a function."""
  return (
    f'::: {function.__module__}.{function.__qualname__}\n'
    '    options:\n'
    '      heading_level: 3\n'
    '      show_root_heading: true\n'
    '      show_root_full_path: true\n'
  )


def _linked(text: str) -> str:
  """Returns text with its bare addresses as links."""
  return re.sub(r'(?<![(<\[])(https?://[^\s)>,;]+[^\s)>,;.:])', r'<\1>', text)


def _paper_link(paper: table.Paper) -> str:
  return f'[{paper.authors}]({paper.address})'


def _up(text: str) -> str:
  """Returns text of a method's page for the index, one folder above."""
  return text.replace('](../', '](')
