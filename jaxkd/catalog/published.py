"""Published accuracies of teacher-student pairs, from published.json.

The file has top-1 accuracies as their sources print them: two READMEs and a
paper on CIFAR-100, and some figures on ImageNet and Tiny-ImageNet. Networks are
named as in `jaxkd.models`; methods have their printed names, and the file says
which method of jaxkd each of them is.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

FILE = 'published.json'
# The default objectives of methods.
OBJECTIVES = {'distil': 'kd', 'pretrained': 'ab', 'slkd': 'kd'}
TEACHER, PLAIN = 'teacher', 'plain'  # the networks alone, in place of a method


class Source(NamedTuple):
  """Where figures are printed.

  title: of the publication, and the place in it.
  url: of the publication.
  commit: of a repository; '' for a paper.
  protocol: which epoch is reported, as far as it is stated.
  """

  title: str
  url: str
  commit: str
  protocol: str

  def __str__(self) -> str:
    version = f' at {self.commit}' if self.commit else ''
    return f'{self.title}, {self.url}{version}'


class Figure(NamedTuple):
  """A published accuracy.

  top1: in per cent.
  method: its printed name, `TEACHER` or `PLAIN`.
  data: name of the data set.
  teacher: name of the model.
  student: likewise.
  epochs: of the training; None where the source does not state it.
  sources: where it is printed.
  note: a reservation, or ''.
  """

  top1: float
  method: str
  data: str
  teacher: str
  student: str
  epochs: int | None
  sources: tuple[Source, ...]
  note: str


@functools.cache
def read() -> Mapping[str, Any]:
  """Returns the contents of the file."""
  package = importlib.resources.files('jaxkd.catalog')
  return json.loads((package / FILE).read_text(encoding='utf-8'))


@functools.cache
def figures() -> tuple[Figure, ...]:
  """Returns all figures, in the order of the file."""
  contents = read()
  sources = {
    name: Source(**{'commit': '', **source})
    for name, source in contents['sources'].items()
  }
  return tuple(
    Figure(
      top1,
      method,
      row['data'],
      row['teacher'],
      row['student'],
      row['epochs'],
      (sources[row['source']],),
      row.get('note', ''),
    )
    for row in contents['figures']
    for method, top1 in row['top1'].items()
  )


def method_of(settings: Mapping[str, Any]) -> str | None:
  """Returns the printed name of a run's method; None if it has none.

  Args:
    settings: of the run, by name, like 'method.objective.name'. The method's
      weights are not compared.
  """
  name, objective = settings['method.name'], settings.get('method.objective')
  if any(key.startswith('method.objective.') for key in settings):
    objective = settings.get('method.objective.name', '')  # or several
  elif objective is None:
    objective = OBJECTIVES.get(name)
  if any(k.startswith('method.teachers') and x for k, x in settings.items()):
    return None
  if name == 'kd' and objective:  # in addition to plain KD
    return None
  if (name, objective) == ('distil', 'kd'):
    name = 'kd'
  dot = settings.get('optimizer.name') == 'dot'
  for printed, own in read()['methods'].items():
    if own is None or dot != (own.get('optimizer') == 'dot'):
      continue
    wanted = own['method'].get('objective')
    if own['method']['name'] == name and wanted in (None, objective):
      return printed
  return None


def settings_of(method: str) -> Mapping[str, Any]:
  """Returns the published arguments of a method, where they are in the file."""
  return (read()['methods'].get(method) or {}).get('settings', {})


def lookup(method: str, teacher: str, student: str) -> list[Figure]:
  """Returns the figures of a method for a pair, equal ones as one.

  Args:
    method: its printed name. For `TEACHER` the student does not count, and for
      `PLAIN` the teacher does not.
    teacher: name of the model.
    student: likewise.
  """
  unique: dict[tuple[str, float], Figure] = {}
  for each in figures():
    fits = each.method == method
    fits &= method == PLAIN or each.teacher == teacher
    fits &= method == TEACHER or each.student == student
    if fits:
      first = unique.setdefault((each.data, each.top1), each)
      sources = dict.fromkeys((*first.sources, *each.sources))
      unique[each.data, each.top1] = first._replace(sources=tuple(sources))
  return list(unique.values())
