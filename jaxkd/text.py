"""Tables and numbers as text."""


def table(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
  """Returns rows as aligned columns.

  Args:
    rows: of equal length; the first is the head.
    right: the columns that are aligned to the right.
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
  """Returns a fraction in per cent; a dash for what is not known."""
  return '-' if fraction is None else f'{100 * fraction:.2f} %'


def number(value: float | None) -> str:
  """Returns a number to three places; a dash for what is not known."""
  return '-' if value is None else f'{value:.3f}'
