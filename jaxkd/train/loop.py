"""The loop around the step: epochs, evaluation, saves, and what a person sees.

Metrics are fetched one call late, so that the device never waits for Python.
"""

import dataclasses
import math
import sys
import time

import numpy as np
from tqdm import tqdm

from jaxkd.graph.program import Program
from jaxkd.train.checkpoint import Checkpoints
from jaxkd.train.evaluation import Evaluator
from jaxkd.train.feed import Feed
from jaxkd.train.log import Log
from jaxkd.train.state import State, averages_of, variables_of
from jaxkd.types import Metrics, Variables


class DivergedError(ValueError):
  """The loss, or a network's test loss, is not a finite number."""


@dataclasses.dataclass
class Record:
  """What the loop remembers besides the state; saved with it, as JSON.

  best: network -> best test accuracy so far.
  last: network -> results of the last evaluation.
  sums: metric -> sum over this epoch's steps so far.
  seconds: of training steps, without compilation and evaluation.
  images: trained on during these seconds.
  steps: of this epoch that `sums` are over.
  wall: seconds since the phase began, everything included but interruptions.
  """

  best: dict[str, float] = dataclasses.field(default_factory=dict)
  last: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
  sums: dict[str, float] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0
  images: int = 0
  steps: int = 0
  wall: float = 0.0

  @property
  def images_per_second(self) -> float:
    """Training throughput so far."""
    return self.images / self.seconds if self.seconds else 0.0


@dataclasses.dataclass
class Loop:
  """Trains one phase to its end, from its start or from its last save.

  phase: its name.
  program: the graph with its modules.
  feed: training batches for the step.
  test: evaluates networks, after every epoch.
  epochs: to train in all.
  checkpoints: where the state is kept.
  log: where metrics go.
  every_steps: saves inside an epoch; 0 saves after each epoch only.
  """

  phase: str
  program: Program
  feed: Feed
  test: Evaluator
  epochs: int
  checkpoints: Checkpoints
  log: Log
  every_steps: int = 0

  def __post_init__(self):
    self._mark = time.monotonic()

  def run(self, state: State, record: Record) -> State:
    """Trains to the end.

    Args:
      state: donated.
      record: kept up to date.

    Raises:
      DivergedError: a loss is not finite; what is saved stays as it is.
    """
    self.feed.compile(state)
    steps = self.feed.steps_per_epoch
    first, done = divmod(int(state.step), steps)
    with tqdm(
      total=self.epochs * steps,
      initial=int(state.step),
      unit='step',
      disable=not sys.stderr.isatty(),
      dynamic_ncols=True,
      leave=False,
    ) as bar:
      for epoch in range(first, self.epochs):
        bar.set_description(f'{self.phase} {epoch + 1}/{self.epochs}')
        state = self._epoch(state, record, epoch, done, bar)
        done = 0
        self._finish_epoch(state, record, epoch)
    return state

  def _epoch(
    self, state: State, record: Record, epoch: int, done: int, bar: tqdm
  ) -> State:
    late: list[tuple[int, Metrics]] = []  # the call whose metrics are due
    saved, clock = done, time.monotonic()

    def settle() -> None:
      nonlocal clock
      while late:
        self._report(record, epoch, *late.pop(), bar)
      record.seconds += time.monotonic() - clock
      clock = time.monotonic()

    for call in self.feed.calls(epoch, done):
      state, metrics = call.run(state)
      settle()
      late.append((done, metrics))
      done += call.steps
      record.images += call.steps * call.batch_size
      due = 0 < self.every_steps <= done - saved
      if due and done < self.feed.steps_per_epoch:
        settle()
        self._save(state, record)
        saved, clock = done, time.monotonic()
    settle()
    return state

  def _report(
    self, record: Record, epoch: int, done: int, metrics: Metrics, bar: tqdm
  ) -> None:
    """Adds one call's metrics to the epoch's sums; stops on a lost loss."""
    values = {k: np.asarray(v, np.float64) for k, v in metrics.items()}
    bad = np.flatnonzero(~np.isfinite(values['loss']))
    if bad.size:
      self._diverged(epoch, done + int(bad[0]), 'the training loss')
    for name, value in values.items():
      record.sums[name] = record.sums.get(name, 0.0) + float(value.sum())
    steps = len(values['loss'])
    record.steps += steps
    bar.update(steps)
    top1 = values[f'top1/{self.program.graph.trained[-1]}'][-1]
    bar.set_postfix_str(
      f'loss {values["loss"][-1]:.3f}, train top-1 {100 * top1:.0f} %,'
      f' {record.images_per_second:.0f} images/s',
      refresh=False,
    )

  def _finish_epoch(self, state: State, record: Record, epoch: int) -> None:
    """Evaluates what has been trained, logs, shows a line, and saves."""
    means = {f'train/{k}': v / record.steps for k, v in record.sums.items()}
    record.sums, record.steps = {}, 0
    variables = variables_of(self.program, state)
    averages = averages_of(self.program, state)
    for name in self.program.graph.trained:
      self._evaluate(record, epoch, name, name, variables[name])
    for name, average in averages.items():
      self._evaluate(record, epoch, f'{name}_ema', name, average)
    tests = {
      f'test/{name}/{k}': v
      for name, result in record.last.items()
      for k, v in result.items()
    }
    self.log.write(
      epoch + 1,
      int(state.step),
      {**means, **tests, 'images_per_second': record.images_per_second},
    )
    shown = ', '.join(
      f'{name} {100 * result["top1"]:.2f} %'
      for name, result in record.last.items()
    )
    tqdm.write(
      f'{self.phase} {epoch + 1}/{self.epochs}: loss'
      f' {means["train/loss"]:.4f}, test top-1 {shown},'
      f' {record.images_per_second:.0f} images/s'
    )
    self._save(state, record)

  def _save(self, state: State, record: Record) -> None:
    now = time.monotonic()
    record.wall += now - self._mark
    self._mark = now
    self.checkpoints.save(state, dataclasses.asdict(record))

  def _evaluate(
    self,
    record: Record,
    epoch: int,
    label: str,
    name: str,
    variables: Variables,
  ) -> None:
    result = self.test(self.program.modules[name], variables)
    if not math.isfinite(result['nll']):
      steps = (epoch + 1) * self.feed.steps_per_epoch
      self._diverged(epoch, steps, f'the test loss of {label}')
    record.last[label] = result
    record.best[label] = max(record.best.get(label, 0.0), result['top1'])

  def _diverged(self, epoch: int, step: int, what: str) -> None:
    latest = self.checkpoints.latest()
    kept = (
      'nothing had been saved yet'
      if latest is None
      else (f'the save after step {latest} is intact')
    )
    raise DivergedError(
      f'{what} is not a finite number at step {step} (epoch {epoch + 1} of'
      f' {self.epochs}, phase {self.phase}); {kept}. Try a lower'
      f' --config.optimizer.learning_rate or --config.optimizer.clip_norm,'
      f' or --config.schedule.warmup_epochs=1, in a new workdir'
    )
