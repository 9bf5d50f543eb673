"""A grid of settings and seeds: a study, each run of which is a process.

The folder is that of a study, so that `jaxkd train` and `jaxkd compare` read
it. What is finished is left as it is; the same command runs the rest.
"""

import ast
import contextlib
import dataclasses
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from jaxkd import config as configs
from jaxkd import reports
from jaxkd.commands import config_files, grid, run_commands
from jaxkd.commands.launchers import Launcher, Processes, Submitit
from jaxkd.commands.schedule import Job, Outcome, Schedule, leaders
from jaxkd.disk import write_json
from jaxkd.problems import CATALOG
from jaxkd.reports.comparison import Comparison, compare
from jaxkd.runs import folder, layout
from jaxkd.runs.members import Member
from jaxkd.runs.study import Study
from jaxkd.training.progress import say

PAGE = 'comparison.html'
LAUNCHERS = ('process', 'slurm', 'local')


@dataclasses.dataclass(frozen=True)
class Options:
  """How a sweep is run.

  jobs: runs at a time; 0 is one, or all that there are for Slurm.
  launcher: one of `LAUNCHERS`.
  parameters: KEY=VALUE of a job, for submitit.
  print_only: whether the commands are printed, and nothing is run.
  """

  jobs: int = 0
  launcher: str = 'process'
  parameters: Sequence[str] = ()
  print_only: bool = False


def run(
  name: str,
  settings: Sequence[str],
  workdir: pathlib.Path,
  *,
  over: Sequence[str] = (),
  seeds: str = '',
  options: Options | None = None,
) -> int:
  """Runs or resumes a sweep, prints its comparison, and returns the status.

  Args:
    name: of the config, with its argument.
    settings: KEY=VALUE of all runs.
    workdir: the folder of the study.
    over: KEY=VALUE,VALUE,... of the grid.
    seeds: a number of seeds or a list; '' takes those of the config.
    options: how it is run.

  Returns:
    0, or 1 if a run has failed.

  Raises:
    ValueError: a mistake in any run's config, before the first is run.
  """
  options = options or Options()
  _on_cpu()
  config = config_files.load(name)
  config_files.change(config, settings)
  config = grid.study(
    config, [grid.axis(x) for x in over], grid.seeds(seeds) if seeds else ()
  )
  study = Study(config, workdir)
  jobs = [
    _job(member, run_commands.words(name, settings, member, config.study.vary))
    for member in study.members
  ]
  if options.print_only:
    _print(jobs)
    return 0
  return _run(study, jobs, options)


def _on_cpu() -> None:
  """Leaves accelerators, which belong to the runs, to them."""
  import jax

  jax.config.update('jax_platforms', 'cpu')


def _job(member: Member, words: tuple[str, ...]) -> Job:
  return Job(
    name=f'{member.recipe}/seed{member.seed}',
    words=words,
    folder=member.folder,
    batch_size=member.config.batch_size,
    prepared=member.prepared,
  )


def _print(jobs: Sequence[Job]) -> None:
  """Prints the commands of the runs that are not finished."""
  missing = [job for job in jobs if not job.finished]
  first = leaders(missing)
  ordered = [*first, *(job for job in missing if job not in first)]
  for job in ordered:
    print(shlex.join([*_program(), *job.words]))
  if len(missing) < len(jobs):
    done = len(jobs) - len(missing)
    print(f'{done} of {len(jobs)} runs are finished.', file=sys.stderr)
  if first and len(ordered) > len(first):
    several = len(first) > 1
    which = f'first {len(first)} commands train' if several else 'first trains'
    print(
      f'The {which} what later ones take from the cache: run'
      f' {"them" if several else "it"} before the others.',
      file=sys.stderr,
    )


def _program() -> list[str]:
  """Returns how this command was called, for other commands."""
  if pathlib.Path(sys.argv[0]).name == 'jaxkd':
    return ['jaxkd']
  return [sys.executable, '-m', 'jaxkd.cli']


def _run(study: Study, jobs: Sequence[Job], options: Options) -> int:
  missing = [job for job in jobs if not job.finished]
  failures: dict[pathlib.Path, str] = {}
  if missing:
    with study.begun():
      launcher, places = _launcher(options, study.workdir, len(missing))
      for member in study.members:
        _claim(member)
      progress = Progress(len(jobs), len(missing))
      Schedule(missing, launcher, places, progress.ended, say).run()
      failures = progress.failures
  if not failures:
    study.finish()
  print()
  print(_conclusion(jobs, failures, study.workdir))
  print(reports.written(study.workdir, failure='\n'.join(failures.values())))
  return 1 if failures else 0


