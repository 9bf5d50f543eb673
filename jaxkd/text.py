"""Tables and numbers as text."""

import itertools


def table(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
  """Returns a table with aligned columns.

  Args:
    rows: the cells of each row, all of one length; the first row is the header.
    right: indices of the columns that are aligned to the right.
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    cells = [
      cell.rjust(width) if n in right else cell.ljust(width)
      for n, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    lines.append('  '.join(cells).rstrip())
  return '\n'.join(lines)


def percent(fraction: float | None) -> str:
  """Returns a fraction as a percentage, or '-' for None."""
  return '-' if fraction is None else f'{100 * fraction:.2f} %'


def number(value: float | None) -> str:
  """Returns a number with three decimal places, or '-' for None."""
  return '-' if value is None else f'{value:.3f}'


def duration(seconds: float) -> str:
  """Returns a time span as text, in its two largest units.

  >>> [duration(x) for x in (8.4, 75, 8045, 86_400)]
  ['8 s', '1 min 15 s', '2 h 14 min', '1 d']
  """
  whole = round(seconds)
  units = (86_400, 'd'), (3600, 'h'), (60, 'min'), (1, 's')
  for (size, unit), (part, smaller) in itertools.pairwise(units):
    if whole >= size:
      rest = whole % size // part
      more = f' {rest} {smaller}' if rest else ''
      return f'{whole // size} {unit}{more}'
  return f'{whole} s'


def quantity(value: float, unit: str) -> str:
  """Returns a large number with three digits and a prefix of its unit.

  >>> quantity(2.789e17, 'FLOPs'), quantity(950, 'FLOPs')
  ('279 PFLOPs', '950 FLOPs')
  """
  prefixes = ('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z')
  power = 0
  while value >= 999.5 and power < len(prefixes) - 1:
    value, power = value / 1000, power + 1
  digits = 0 if value >= 100 or not power else 1 if value >= 10 else 2
  return f'{value:.{digits}f} {prefixes[power]}{unit}'
