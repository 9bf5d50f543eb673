"""The pages of the site, and their navigation.

The paths of pages are those of the checkout, so that relative links between
Markdown files are right in both.
"""

import pathlib
import re
from typing import Any

from website import gallery

ROOT = pathlib.Path(__file__).parents[1]
# Package -> its title in the reference.
REFERENCE = {
  'api': 'Python API',
  'losses': 'Losses',
  'objectives': 'Objectives',
  'methods': 'Methods',
  'graph': 'Graphs',
  'models': 'Models',
  'data': 'Data',
  'problems': 'Problems',
  'metrics': 'Metrics',
  'reparam': 'Reparameterisation',
  'checkpoints': 'Checkpoints',
  'interop': 'Other formats',
  'stores': 'Stored outputs',
  'plots': 'Plots',
}
# Of a package that exports nothing: its modules for other programs.
MODULES = {'interop': ('torch', 'export', 'files', 'foreign')}
HOW_TO = (
  'cifar',
  'data',
  'multi_label',
  'networks',
  'teachers',
  'objectives',
  'gpd',
  'slkd',
  'runs',
  'reports',
  'studies',
  'bench',
  'devices',
  'pytorch',
  'export',
)  # first in this order; further pages come after them
ELSEWHERE = ('README', 'results', 'architecture', 'notes', 'python')


def written() -> dict[str, pathlib.Path]:
  """Returns the files that are pages as they are, by path in the site."""
  files = [
    *ROOT.glob('*.md'),
    *(ROOT / 'docs').rglob('*.md'),
    *notebooks(),
  ]
  return {x.relative_to(ROOT).as_posix(): x for x in sorted(files)}


def notebooks() -> list[pathlib.Path]:
  """Returns the tutorials, in their order; [] if there are none."""
  files = (ROOT / 'notebooks').glob('[!_.]*')
  return sorted(x for x in files if x.suffix in ('.ipynb', '.md'))


def assets() -> dict[str, pathlib.Path]:
  """Returns pictures and style sheets, by path in the site."""
  pictures = [
    x
    for folder in ('docs', 'notebooks')
    for kind in ('png', 'svg')
    for x in (ROOT / folder).rglob(f'*.{kind}')
  ]
  files = [*pictures, ROOT / 'website' / 'style.css']
  return {x.relative_to(ROOT).as_posix(): x for x in files}


def generated() -> dict[str, str]:
  """Returns the Markdown of pages made from the code, by path in the site."""
  return {
    **gallery.pages(),
    **{f'reference/{x}.md': reference(x) for x in REFERENCE},
    'reference/README.md': reference_index(),
    **{f'{x}.md': source(x) for x in linked_sources()},
  }


def reference(package: str) -> str:
  """Returns the page of a package's API."""
  parts = [f'# {REFERENCE[package]}: `jaxkd.{package}`']
  if package in ('methods', 'objectives'):
    parts.append(
      f'Each of the {package} has its page in [the gallery]'
      '(../gallery/README.md).'
    )
  if package in MODULES:
    parts += [
      f'## `{x}`\n\n::: jaxkd.{package}.{x}\n    options:\n'
      '      heading_level: 3'
      for x in MODULES[package]
    ]
    return '\n\n'.join(parts) + '\n'
  parts.append(f'::: jaxkd.{package}')
  if package in ('methods', 'objectives'):
    # The catalogued functions are documented on their own pages.
    members = {
      'methods': ('phases', 'renamed'),
      'objectives': ('Objective', 'Published', 'make', 'example', 'pointwise'),
    }[package]
    parts[-1] += '\n    options:\n      members:\n' + '\n'.join(
      f'        - {x}' for x in members
    )
  return '\n\n'.join(parts) + '\n'


def reference_index() -> str:
  """Returns the page that lists the packages."""
  rows = '\n'.join(
    f'| [`jaxkd.{x}`]({x}.md) | {title} |' for x, title in REFERENCE.items()
  )
  return (
    '# Reference\n\nPublic names are those that a package exports. Symbols of'
    ' shapes: B batch, K classes, H W C height, width and channels of a map,'
    ' N tokens or examples, D feature width, M members, T temperature.\n\n'
    f'| package | about |\n|---|---|\n{rows}\n'
  )


def linked_sources() -> list[str]:
  """Returns the files of code that a page shows: configs, and linked ones."""
  linked = {x.relative_to(ROOT).as_posix() for x in gallery.CONFIGS}
  for page in written().values():
    if page.suffix == '.md':
      for link in re.findall(r'\]\(([^)#:\s]+\.py)\)', page.read_text()):
        path = (page.parent / link).resolve()
        linked.add(path.relative_to(ROOT).as_posix())
  return sorted(linked)


def source(path: str) -> str:
  """Returns the page of a file of code."""
  above = (
    'One of the [config files](../gallery/configs.md).\n\n'
    if path.startswith('configs/')
    else ''
  )
  code = (ROOT / path).read_text()
  return f'# {path}\n\n{above}````python\n{code}````\n'


def to_pages(markdown: str) -> str:
  """Returns Markdown with its links to code as links to the pages of it."""
  return re.sub(r'(\]\([^)#:\s]+\.py)(?=\))', r'\1.md', markdown)


# Navigation


def navigation() -> list[Any]:
  """Returns the navigation, as mkdocs reads it."""
  docs = _unlisted()
  tutorials = [x.relative_to(ROOT).as_posix() for x in notebooks()]
  catalogues = (('Methods', 'methods'), ('Objectives', 'objectives'))
  python = ['docs/python.md'] if 'docs/python.md' in written() else []
  return [
    {'Get started': ['README.md', *python]},
    *([{'Tutorials': tutorials}] if tutorials else []),
    {'How-to': ['docs/README.md', *docs]},
    {
      'Gallery': [
        'gallery/README.md',
        *({title: _catalogue(kind)} for title, kind in catalogues),
        {'Config files': 'gallery/configs.md'},
      ]
    },
    {'Reference': ['reference/README.md', *_reference()]},
    {'Results': 'docs/results.md'},
    {
      'Development': [
        {'Architecture': 'docs/architecture.md'},
        {'Decisions': _decisions()},
        {'Contributing': 'CONTRIBUTING.md'},
        {'Notes': 'docs/notes.md'},
        {'Changelog': 'CHANGELOG.md'},
      ]
    },
  ]


def paths(entries: Any) -> list[str]:
  """Returns the paths of all pages in a navigation."""
  if isinstance(entries, str):
    return [entries]
  values = entries.values() if isinstance(entries, dict) else entries
  return [path for value in values for path in paths(value)]


def _unlisted() -> list[str]:
  """Returns the how-to's: all pages of docs/ that have no other place."""
  names = {x.stem for x in (ROOT / 'docs').glob('*.md')} - {*ELSEWHERE}
  order = {name: n for n, name in enumerate(HOW_TO)}
  ordered = sorted(names, key=lambda x: (order.get(x, len(order)), x))
  return [f'docs/{x}.md' for x in ordered]


def _catalogue(kind: str) -> list[dict[str, str]]:
  catalog = getattr(gallery, kind).CATALOG
  return [{x: f'gallery/{kind}/{x}.md'} for x in sorted(catalog)]


def _reference() -> list[dict[str, str]]:
  return [{title: f'reference/{x}.md'} for x, title in REFERENCE.items()]


def _decisions() -> list[str]:
  folder = ROOT / 'docs' / 'decisions'
  names = sorted(x.name for x in folder.glob('[a-z]*.md'))
  return [f'docs/decisions/{x}' for x in ('README.md', *names)]
