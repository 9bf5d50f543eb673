"""What a run writes while it trains: metrics.jsonl and TensorBoard events."""

import json
import math
import pathlib
from typing import Any

from tensorboardX import SummaryWriter

from jaxkd.disk import replacing


class Log:
  """One JSON object per epoch, and the same numbers for TensorBoard.

  Opening the log of a stage drops what was logged after the step from which
  the stage goes on, since those epochs are about to be run again.
  """

  def __init__(self, folder: pathlib.Path, stage: str, step: int):
    self._stage = stage
    self._path = folder / 'metrics.jsonl'
    keep = [
      record
      for record in read(self._path)
      if record['stage'] != stage or record['step'] <= step
    ]
    with replacing(self._path) as partial:
      partial.write_text(''.join(json.dumps(record) + '\n' for record in keep))
    self._events = SummaryWriter(
      str(folder / 'tensorboard' / stage), purge_step=step + 1
    )

  def write(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
    """Appends an epoch's record.

    Args:
      epoch: epochs done.
      step: steps done in this stage.
      metrics: by name with slashes. A value that is not finite becomes null.
    """
    finite = {
      name: value if math.isfinite(value) else None
      for name, value in metrics.items()
    }
    record = {'stage': self._stage, 'epoch': epoch, 'step': step, **finite}
    with self._path.open('a') as file:
      file.write(json.dumps(record) + '\n')
    for name, value in metrics.items():
      self._events.add_scalar(name, value, step)
    self._events.flush()

  def close(self) -> None:
    """Ends the TensorBoard file."""
    self._events.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the records of a metrics.jsonl; [] if there is none.

  A last line that a kill has cut short is left out.
  """
  if not path.exists():
    return []
  records = []
  for line in path.read_text().splitlines():
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return records
