"""Tables and numbers as text."""


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
