"""Pages from templates: one HTML file each, which loads nothing else."""

import functools
from typing import Any

import jinja2


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
    loader=jinja2.PackageLoader('jaxkd.reports'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


def render(template: str, **context: Any) -> str:
  """Returns a page.

  Args:
    template: its name in `templates`.
    **context: the values that it shows.
  """
  return _environment().get_template(template).render(**context)
