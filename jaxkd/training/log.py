"""The log of a run: metrics.jsonl, TensorBoard events, and other trackers."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from tensorboardX import SummaryWriter

from jaxkd.disk import json_text, replacing

Metrics = Mapping[str, float | None]


class Tracker(Protocol):
  """Gets what is logged, beside the files in the run's folder."""

  def write(self, phase: str, epoch: int, step: int, metrics: Metrics) -> None:
    """Records an epoch; see `Log.write`."""
    ...

  def picture(self, phase: str, name: str, pixels: np.ndarray) -> None:
    """Records a picture, uint8 [H, W, C]."""
    ...


class Log:
  """One JSON object per epoch; the same for TensorBoard and other trackers.

  Opening the log of a phase at a step drops the phase's records of later steps:
  a resumed training is about to repeat them.

  Args:
    folder: of the run.
    phase: its name.
    step: steps that are done.
    tensorboard: whether to write TensorBoard events.
    trackers: others.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    phase: str,
    step: int,
    *,
    tensorboard: bool = True,
    trackers: Sequence[Tracker] = (),
  ):
    self._phase = phase
    self._path = folder / 'metrics.jsonl'
    keep = [
      record
      for record in read(self._path)
      if record['phase'] != phase or record['step'] <= step
    ]
    with replacing(self._path) as partial:
      partial.write_text(''.join(json_text(record) + '\n' for record in keep))
    self.trackers = tuple(trackers)
    if tensorboard:
      self.trackers += (_TensorBoard(folder / 'tensorboard' / phase, step),)

  def write(self, epoch: int, step: int, metrics: Metrics) -> None:
    """Appends an epoch's record.

    Args:
      epoch: epochs done.
      step: steps done in this phase.
      metrics: by name with slashes. A value that is not finite becomes null.
    """
    record = {'phase': self._phase, 'epoch': epoch, 'step': step, **metrics}
    with self._path.open('a') as file:
      file.write(json_text(record) + '\n')
    for tracker in self.trackers:
      tracker.write(self._phase, epoch, step, metrics)

  def picture(self, name: str, pixels: np.ndarray) -> None:
    """Gives a picture to the trackers.

    Args:
      name: of the picture.
      pixels: uint8 [H, W, C].
    """
    for tracker in self.trackers:
      tracker.picture(self._phase, name, pixels)

  def close(self) -> None:
    """Closes the TensorBoard file; other trackers stay open."""
    for tracker in self.trackers:
      if isinstance(tracker, _TensorBoard):
        tracker.close()


class _TensorBoard:
  """The events of one phase.

  Args:
    folder: of the events.
    step: steps that are done; events of later steps are dropped.
  """

  def __init__(self, folder: pathlib.Path, step: int):
    self._events = SummaryWriter(str(folder), purge_step=step + 1)

  def write(self, phase: str, epoch: int, step: int, metrics: Metrics) -> None:
    """See `Tracker`."""
    del phase, epoch
    for name, value in metrics.items():
      if value is not None:
        self._events.add_scalar(name, value, step)
    self._events.flush()

  def picture(self, phase: str, name: str, pixels: np.ndarray) -> None:
    """See `Tracker`."""
    del phase
    self._events.add_image(name, pixels, 0, dataformats='HWC')
    self._events.flush()

  def close(self) -> None:
    """Closes the file."""
    self._events.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the records of a metrics.jsonl; [] if it does not exist.

  A truncated last line, as after a crash, is left out.
  """
  if not path.exists():
    return []
  records = []
  for line in path.read_text().splitlines():
    try:
      record = json.loads(line)
    except json.JSONDecodeError:
      break
    if 'stage' in record:  # a phase, in version 0.1
      record['phase'] = record.pop('stage')
    records.append(record)
  return records
