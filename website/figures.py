"""Measured figures of docs/results.md, by method or objective."""

import dataclasses
import functools
import pathlib
import re

RESULTS = pathlib.Path(__file__).parents[1] / 'docs' / 'results.md'
# Names that are also those of rows about something else.
AMBIGUOUS = ('plain', 'teacher')


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of the page, or some of its rows.

  heading: of the section that it is in.
  introduction: the paragraph before it, if it ends with a colon.
  head: its first line, one text each cell.
  rows: likewise.
  """

  heading: str
  introduction: str
  head: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]


def of(name: str) -> str:
  """Returns what was measured of a method or objective, as Markdown.

  Args:
    name: rows whose first word it is are taken, with links to their sections,
      for a page two folders below that of the site.
  """
  found = _rows(name)
  parts = ['## Measured here'] if found else []
  heading = ''
  for each in found:
    if each.heading != heading:
      heading = each.heading
      parts.append(f'[{heading}](../../docs/results.md#{slug(heading)})')
    parts += [each.introduction] if each.introduction else []
    parts.append(table(tuple(x or ' ' for x in each.head), list(each.rows)))
  return '\n\n'.join(parts)


def slug(heading: str, separator: str = '-') -> str:
  """Returns the anchor of a heading, as code hosts name it."""
  plain = re.sub(r'[^\w -]', '', heading).strip().lower()
  return plain.replace(' ', separator)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
  """Returns a table as Markdown."""
  lines = [head, ('---',) * len(head), *rows]
  return '\n'.join(f'| {" | ".join(x)} |' for x in lines)


def _rows(name: str) -> list[Table]:
  if name in AMBIGUOUS:
    return []
  first = re.compile(rf'[`*]*{re.escape(name)}(?![\w-])', re.IGNORECASE)
  found = [
    dataclasses.replace(x, rows=tuple(r for r in x.rows if first.match(r[0])))
    for x in tables()
  ]
  return [x for x in found if x.rows]


@functools.cache
def tables() -> tuple[Table, ...]:
  """Returns all tables of the page."""
  found = []
  for section in RESULTS.read_text().split('\n## ')[1:]:
    heading = section.splitlines()[0]
    blocks = [x.strip('\n') for x in re.split(r'\n{2,}', section)]
    for before, block in zip(blocks, blocks[1:], strict=False):
      if block.startswith('|'):
        head, _, *rows = map(_cells, block.splitlines())
        words = ' '.join(before.split()) if before.endswith(':') else ''
        found.append(Table(heading, words, head, tuple(rows)))
  return tuple(found)


def _cells(line: str) -> tuple[str, ...]:
  return tuple(x.strip() for x in line.strip().strip('|').split('|'))