def _launcher(
  options: Options, workdir: pathlib.Path, missing: int
) -> tuple[Launcher, int]:
  """Returns what starts the runs, and how many at a time."""
  if options.jobs < 0:
    raise ValueError(f'--jobs must be at least 1, got {options.jobs}')
  places = options.jobs or (missing if options.launcher == 'slurm' else 1)
  if options.launcher == 'process':
    if options.parameters:
      raise ValueError(
        f'--slurm={options.parameters[0]} is for --launcher=slurm or local'
      )
    return Processes(min(places, missing)), places
  parameters = dict(map(_parameter, options.parameters))
  place = workdir / 'submitit'
  return Submitit(options.launcher, place, parameters), places


def _parameter(text: str) -> tuple[str, Any]:
  """Returns a parameter of submitit, of KEY=VALUE."""
  key, equals, value = text.partition('=')
  if not (key and equals):
    raise ValueError(f'--slurm={text}: write KEY=VALUE, like timeout_min=600')
  with contextlib.suppress(SyntaxError, ValueError):
    return key, ast.literal_eval(value)
  return key, value


def _claim(member: Member) -> None:
  """Writes the config of a run into its folder, as the run itself would.

  A config file that is changed while a sweep runs then makes its later runs
  fail at once, by a message that names the settings, in place of mixing two
  configs in one comparison.
  """
  path = member.folder / layout.CONFIG
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, configs.resolved(member.config))


class Progress:
  """Prints a line for each run that has ended, with the time left.

  failures: why runs failed, by their folders.
  """

  def __init__(self, total: int, missing: int):
    """Starts the clock.

    Args:
      total: number of runs of the sweep.
      missing: of these, those that are to be run.
    """
    self.failures: dict[pathlib.Path, str] = {}
    self._total, self._missing, self._ended = total, missing, 0
    self._start = time.monotonic()
    if missing < total:
      say(f'{total - missing} of {total} runs are finished')

  def ended(self, outcome: Outcome) -> None:
    """Notes a run that has ended."""
    self._ended += 1
    number = self._total - self._missing + self._ended
    job, took = outcome.job, duration(outcome.seconds)
    if outcome.reason:
      self.failures[job.folder] = f'failed: {outcome.reason}'
      text = f'failed after {took}: {outcome.reason}'
    else:
      text = f'{_headline(job)}, {took}'
    say(f'[{number}/{self._total}] {job.name}: {text}{self._left()}')

  def _left(self) -> str:
    left = self._missing - self._ended
    if not left:
      return ''
    each = (time.monotonic() - self._start) / self._ended
    return f' (about {duration(left * each)} left)'


def duration(seconds: float) -> str:
  """Returns a duration as text.

  >>> duration(7.2), duration(125), duration(7260)
  ('7 s', '2 min 5 s', '2 h 1 min')
  """
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes} min'
  return f'{minutes} min {rest} s' if minutes else f'{rest} s'


def _headline(job: Job) -> str:
  """Returns the result of a run in a few words."""
  summary = folder.read_summary(job.folder) or {}
  problem = CATALOG[summary.get('problem', 'classification')]
  networks = summary.get('networks', {})
  name = next((x for x in ('student', 'teacher') if x in networks), '')
  if not name:
    return 'finished'
  label = problem.displays[problem.headline].label
  return f'{name} {label} {problem.show_headline(networks[name])}'


def _conclusion(
  jobs: Sequence[Job], failures: dict[pathlib.Path, str], workdir: pathlib.Path
) -> str:
  """Returns the comparison of the finished runs, and names the others."""
  finished = [job.folder for job in jobs if job.finished]
  lines = [f'  {place}: {why}' for place, why in failures.items()]
  if not finished:
    return '\n'.join(['No run is finished.', *lines, _retry()])
  made = compare(finished)
  comparison = Comparison(made.tables, {**made.left_out, **failures})
  page = workdir / PAGE
  comparison.to_html(page)
  parts = [comparison.table(), f'The same as a page: {page}']
  return '\n\n'.join([*parts, *([_retry()] if failures else [])])


def _retry() -> str:
  return 'The same command runs again what has failed.'
