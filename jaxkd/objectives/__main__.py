"""Prints the table of objectives, or writes it into a page: see `table.placed`.

python -m jaxkd.objectives [README.md]
"""

import argparse
import pathlib

from jaxkd.objectives import table


def main() -> None:
  """Reads the command line."""
  parser = argparse.ArgumentParser('jaxkd.objectives', description=__doc__)
  parser.add_argument('page', nargs='?', type=pathlib.Path)
  page = parser.parse_args().page
  if page is None:
    print(table.markdown(), end='')
  else:
    page.write_text(table.placed(page.read_text()))


if __name__ == '__main__':
  main()
