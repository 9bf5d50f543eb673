"""Finished runs, read for a comparison: their settings and their results."""

import dataclasses
import functools
import glob
import inspect
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxkd import config as configs
from jaxkd import disk, methods, problems
from jaxkd.catalog import lookup
from jaxkd.problems import Problem
from jaxkd.runs import folder, layout, lock

PRETRAINED = 'pretrained.json'
RESULTS = ('student', 'teacher')  # the first that a run has is its result
# Settings that cannot change a result, besides locations: how often a state is
# saved, whether twins of the student are trained beside it, and what a study
# shows.
WITHOUT_EFFECT = ('save_every_steps', 'baseline', 'kd_baseline')
ELSEWHERE = (
  'study.',
  'store.',
)  # what is shown, and what another command writes
OBJECTIVES = ('objective', 'static', 'dynamic')  # arguments of methods


@dataclasses.dataclass(frozen=True)
class Record:
  """A finished run.

  path: its folder; of runs that were trained together, the file of their
    results.
  settings: every setting by name, those of the method with their defaults.
  summary: its results.
  digests: network -> digest of the checkpoint that it comes from.
  notes: what a reader has to know of the run.
  """

  path: pathlib.Path
  settings: Mapping[str, Any]
  summary: Mapping[str, Any]
  digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()

  @functools.cached_property
  def identity(self) -> dict[str, Any]:
    """The settings that can change the result, a checkpoint by its content."""
    kept = {
      key: value
      for key, value in self.settings.items()
      if key not in (*configs.PLACES, *WITHOUT_EFFECT)
      and not key.startswith(ELSEWHERE)
    }
    for name, digest in self.digests.items():
      for key in ('checkpoint', 'outputs'):
        if kept.get(f'{name}.{key}'):
          kept[f'{name}.{key}'] = digest
    for section in self._unused:
      kept = {k: x for k, x in kept.items() if not k.startswith(f'{section}.')}
    return kept

  @property
  def _unused(self) -> tuple[str, ...]:
    """The sections of networks that the method does not have."""
    unused = {'plain': ('teacher',), 'teacher': ('student',)}
    return unused.get(self.settings['method.name'], ())

  @property
  def problem(self) -> Problem:
    """What is predicted."""
    name = self.summary.get('problem', 'classification')
    return lookup('problem', problems.CATALOG, name)

  @property
  def network(self) -> str:
    """The network that the run is for."""
    names = self.summary['networks']
    return next((x for x in RESULTS if x in names), next(iter(names)))

  @property
  def commit(self) -> str:
    """The commit of the code, shortened, '+changes' kept; '' if unknown."""
    commit = self.summary.get('provenance', {}).get('git_commit') or ''
    name, plus, changes = commit.partition('+')
    return name[:7] + plus + changes

  @property
  def data(self) -> Mapping[str, Any]:
    """The settings of the data, without their place on disk."""
    return {
      key: value
      for key, value in self.identity.items()
      if key.startswith('data.')
    }

  def provenance(self, key: str) -> Any:
    """Returns an entry of the provenance, or None."""
    return self.summary.get('provenance', {}).get(key)

  def value(self, key: str) -> float | None:
    """Returns the metric NETWORK/METRIC; None if it is not finite.

    Raises:
      KeyError: the run has no such network or metric, with suggestions.
    """
    name, _, metric = key.partition('/')
    network = lookup('network', self.summary['networks'], name)
    numbers = {k: x for k, x in network.items() if _is_metric(k, x)}
    return lookup('metric', numbers, metric)

  @property
  def metrics(self) -> dict[str, float | None]:
    """All metrics of all networks, by NETWORK/METRIC."""
    return {
      f'{name}/{key}': value
      for name, network in self.summary['networks'].items()
      for key, value in network.items()
      if _is_metric(key, value)
    }


def _is_metric(key: str, value: Any) -> bool:
  described = ('width', 'branches', 'params', 'macs', 'reused')
  return key not in described and (
    value is None or isinstance(value, int | float)
  )


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns every setting of a resolved config by name.

  Settings that did not exist yet when the run was made, and arguments of its
  method that it does not set, have their defaults.
  """
  defaults = configs.as_json(configs.default().to_dict())
  free = tuple(f'{x}.' for x in configs.FREE)
  settings = {
    key: value
    for key, value in configs.flat(defaults)
    if not f'{key}.'.startswith(free)
  }
  own = dict(config)
  method = methods.CATALOG.get(config['method'].get('name', ''))
  if method is not None:
    arguments = {
      name: configs.as_json(parameter.default)
      for name, parameter in inspect.signature(method).parameters.items()
      if parameter.default is not parameter.empty
    }
    own['method'] = _named({**arguments, **config['method']})
  return {**settings, **dict(configs.flat(own))}


def _named(method: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a method's settings, with objectives as mappings with a name."""
  return {
    key: {'name': value}
    if isinstance(value, str) and key.endswith(OBJECTIVES)
    else value
    for key, value in method.items()
  }


