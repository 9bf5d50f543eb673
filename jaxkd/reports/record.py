"""What a report needs of networks and data, kept beside the run as JSON.

Later reports of the run are made without running or reading any network.
"""

import copy
import json
import pathlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from jaxkd import config as configs
from jaxkd.config import Config
from jaxkd.disk import write_json
from jaxkd.reports import graphs, predictions
from jaxkd.runs import folder, layout
from jaxkd.runs.experiment import Experiment, bound

NAME = 'report.json'
VERSION = 1  # of the entries; those of other versions are made again
MISSING = 'missing'  # the key of the reason why a part is not there
EXPLAINED = (ImportError, KeyError, OSError, ValueError)  # where jaxkd raises


def of_run(
  workdir: pathlib.Path, experiment: Experiment | None = None
) -> dict[str, Any]:
  """Returns the graphs and the predictions of a run.

  Args:
    workdir: of a finished run.
    experiment: of the run, if it is at hand; its data are not read again.

  Returns:
    'graphs', see `graphs.of_experiment`, and 'predictions', see
    `predictions.of_run`. A part that could not be made is the reason, under
    `MISSING`, and is tried again by the next report.
  """
  path = workdir / NAME
  networks = (folder.read_summary(workdir) or {}).get('networks', {})
  digests = {name: x.get('params_sha256') for name, x in networks.items()}
  head = {'version': VERSION, 'networks': digests}
  record = json.loads(path.read_text()) if path.exists() else {}
  if {key: record.get(key) for key in head} != head:
    record = head
  makers: dict[str, Callable[[], Any]] = {
    'graphs': lambda: graphs.of_experiment(
      experiment or bound(config_of(workdir))
    ),
    'predictions': lambda: predictions.of_run(
      workdir, experiment.source.dataset if experiment else None
    ),
  }
  missing = [k for k in makers if MISSING in record.get(k, {MISSING: ''})]
  for part in missing:
    record[part] = attempt(makers[part])
  if missing:
    try:
      write_json(path, record)
    except OSError as error:  # the run of somebody else
      logging.info('not written: %s', error)
  return record


def attempt(make: Callable[[], Any]) -> Any:
  """Returns what a function returns, or why it failed, under `MISSING`.

  An optional part of a report must not cost a run that has taken days, so any
  failure is a reason.
  """
  try:
    return make()
  except EXPLAINED as error:
    text = error.args[0] if isinstance(error, KeyError) else error
    return {MISSING: str(text)}
  except Exception as error:
    logging.warning('%s', traceback.format_exc())
    return {MISSING: f'{type(error).__name__}: {error}'}


def is_study(workdir: pathlib.Path) -> bool:
  """Returns whether a folder holds a study, and not a run.

  Raises:
    FileNotFoundError: it holds neither.
  """
  study = _recorded(workdir).get('study', {})
  return bool(study.get('recipes') or study.get('seeds'))


def config_of(workdir: pathlib.Path) -> Config:
  """Returns the config of a run or study; new settings have their default.

  Raises:
    FileNotFoundError: there is no run or study.
  """
  default = configs.default().to_dict()
  return configs.of_tree(_filled(default, _recorded(workdir)))


def _recorded(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the settings of a run or study, as they were recorded."""
  if not layout.is_run(workdir):
    raise FileNotFoundError(
      f'no run in {workdir}: {layout.CONFIG} is missing. Name the folder of a'
      ' run or of a study'
    )
  return folder.read_config(workdir / layout.CONFIG)


def _filled(
  default: Mapping[str, Any], recorded: Mapping[str, Any], at: str = ''
) -> dict[str, Any]:
  """Returns recorded settings, and the default of those that are absent."""
  tree = dict(copy.deepcopy(default))
  for key, value in recorded.items():
    name = f'{at}{key}'
    old = tree.get(key)
    tree[key] = value
    if isinstance(value, Mapping) and isinstance(old, Mapping):
      if name not in configs.FREE:
        tree[key] = _filled(old, value, f'{name}.')
  return tree
