"""Numbers as people read them."""

import datetime
import pathlib

from jaxkd.problems import Display


def duration(seconds: float) -> str:
  """Returns seconds as text.

  >>> duration(0.42), duration(7.26), duration(101.3), duration(93784)
  ('0.4 s', '7.3 s', '1 min 41 s', '26 h 3 min')
  """
  if seconds < 59.95:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  if minutes < 60:
    return f'{minutes} min {rest} s'
  hours, minutes = divmod(minutes, 60)
  return f'{hours} h {minutes} min'


def size(count: int) -> str:
  """Returns a number of bytes as text.

  >>> size(812), size(82_340), size(44_000_000)
  ('812 B', '82.3 kB', '44.0 MB')
  """
  value = float(count)
  for unit in ('B', 'kB', 'MB'):
    if value < 1000:
      return f'{value:.0f} B' if unit == 'B' else f'{value:.1f} {unit}'
    value /= 1000
  return f'{value:,.1f} GB'


def count(value: float) -> str:
  """Returns a large number with three digits.

  >>> count(19_810), count(7_433_860), count(940), count(1.08e9)
  ('19.8 k', '7.43 M', '940', '1.08 G')
  """
  for factor, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if value >= factor:
      return f'{value / factor:.3g} {unit}'
  return f'{value:g}'


def ratio(value: float) -> str:
  """Returns a factor.

  >>> ratio(8.83), ratio(31.4)
  ('8.8', '31')
  """
  return f'{value:.1f}' if value < 10 else f'{value:,.0f}'


def difference(
  value: float | None, other: float | None, display: Display
) -> str:
  """Returns how far a metric is from another network's, with its sign.

  Fractions in percentage points, with two digits as the metric itself.

  >>> difference(0.9722, 0.9889, Display('top-1', percent=True))
  '−1.67'
  >>> difference(0.9722, None, Display('top-1', percent=True))
  '–'
  """
  if value is None or other is None:
    return '–'
  digits, factor = (2, 100) if display.percent else (3, 1)
  return signed(factor * (value - other), digits)


def signed(value: float, digits: int = 2) -> str:
  """Returns a number with its sign, and a minus that is as wide as a plus.

  >>> signed(0.5), signed(-1.234), signed(-0.001)
  ('+0.50', '−1.23', '0.00')
  """
  text = f'{value:+.{digits}f}'
  if float(text) == 0:
    return text[1:]
  return text.replace('-', '−')


def written(path: pathlib.Path) -> str:
  """Returns when a file was written, in UTC; '' if it does not exist."""
  if not path.exists():
    return ''
  stamp = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
  return stamp.strftime('%Y-%m-%d %H:%M UTC')


def bytes_below(folder: pathlib.Path) -> int:
  """Returns the size of all files of a folder."""
  files = (path for path in folder.rglob('*') if path.is_file())
  return sum(path.stat().st_size for path in files)
