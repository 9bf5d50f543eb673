"""The loop around the step: epochs, evaluation, saves, and progress lines.

Metrics are fetched one call late, so that the device never waits for Python.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optax

from jaxkd.graph.program import Program
from jaxkd.problems import Problem
from jaxkd.training import progress
from jaxkd.training.checkpoint import Checkpoints
from jaxkd.training.divergence import DivergedError, advice
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.feed import Feed
from jaxkd.training.gap import gaps
from jaxkd.training.log import Log
from jaxkd.training.progress import Forecast
from jaxkd.training.state import State, averages_of, variables_of
from jaxkd.types import Metrics, Variables


@dataclasses.dataclass(frozen=True)
class Epoch:
  """A finished epoch, as callbacks see it.

  phase: its name.
  epoch: epochs done in this phase, from 1.
  epochs: of the phase.
  metrics: by name, as in metrics.jsonl: 'train/loss', 'test/student/top1', ...
  """

  phase: str
  epoch: int
  epochs: int
  metrics: Mapping[str, float]


# Called after each epoch; returning True ends the phase.
Callback = Callable[[Epoch], bool | None]


@dataclasses.dataclass
class Record:
  """What the loop remembers besides the state; saved with it, as JSON.

  best: network -> its best headline on the test split so far.
  last: network -> its metrics in the last evaluation.
  sums: metric -> sum over this epoch's steps so far.
  seconds: of training steps, without compilation and evaluation.
  images: trained on during these seconds.
  steps: of this epoch that `sums` are over.
  wall: seconds since the phase began, everything included but interruptions.
  stopped: the epochs after which a callback ended the phase; 0: none did.
  """

  best: dict[str, float] = dataclasses.field(default_factory=dict)
  last: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
  sums: dict[str, float] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0
  images: int = 0
  steps: int = 0
  wall: float = 0.0
  stopped: int = 0

  @property
  def images_per_second(self) -> float:
    """Training throughput so far."""
    return self.images / self.seconds if self.seconds else 0.0


@dataclasses.dataclass
class Loop:
  """Trains one phase to its end, from its start or from its last save.

  phase: its name.
  program: the graph with its modules.
  problem: which metrics are shown, compared, and must be finite.
  feed: training batches for the step.
  test: evaluates networks on the test split, after every epoch.
  epochs: to train in all.
  checkpoints: where the state is kept.
  log: where metrics go.
  forecast: of the time that is left of the run.
  rates: the learning rate at a step, by the owner whose it is; '': of all.
  every_steps: saves inside an epoch; 0 saves after each epoch only.
  callbacks: called after each epoch.
  undefined: () -> the frozen networks whose outputs are NaN for some training
    image; called where a loss is not finite.
  """

  phase: str
  program: Program
  problem: Problem
  feed: Feed
  test: Evaluator
  epochs: int
  checkpoints: Checkpoints
  log: Log
  forecast: Forecast
  rates: Mapping[str, optax.Schedule] = dataclasses.field(default_factory=dict)
  every_steps: int = 0
  callbacks: Sequence[Callback] = ()
  undefined: Callable[[], list[str]] = list

  def __post_init__(self):
    self._mark = time.monotonic()

  def run(self, state: State, record: Record) -> State:
    """Trains to the end, or until a callback returns True.

    Args:
      state: donated.
      record: kept up to date.

    Raises:
      DivergedError: a loss is NaN or infinite; earlier saves are left intact.
    """
    self.feed.compile(state)
    steps = self.feed.steps_per_epoch
    first, done = divmod(int(state.step), steps)
    self.forecast.begin(self.phase, int(state.step))
    self.forecast.started(time.monotonic() - self._mark)
    with progress.bar(self.epochs * steps, int(state.step)) as bar:
      for epoch in range(first, self.epochs):
        bar.set_description(f'{self.phase} {epoch + 1}/{self.epochs}')
        state = self._epoch(state, record, epoch, done, bar)
        done = 0
        finished = self._finish_epoch(state, record, epoch)
        # All of them are called, also after one that ends the phase.
        if any([callback(finished) is True for callback in self.callbacks]):
          record.stopped = epoch + 1
          break
    return state

  def _epoch(
    self,
    state: State,
    record: Record,
    epoch: int,
    done: int,
    bar: progress.tqdm,
  ) -> State:
    """Trains for an epoch, of which some steps may be done already."""
    pending: list[tuple[int, Metrics]] = []  # the last call's, not fetched yet
    saved, clock = done, time.monotonic()

    def fetch() -> None:
      nonlocal clock
      values = {}
      while pending:
        values = self._add(record, epoch, *pending.pop())
      now = time.monotonic()
      record.seconds += now - clock
      self.forecast.trained(len(values.get('loss', ())), now - clock)
      clock = now
      if values and not bar.disable:
        self._show(record, values, bar)

    for call in self.feed.calls(epoch, done):
      state, metrics = call.run(state)
      fetch()
      pending.append((done, metrics))
      done += call.steps
      record.images += call.steps * call.batch_size
      due = 0 < self.every_steps <= done - saved
      if due and done < self.feed.steps_per_epoch:
        fetch()
        self._save(state, record)
        saved, clock = done, time.monotonic()
    fetch()
    return state

  def _add(
    self, record: Record, epoch: int, done: int, metrics: Metrics
  ) -> dict[str, np.ndarray]:
    """Adds one call's metrics to the epoch's sums, and returns them.

    Raises:
      DivergedError: a loss is NaN or infinite.
    """
    values = {k: np.asarray(v, np.float64) for k, v in metrics.items()}
    for step in np.flatnonzero(~np.isfinite(values['loss'])):
      transfers = [
        name.removeprefix('loss/')
        for name, value in values.items()
        if name.startswith('loss/') and not np.isfinite(value[step])
      ]
      loss = values['loss'][step]
      self._diverged(epoch, done + int(step), 'training loss', loss, transfers)
    for name, value in values.items():
      record.sums[name] = record.sums.get(name, 0.0) + float(value.sum())
    record.steps += len(values['loss'])
    return values

  def _show(
    self, record: Record, values: Mapping[str, np.ndarray], bar: progress.tqdm
  ) -> None:
    """Moves the bar by one call, and shows its last step's metrics."""
    headline = self.problem.headline
    display = self.problem.displays[headline]
    last = values[f'{headline}/{self.program.graph.result}'][-1]
    parts = [
      f'loss {values["loss"][-1]:.3f}',
      f'train {display.label} {display.show(last)}',
      *self._speed(record),
    ]
    bar.set_postfix_str(progress.joined(parts), refresh=False)
    bar.update(len(values['loss']))

  def _speed(self, record: Record) -> list[str]:
    """Returns the parts of a line about throughput and time."""
    speed = f'{record.images_per_second:.0f} images/s'
    return [speed, *self.feed.notes(), str(self.forecast)]

  def _finish_epoch(self, state: State, record: Record, epoch: int) -> Epoch:
    """Evaluates the trained networks, logs, saves, and prints a line."""
    began = time.monotonic()
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
    metrics = {
      **means,
      **tests,
      **gaps(self.program.graph, record.last, self.problem.headline),
      **self._rates(int(state.step)),
      'images_per_second': record.images_per_second,
    }
    self.log.write(epoch + 1, int(state.step), metrics)
    self._save(state, record)
    self.forecast.tested(time.monotonic() - began)
    label = self.problem.displays[self.problem.headline].label
    shown = ', '.join(
      f'{name} {self.problem.show_headline(result)}'
      for name, result in record.last.items()
    )
    parts = [
      f'loss {means["train/loss"]:.4f}',
      f'test {label} {shown}',
      *self._speed(record),
    ]
    line = progress.joined(parts)
    progress.say(f'{self.phase} {epoch + 1}/{self.epochs}: {line}')
    return Epoch(self.phase, epoch + 1, self.epochs, metrics)

  def _rates(self, steps: int) -> dict[str, float]:
    """Returns the learning rates of the last one of so many steps."""
    rates: dict[str, Any] = {
      f'learning_rate/{owner}' if owner else 'learning_rate': rate(steps - 1)
      for owner, rate in self.rates.items()
    }
    return {name: float(rate) for name, rate in rates.items()}

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
    """Evaluates variables of network `name`, which are recorded as `label`."""
    result = self.test(self.program.modules[name], variables)
    for metric in self.problem.finite:
      if not math.isfinite(result[metric]):
        what = f'{self.problem.displays[metric].label} of {label} on the test'
        steps = (epoch + 1) * self.feed.steps_per_epoch
        self._diverged(epoch, steps, f'{what} split', result[metric])
    record.last[label] = result
    best, new = record.best.get(label, 0.0), result[self.problem.headline]
    record.best[label] = max(best, new)

  def _diverged(
    self,
    epoch: int,
    step: int,
    what: str,
    value: float,
    transfers: Sequence[str] = (),
  ) -> None:
    """Raises DivergedError.

    Args:
      epoch: counted from 0.
      step: of this epoch, likewise.
      what: is not finite.
      value: of it.
      transfers: those whose loss is not finite.
    """
    latest = self.checkpoints.latest()
    saved = (
      'nothing was saved before'
      if latest is None
      else f'the state saved after step {latest} is intact'
    )
    help = advice(
      self.program,
      first=epoch == step == 0,
      transfers=list(transfers),
      guides=self.undefined(),
    )
    raise DivergedError(
      f'the {what} is {"NaN" if math.isnan(value) else "infinite"} at step'
      f' {step} (epoch {epoch + 1} of {self.epochs}, phase {self.phase});'
      f' {saved}. {help}'
    )
