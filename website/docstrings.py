"""Docstrings of this project as Markdown.

Formulas and examples are set off by indentation or by a prompt in them, and
fields are lines 'name: meaning'; Markdown wants fences and lists.
"""

import itertools
import re
import textwrap

# Sections that griffe reads by itself.
SECTIONS = ('Args:', 'Returns:', 'Raises:', 'Yields:', 'Attributes:')
FIELD = re.compile(r'(\w+(?:, \w+)*): (\S.*)')


def markdown(docstring: str) -> str:
  """Returns a docstring with formulas and examples in fences, and lists.

  Args:
    docstring: without its indentation. Its sections stay as they are, for
      griffe to read, but 'References:' becomes a paragraph.
  """
  description, sections = split(docstring)
  return '\n\n'.join(filter(None, [_description(description), sections]))


def split(docstring: str) -> tuple[str, str]:
  """Returns the description of a docstring, and its sections."""
  lines = docstring.splitlines()
  description, sections, target = [], [], None
  for line in lines:
    if line in SECTIONS:
      target = sections
    elif line == 'References:' or line.startswith('>>> '):
      target = description
    elif line and line[0] != ' ' and target is sections:
      target = description
    if target is None:
      target = description
    target.append(line)
  return '\n'.join(description).strip(), '\n'.join(sections).strip()


def _description(text: str) -> str:
  return '\n\n'.join(_paragraph(x) for x in re.split(r'\n{2,}', text) if x)


def _paragraph(text: str) -> str:
  """Returns one paragraph as Markdown."""
  lines = text.splitlines()
  if lines[0] == 'References:':
    return ' '.join(['References:', *(x.strip() for x in lines[1:])])
  if lines[0].startswith('>>> '):
    return '\n'.join(['```pycon', *lines, '```'])
  if FIELD.match(lines[0]) and _is_list(lines):
    return _list(lines)
  parts = []
  for indented, run in itertools.groupby(lines, lambda x: x.startswith(' ')):
    block = textwrap.dedent('\n'.join(run))
    parts.append(f'```text\n{block}\n```' if indented else block)
  return '\n\n'.join(parts)


def _is_list(lines: list[str]) -> bool:
  """Returns whether each line is a field or continues one."""
  return len(lines) > 1 and all(
    FIELD.match(line) or line.startswith('  ') for line in lines
  )


def _list(lines: list[str]) -> str:
  items: list[str] = []
  for line in lines:
    field = FIELD.match(line)
    if field:
      items.append(f'- `{field[1]}`: {field[2]}')
    else:
      items[-1] += ' ' + line.strip()
  return '\n'.join(items)
