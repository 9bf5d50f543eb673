"""The log of a run: metrics.jsonl and TensorBoard events."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

from jaxkd.disk import json_text, replacing


class Log:
  """One JSON object per epoch, and the same numbers for TensorBoard.

  Opening the log of a phase at a step drops the phase's records of later steps:
  a resumed training is about to repeat them.
  """

  def __init__(self, folder: pathlib.Path, phase: str, step: int):
    self._phase = phase
    self._path = folder / 'metrics.jsonl'
    keep = [
      record
      for record in read(self._path)
      if record['phase'] != phase or record['step'] <= step
    ]
    with replacing(self._path) as partial:
      partial.write_text(''.join(json_text(record) + '\n' for record in keep))
    self._events = SummaryWriter(
      str(folder / 'tensorboard' / phase), purge_step=step + 1
    )

  def write(
    self, epoch: int, step: int, metrics: Mapping[str, float | None]
  ) -> None:
    """Appends an epoch's record.

    Args:
      epoch: epochs done.
      step: steps done in this phase.
      metrics: by name with slashes. A value that is not finite becomes null.
    """
    record = {'phase': self._phase, 'epoch': epoch, 'step': step, **metrics}
    with self._path.open('a') as file:
      file.write(json_text(record) + '\n')
    for name, value in metrics.items():
      if value is not None:
        self._events.add_scalar(name, value, step)
    self._events.flush()

  def close(self) -> None:
    """Closes the TensorBoard file."""
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
