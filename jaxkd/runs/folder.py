"""Folders of runs and studies: checked against a config, and read."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd import config as configs
from jaxkd import methods
from jaxkd.disk import PARTIAL
from jaxkd.runs import layout, lock

# A run's files -> their names in version 0.1; see also `layout`.
FORMER = {'pretrained.json': 'given.json'}


def place(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the path of a file of a run.

  A run that was started by version 0.1 keeps the names of that version.

  Args:
    workdir: of the run.
    name: the current name of the file.
  """
  former = workdir / FORMER.get(name, name)
  return former if former.exists() else workdir / name


def read_config(path: pathlib.Path) -> dict[str, Any]:
  """Returns the config of a run or study, with current names of settings."""
  return renamed(json.loads(path.read_text()))


def renamed(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a resolved config of any version with current names of settings."""
  if 'method' not in config:
    return dict(config)
  return {**config, 'method': methods.renamed(config['method'])}


def read_summary(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns the result of a finished run or study; None if it is not finished.

  The keys are the current ones, also of a summary that version 0.1 wrote.
  """
  path = workdir / layout.SUMMARY
  if not path.exists():
    return None
  summary = json.loads(path.read_text())
  if 'stages' in summary:
    summary['phases'] = summary.pop('stages')
  return summary


def check(
  workdir: pathlib.Path,
  config: Mapping[str, Any],
  kind: str,
  ignored: str = '',
) -> None:
  """Refuses a folder that is neither of this config nor empty.

  Args:
    workdir: of a run or a study; it need not exist.
    config: its resolved config.
    kind: 'run' or 'study', for the message.
    ignored: a section of the config that may differ; '': none.

  Raises:
    ValueError: the folder belongs to another config, or to something else.
  """
  path = workdir / layout.CONFIG
  if path.exists():
    old, new = (
      [{k: x for k, x in settings.items() if k != ignored}]
      for settings in (read_config(path), config)
    )
    check_same(workdir, old, new, f'a {kind}', 'config')
  elif workdir.exists():
    names = [
      x.name
      for x in workdir.iterdir()
      if x.suffix != PARTIAL and x.name != lock.NAME
    ]
    if names:
      raise ValueError(
        f'{workdir} is not empty and holds no {kind} ({min(names)!r} is in it);'
        ' choose another --workdir'
      )


def check_same(
  place: pathlib.Path,
  old: Sequence[Mapping[str, Any]],
  new: Sequence[Mapping[str, Any]],
  what: str,
  kind: str,
) -> None:
  """Refuses a place whose settings differ from those of the new run.

  Args:
    place: of the results.
    old: settings of the results that are there, for each seed.
    new: settings of the new run or runs, likewise.
    what: 'a run' or 'results', for the message.
    kind: of settings, such as 'config', for the message.

  Raises:
    ValueError: with a line for each setting that differs.
  """
  lines = [] if len(old) == len(new) else [f'{len(old)} -> {len(new)} seeds']
  for pair in zip(old, new, strict=False):
    lines += configs.differing(*pair)
  if lines:
    raise ValueError(
      f'{place} holds {what} of another {kind}; choose another --workdir, or'
      ' change back:\n  ' + '\n  '.join(dict.fromkeys(lines))
    )
