"""Pages: one file of HTML each, with everything inside of it."""

import functools
from typing import Any

import jinja2
import markupsafe


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('jaxkd.reports'),
    autoescape=True,  # names of classes and folders come from anywhere
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.globals['markup'] = markupsafe.Markup
  return environment


def render(template: str, **context: Any) -> str:
  """Returns a page.

  Args:
    template: the name of a file in `templates`. Pages extend `base.html.j2`,
      with a block `title` and a block `content`, and have the classes `data`
      of tables and `number` of cells that are aligned to the right.
    **context: the values in it. Text is escaped; a picture is a
      `markupsafe.Markup`.

  Raises:
    jinja2.UndefinedError: a value that the template needs is absent.
  """
  return _environment().get_template(template).render(**context)