def find(
  names: Sequence[str | os.PathLike[str]],
) -> tuple[list[Record], dict[pathlib.Path, str]]:
  """Reads the finished runs of paths.

  Args:
    names: of runs, of studies, of folders of runs, or patterns like 'runs/*'.

  Returns:
    The finished runs, in this order, each once; and why the others are left
    out, by their paths.

  Raises:
    FileNotFoundError: a path that does not exist, or without any run.
  """
  records: dict[Any, Record] = {}
  left_out: dict[pathlib.Path, str] = {}
  for name in names:
    runs = [run for path in _paths(name) for run in _runs(path)]
    if not runs:
      raise FileNotFoundError(
        f'{os.fspath(name)}: no run is there. Name folders of runs or of'
        " studies, or a quoted pattern like 'runs/*'"
      )
    for path in runs:
      if path.suffix == '.json':
        records |= {(path, n): x for n, x in enumerate(_together(path))}
      elif (record := _record(path)) is None:
        left_out[path] = why_unfinished(path)
      else:
        records[path.resolve()] = record
  return list(records.values()), left_out


def natural(path: str | os.PathLike[str]) -> list[Any]:
  """Returns a key to sort by in which seed10 comes after seed9."""
  parts = re.split(r'(\d+)', os.fspath(path))
  return [
    (part.isdigit(), int(part) if part.isdigit() else part) for part in parts
  ]


def _paths(name: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Returns the paths of a name or of a pattern, in natural order."""
  path = disk.expanded(name)
  if path.exists() or not glob.has_magic(str(path)):
    return [path]
  places = glob.glob(str(path), recursive=True)
  return [pathlib.Path(x) for x in sorted(places, key=natural)]


def _runs(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the runs in a folder: itself, a study's, or those inside of it."""
  if not path.is_dir():
    return
  if not layout.is_run(path):
    inside = [x for x in _inside(path) if x.suffix != '.json' and x != path]
    for each in sorted(inside, key=natural):
      if layout.is_run(each):
        yield from _runs(each)
    return
  config = folder.read_config(path / layout.CONFIG)
  study = config.get('study', {})
  if not (study.get('recipes') or study.get('seeds')):
    yield path
    return
  runs = path / 'runs'
  order = list(study.get('only') or study.get('recipes') or [])

  def place(run: pathlib.Path) -> tuple[int, list[Any]]:
    name = run.relative_to(runs)
    own = name.with_suffix('') if name.suffix == '.json' else name.parent
    recipe = str(own)
    return order.index(recipe) if recipe in order else len(order), natural(name)

  yield from sorted(_inside(runs), key=place)


def _inside(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of runs and studies in a folder, without their own.

  And the files of results of seeds that were trained together. A folder that
  vanishes meanwhile, as saved states of a run do, is no mistake.
  """
  places = []
  for name, folders, files in os.walk(path):
    here = pathlib.Path(name)
    if layout.CONFIG in files:
      places.append(here)
      folders.clear()
    else:
      results = [here / x for x in files if x.endswith('.json')]
      places += filter(_holds_runs, results)
  return places


def _holds_runs(path: pathlib.Path) -> bool:
  """Returns whether a file has the results of seeds trained together."""
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError):
    return False
  return isinstance(content, dict) and {'configs', 'runs'} <= content.keys()


def _together(path: pathlib.Path) -> Iterator[Record]:
  """Yields the runs of seeds that were trained together, of their file."""
  content = json.loads(path.read_text())
  study = next(x for x in path.parents if (x / layout.CONFIG).exists())
  provenance = (folder.read_summary(study) or {}).get('provenance', {})
  for config, networks in zip(content['configs'], content['runs'], strict=True):
    config = folder.renamed(config)
    summary = {
      'networks': networks,
      'provenance': provenance,
      'data': config['data']['name'],
      'epochs': config['epochs'],
      'seed': config['seed'],
    }
    yield Record(path, complete(config), summary)


def _record(path: pathlib.Path) -> Record | None:
  """Returns a run, None if it is not finished."""
  summary = folder.read_summary(path)
  if summary is None:
    return None
  config = folder.read_config(path / layout.CONFIG)
  place = folder.place(path, PRETRAINED)
  digests = json.loads(place.read_text()) if place.exists() else {}
  notes = []
  if (path / folder.CHANGES).exists():
    notes.append('was resumed with other settings, see its changes.json')
  phases = summary.get('phases', {}).values()
  if any(phase.get('stopped_by_callback') for phase in phases):
    notes.append('was stopped early by a callback')
  return Record(path, complete(config), summary, digests, tuple(notes))


def why_unfinished(path: pathlib.Path) -> str:
  """Returns why a run has no results."""
  holder = lock.holder(path)
  if holder:
    return f'not finished: process {holder.get("pid")} is working on it'
  return 'not finished'
