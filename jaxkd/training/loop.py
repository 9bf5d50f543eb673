"""The loop around the step: epochs, evaluation, saves, and progress lines.

Metrics are fetched one call late, so that the device never waits for Python.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from jaxkd.graph.program import Program
from jaxkd.problems import Problem
from jaxkd.text import percent
from jaxkd.training.checkpoint import Checkpoints
from jaxkd.training.divergence import DivergedError, advice
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.feed import Feed
from jaxkd.training.log import Log
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
        finished = self._finish_epoch(state, record, epoch)
        # All of them are called, also after one that ends the phase.
        if any([callback(finished) is True for callback in self.callbacks]):
          record.stopped = epoch + 1
          break
    return state

  def _epoch(
    self, state: State, record: Record, epoch: int, done: int, bar: tqdm
  ) -> State:
    """Trains for an epoch, of which some steps may be done already."""
    pending: list[tuple[int, Metrics]] = []  # the last call's, not fetched yet
    saved, clock = done, time.monotonic()

    def fetch() -> None:
      nonlocal clock
      while pending:
        self._report(record, epoch, *pending.pop(), bar)
      record.seconds += time.monotonic() - clock
      clock = time.monotonic()

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

  def _report(
    self, record: Record, epoch: int, done: int, metrics: Metrics, bar: tqdm
  ) -> None:
    """Adds one call's metrics to the epoch's sums; raises DivergedError."""
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
    steps = len(values['loss'])
    record.steps += steps
    bar.update(steps)
    headline = self.problem.headline
    display = self.problem.displays[headline]
    last = values[f'{headline}/{self.program.graph.trained[-1]}'][-1]
    bar.set_postfix_str(
      f'loss {values["loss"][-1]:.3f}, train {display.label}'
      f' {display.show(last)}, {record.images_per_second:.0f} images/s',
      refresh=False,
    )

  def _finish_epoch(self, state: State, record: Record, epoch: int) -> Epoch:
    """Evaluates the trained networks, logs, prints a line, and saves."""
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
    speed = {'images_per_second': record.images_per_second}
    metrics = {**means, **tests, **speed}
    self.log.write(epoch + 1, int(state.step), metrics)
    label = self.problem.displays[self.problem.headline].label
    shown = ', '.join(
      f'{name} {self.problem.show_headline(result)}'
      for name, result in record.last.items()
    )
    tqdm.write(
      f'{self.phase} {epoch + 1}/{self.epochs}: loss'
      f' {means["train/loss"]:.4f}, test {label} {shown},'
      f' {record.images_per_second:.0f} images/s{self._cached()}'
    )
    self._save(state, record)
    return Epoch(self.phase, epoch + 1, self.epochs, metrics)

  def _cached(self) -> str:
    """Returns which part of guides' outputs came from view caches, as text."""
    shares = {n: guide.share for n, guide in self.feed.guides.items()}
    return ''.join(
      f', {percent(share)} of {name} cached'
      for name, share in shares.items()
      if share is not None
    )

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
