"""What a run shows while it trains: a bar, lines, and the time that is left.

The bar is for people who watch: on a terminal, or in a notebook that has
ipywidgets. The lines, one for each epoch, are for everyone: they have no
control characters, and a log file has nothing else.
"""

import dataclasses
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tqdm import TqdmWarning
from tqdm.notebook import tqdm_notebook

from jaxkd import text

with warnings.catch_warnings():
  # Without ipywidgets, a notebook has the lines alone, which is no mistake.
  warnings.simplefilter('ignore', TqdmWarning)
  from tqdm.auto import tqdm

# The time left comes from `Forecast`: tqdm's would be that of the phase.
BAR = '{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}'


def say(line: str) -> None:
  """Prints a line above the bar, at once, also into a file or a pipe."""
  tqdm.write(line)
  sys.stdout.flush()


def bar(total: int, done: int) -> tqdm:
  """Returns the bar of a phase; it is not shown where nobody would see it.

  Args:
    total: steps of the phase.
    done: steps that are done already.
  """
  notebook = issubclass(tqdm, tqdm_notebook)
  seen = notebook or sys.stderr.isatty()
  return tqdm(
    total=total,
    initial=done,
    unit='step',
    disable=bool(os.environ.get('TQDM_DISABLE')) or not seen,
    dynamic_ncols=True,
    leave=False,
    bar_format=BAR,
  )


def joined(parts: Iterable[str]) -> str:
  """Returns the parts of a line that are not empty, with commas."""
  return ', '.join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Part:
  """A phase that a run trains.

  name: of the phase.
  epochs: to train; 0: it is done.
  steps: of an epoch.
  cost: of an epoch's steps, in any unit that all parts share, such as FLOPs.
  test_cost: of the evaluation after an epoch, likewise.
  """

  name: str
  epochs: int
  steps: int
  cost: float = 1.0
  test_cost: float = 1.0


@dataclasses.dataclass
class _Measured:
  """What has been measured of a part, in this process.

  start: seconds from its beginning to its first step: compilation above all.
  steps, seconds: of training.
  tests: seconds of each epoch's evaluation, log and save. The first one is
    longer, since it compiles, too.
  """

  start: float = 0.0
  steps: int = 0
  seconds: float = 0.0
  tests: list[float] = dataclasses.field(default_factory=list)


class Forecast:
  """Estimates the time that is left of a run.

  A part that has begun is judged by its own steps and evaluations, one that has
  not by those of the others, in proportion to its cost.

  Args:
    parts: the phases that the run trains, in their order.
    later: seconds of the whole run, as estimated -> those of the runs of its
      study that come after it; None: it is no part of a study.
  """

  def __init__(
    self,
    parts: Sequence[Part],
    later: Callable[[float], float] | None = None,
  ):
    self._parts, self._later = list(parts), later
    self._measured = [_Measured() for _ in parts]
    self._at, self._steps, self._tests = 0, 0, 0  # of them, to be done
    self._began = time.monotonic()

  def begin(self, name: str, done: int) -> None:
    """Begins a part; those before it are over.

    Args:
      name: of its phase.
      done: steps that an earlier process has done.
    """
    self._at = [part.name for part in self._parts].index(name)
    part = self._parts[self._at]
    self._steps = part.epochs * part.steps - done
    self._tests = part.epochs - done // part.steps

  def started(self, seconds: float) -> None:
    """Adds time before the part's first step, such as compilation."""
    self._measured[self._at].start += seconds

  def trained(self, steps: int, seconds: float) -> None:
    """Adds steps of the part."""
    own = self._measured[self._at]
    own.steps, own.seconds = own.steps + steps, own.seconds + seconds
    self._steps -= steps

  def tested(self, seconds: float) -> None:
    """Adds an evaluation, with whatever else follows an epoch."""
    self._measured[self._at].tests.append(seconds)
    self._tests -= 1

  def left(self) -> float | None:
    """Returns the seconds that are left of the run; None if unknown."""
    pairs = list(zip(self._parts, self._measured, strict=True))
    seen = [(part, own) for part, own in pairs if own.steps]
    if not seen:
      return None
    costs = [part.cost * own.steps / part.steps for part, own in seen]
    rate = sum(own.seconds for _, own in seen) / sum(costs)
    start = _mean([own.start for _, own in seen])
    first = _mean(
      [
        max(0.0, own.tests[0] - self._test(part, own, rate))
        for part, own in seen
        if own.tests
      ]
    )
    seconds = 0.0
    for n, (part, own) in enumerate(pairs[self._at :]):
      steps, tests = part.epochs * part.steps, part.epochs
      if n == 0:
        steps, tests = self._steps, self._tests
      step = rate * part.cost / part.steps
      step = own.seconds / own.steps if own.steps else step
      seconds += steps * step + tests * self._test(part, own, rate)
      if part.epochs:
        seconds += (0.0 if own.start else start) + (0.0 if own.tests else first)
    return max(0.0, seconds)

  def __str__(self) -> str:
    """The time left as text, such as '2 h 14 min left'; '' if unknown."""
    left = self.left()
    if left is None:
      return ''
    later = 0.0
    if self._later:
      later = self._later(time.monotonic() - self._began + left)
    if left + later < 0.5:  # at the end
      return ''
    shown = f'{text.duration(left)} left'
    whole = text.duration(left + later)
    return f'{shown} ({whole} of the study)' if later else shown

  def _test(self, part: Part, own: _Measured, rate: float) -> float:
    """Returns how long an evaluation of a part takes, after the first one.

    Args:
      part: whose it is.
      own: what has been measured of it.
      rate: seconds of training for a unit of cost.
    """
    if own.tests[1:]:
      return sum(own.tests[1:]) / len(own.tests[1:])
    later = [
      (each.test_cost, x.tests[1:])
      for each, x in zip(self._parts, self._measured, strict=True)
      if x.tests[1:]
    ]
    if later:
      cost = sum(each * len(tests) for each, tests in later)
      rate = sum(sum(tests) for _, tests in later) / cost
    return min([rate * part.test_cost, *own.tests])


def _mean(values: Sequence[float]) -> float:
  return sum(values) / len(values) if values else 0.0


class Runs:
  """The time of a study's runs, judged by those that this process has trained.

  Args:
    number: of the runs that are not finished.
  """

  def __init__(self, number: int):
    self._left, self._seconds = number, []

  def timed(self, run: Callable[[], Any]) -> Any:
    """Returns the result of one of the runs, whose time is taken."""
    self._left -= 1
    began = time.monotonic()
    result = run()
    self._seconds.append(time.monotonic() - began)
    return result

  def later(self, seconds: float) -> float:
    """Returns the seconds of the runs to come; see `Forecast`."""
    known = [*self._seconds, seconds]
    return self._left * sum(known) / len(known)
