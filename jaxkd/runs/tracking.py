"""Weights & Biases, if `log.wandb` names a project; else nothing.

The run of W&B is that of the folder: wandb.json has its id, so that a resumed
run continues it, and the epochs that it has, which are not sent again.
"""

import json
import pathlib
import types
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxkd.config import Config
from jaxkd.disk import write_json
from jaxkd.training.log import Metrics, Tracker

RECORD = 'wandb.json'


class Tracking:
  """The run of W&B that belongs to a run; opened when something is logged.

  Closed as a context manager: as failed, if an error ends it.
  """

  def __init__(
    self,
    settings: Config,
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    phases: Sequence[str],
  ):
    """Checks that W&B is installed, if it is wanted.

    Args:
      settings: the section `log` of the config.
      workdir: the folder of the run.
      config: the resolved config, which W&B records.
      phases: names of the run's phases.

    Raises:
      ImportError: it is not installed.
    """
    entity, _, self._project = settings.wandb.rpartition('/')
    self._entity, self._workdir = entity or None, workdir
    self._config, self._phases = dict(config), tuple(phases)
    self._open: tuple[Any, dict[str, Any]] | None = None
    self._wandb: Any = _library() if self._project else None

  @property
  def trackers(self) -> tuple[Tracker, ...]:
    """What a `Log` gets: this one, or nothing."""
    return (self,) if self._project else ()

  def write(self, phase: str, epoch: int, step: int, metrics: Metrics) -> None:
    """Sends an epoch, unless it was sent before; see `Log.write`."""
    run, record = self._run()
    if epoch <= record['epochs'].get(phase, 0):
      return
    values = {k: x for k, x in metrics.items() if _finite(x)}
    values = {'epoch': epoch, 'step': step, **values}
    run.log({f'{phase}/{key}': value for key, value in values.items()})
    record['epochs'][phase] = epoch
    write_json(self._workdir / RECORD, record)

  def picture(self, phase: str, name: str, pixels: np.ndarray) -> None:
    """Sends a picture; see `Tracker`."""
    run, _ = self._run()
    run.log({f'{phase}/{name}': self._wandb.Image(pixels)})

  def result(self, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Sends the results of a finished run, by network."""
    if self._project:
      run, _ = self._run()
      run.summary.update(
        {
          f'{name}/{key}': value
          for name, network in networks.items()
          for key, value in network.items()
          if _finite(value)
        }
      )

  def __enter__(self) -> 'Tracking':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: types.TracebackType | None,
  ) -> None:
    del error, traceback
    if self._open:
      self._open[0].finish(exit_code=int(kind is not None))
      self._open = None

  def _run(self) -> tuple[Any, dict[str, Any]]:
    """Returns the run of W&B and its record, after opening it if need be."""
    if self._open is None:
      record = self._record()
      run = self._wandb.init(
        project=self._project,
        entity=self._entity,
        id=record['id'],
        resume='allow',
        name='/'.join(self._workdir.absolute().parts[-2:]),
        dir=str(self._workdir),
        config=self._config,
        settings=self._wandb.Settings(console='off'),
      )
      # W&B's own steps count calls, over all phases.
      for phase in self._phases:
        run.define_metric(f'{phase}/*', step_metric=f'{phase}/epoch')
      self._open = run, record
    return self._open

  def _record(self) -> dict[str, Any]:
    """Returns wandb.json; a new one for another project."""
    path = self._workdir / RECORD
    project = f'{self._entity or ""}/{self._project}'
    record = json.loads(path.read_text()) if path.exists() else {}
    if record.get('project') != project:
      record = {'project': project, 'id': uuid.uuid4().hex, 'epochs': {}}
      write_json(path, record)
    return record


def _library() -> Any:
  """Returns the module of W&B.

  Raises:
    ImportError: it is absent.
  """
  try:
    import wandb
  except ImportError as error:
    raise ImportError(
      "log.wandb needs Weights & Biases: pip install 'jaxkd[wandb]', or set"
      " log.wandb=''"
    ) from error
  return wandb


def _finite(value: Any) -> bool:
  """Returns whether a value is a number that can be drawn."""
  return isinstance(value, int | float) and bool(np.isfinite(value))
