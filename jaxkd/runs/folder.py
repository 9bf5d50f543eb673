"""Folders of runs and studies: checked against a config, and read."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd import config as configs
from jaxkd import methods
from jaxkd.catalog import lookup
from jaxkd.disk import PARTIAL, write_json
from jaxkd.runs import layout, lock
from jaxkd.training.progress import say

# A run's files -> their names in version 0.1; see also `layout`.
FORMER = {'pretrained.json': 'given.json'}
CHANGES = 'changes.json'
# The kinds of settings that are compared when a run is resumed, in words.
KINDS = {
  'config': 'another config',
  'data': 'another data set',
  'checkpoint': 'another checkpoint',
}


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
  config = configs.renamed(config)
  if 'method' not in config:
    return config
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
  allowed: Sequence[str] = (),
) -> None:
  """Refuses a folder that is neither of this config nor empty.

  Args:
    workdir: of a run or a study; it need not exist.
    config: its resolved config.
    kind: 'run' or 'study', for the message.
    ignored: a section of the config that may differ; '': none.
    allowed: see `check_same`.

  Raises:
    KeyError: what is allowed is not one of `KINDS`.
    ValueError: the folder belongs to another config, or to something else.
  """
  for each in allowed:
    lookup('kind of settings in allow_changed', KINDS, each)
  if layout.is_run(workdir):
    path = workdir / layout.CONFIG
    old, new = (
      [{k: x for k, x in settings.items() if k != ignored}]
      for settings in (read_config(path), config)
    )
    check_same(workdir, old, new, f'a {kind}', 'config', allowed)
  elif workdir.exists():
    # Runs of a study may have been started without it, one by one.
    expected = (lock.NAME, *(['runs'] if kind == 'study' else []))
    names = [
      x.name
      for x in workdir.iterdir()
      if x.suffix != PARTIAL and x.name not in expected
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
  allowed: Sequence[str] | None = None,
) -> list[str]:
  """Refuses a place whose settings differ from those of the new run.

  Args:
    place: of the results.
    old: settings of the results that are there, for each seed.
    new: settings of the new run or runs, likewise.
    what: 'a run' or 'results', for the message.
    kind: of settings, one of `KINDS`.
    allowed: the kinds that may differ; None: no kind ever may.

  Returns:
    A line for each setting that differs.

  Raises:
    ValueError: with these lines, if they may not differ.
  """
  lines = [] if len(old) == len(new) else [f'{len(old)} -> {len(new)} seeds']
  for pair in zip(old, new, strict=False):
    lines += configs.differing(*pair)
  lines = list(dict.fromkeys(lines))
  if lines and kind not in (allowed or ()):
    override = f'--config.allow_changed="(\'{kind}\',)"'
    hint = f', or go on in spite of it by {override}'
    raise ValueError(
      f'{place} holds {what} of {KINDS[kind]}; choose another --workdir, or'
      f' change back{hint if allowed is not None else ""}:\n  '
      + '\n  '.join(lines)
    )
  return lines


def note_changes(
  workdir: pathlib.Path, changes: Mapping[str, Sequence[str]]
) -> None:
  """Adds to the list of what differed when a run was resumed, and prints it.

  Args:
    workdir: of the run.
    changes: lines of `check_same` by kind.
  """
  path = workdir / CHANGES
  earlier = json.loads(path.read_text()) if path.exists() else []
  write_json(path, [*earlier, changes])
  for kind, lines in changes.items():
    say(f'resumed with {KINDS[kind]}: {"; ".join(lines)}')
