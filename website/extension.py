"""What griffe calls when it reads the docstrings for the reference."""

from typing import Any

from griffe import Extension

from website import docstrings


class Docstrings(Extension):
  """Gives griffe every docstring as `docstrings.markdown` returns it."""

  def on_instance(self, *, obj: Any, **_: Any) -> None:
    """Changes an object's docstring when griffe has read it."""
    if not obj.is_alias and obj.docstring:
      obj.docstring.value = docstrings.markdown(obj.docstring.value)
