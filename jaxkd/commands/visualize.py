"""Pictures of what finished students know: features, and relations of classes.

Two students side by side, typically of one method and another, as in the
appendix of https://arxiv.org/abs/2304.11923 (SLKD).
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxkd import plots, text
from jaxkd.checkpoints.card import fitted, module_of
from jaxkd.runs import artifacts, describe
from jaxkd.runs.layout import CONFIG
from jaxkd.runs.pretrained import Network
from jaxkd.train.evaluation import Evaluator, Examples

EXAMPLES = 2000  # test images: t-SNE of so many takes seconds
FEATURES = 'pooled'  # the tap that the classifier reads
NEAREST = f'{plots.NEIGHBOURS}-NN'
SAME = {'data': 'data set', 'class_names': 'classes', 'image_shape': 'images'}


class Student(NamedTuple):
  """A network that is looked at.

  run: its folder, or an exported file.
  network: variables and card.
  teacher: likewise; None if it has had none.
  """

  run: pathlib.Path
  network: Network
  teacher: Network | None

  @property
  def card(self) -> dict[str, Any]:
    """What the network is."""
    return self.network[1]

  @property
  def run_name(self) -> str:
    """The last part of its folder; of a run in a study, RECIPE/SEED."""
    *_, recipe, last = ('', *self.run.resolve().parts)
    return f'{recipe}/{last}' if re.fullmatch(r'seed\d+', last) else last

  @property
  def name(self) -> str:
    """RUN/NETWORK."""
    return f'{self.run_name}/{self.card.get("network", "network")}'


@dataclasses.dataclass(frozen=True)
class Seen:
  """What was seen of a student.

  name, model, teacher: as people call them.
  top1: of the whole test split, from its card; a fraction.
  labels: int [N], of the images that it was shown.
  neighbours: `plots.neighbour_accuracy` of its features; a fraction.
  points: [N, 2], where t-SNE puts them.
  difference: [K, K], of its correlations from its teacher's.
  """

  name: str
  model: str
  teacher: str
  top1: float
  labels: np.ndarray
  neighbours: float
  points: np.ndarray
  difference: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pictures:
  """What `draw` has done.

  students: what was seen of each.
  tsne, correlation: where the pictures are.
  """

  students: tuple[Seen, ...]
  tsne: pathlib.Path
  correlation: pathlib.Path

  def __str__(self) -> str:
    head = ('student', 'model', 'test top-1', NEAREST, 'teacher', 'difference')
    rows = [
      (
        seen.name,
        seen.model,
        text.percent(seen.top1),
        text.percent(seen.neighbours),
        seen.teacher,
        f'{plots.mean_difference(seen.difference):.4f}',
      )
      for seen in self.students
    ]
    images = len(self.students[0].labels)
    return (
      f'{text.table([head, *rows], right=(2, 3, 5))}\n\n'
      f'{NEAREST}: how often the nearest features, of {images:,} test images,'
      ' are of the right class.\ndifference: mean of |student - teacher| over'
      ' the correlations between logits.\n\n'
      f'Features, by t-SNE: {self.tsne}\nCorrelations: {self.correlation}'
    )


def draw(
  first: pathlib.Path,
  second: pathlib.Path | None,
  output: pathlib.Path,
  *,
  examples: int = EXAMPLES,
  config: ConfigDict | None = None,
) -> Pictures:
  """Draws the features and the correlations of one student or of two.

  Args:
    first: a run, whose student (or else teacher) is meant; a network of a run,
      RUN/networks/NAME; or an exported file.
    second: likewise, drawn beside it; None for one panel.
    output: the folder of tsne.png and correlation.png, made if need be.
    examples: N, the first test images; all if there are fewer.
    config: says where the data lie now, see `finished.data_settings`.

  Raises:
    FileNotFoundError: there is no such run or network.
    ValueError: the second is not of the same data; neither has a teacher; too
      few test images; a network has diverged.
  """
  students = [_read(place) for place in (first, second) if place is not None]
  _check_data(students)
  teachers = [_teacher(student, students) for student in students]
  tests = [_test_of(student, config) for student in students]
  first_labels, *others = (test.dataset.test.label for test in tests)
  if any(not np.array_equal(first_labels, labels) for labels in others):
    raise ValueError(
      f'{students[0].name} and {students[-1].name} have other test images of'
      ' one data set: compare runs with equal settings of the data, such as'
      ' data.validation'
    )
  output.mkdir(parents=True, exist_ok=True)
  seen = [
    _look(student, *teacher, test, examples)
    for student, teacher, test in zip(students, teachers, tests, strict=True)
  ]
  return _save(seen, students[0].card, output)


def _read(place: pathlib.Path) -> Student:
  """Reads a network and the teacher that its run has."""
  run, name = place, ''
  if place.parent.name == 'networks':
    run, name = place.parents[1], place.name
  network = artifacts.find(run, name)
  return Student(run, network, _teacher_of(run, network[1]))


def _teacher_of(run: pathlib.Path, card: dict[str, Any]) -> Network | None:
  """Reads the teacher that a run has trained or was given, if there is one."""
  is_run = (run / CONFIG).exists()
  if not is_run or card.get('network') == 'teacher':
    return None
  return artifacts.guide_of(run, 'teacher')


def _check_data(students: Sequence[Student]) -> None:
  """Checks that networks were made for the same data."""
  first, last = students[0], students[-1]
  for key, what in SAME.items():
    ours, its = first.card[key], last.card[key]
    if ours != its:
      raise ValueError(
        f'{first.name} has the {what} {_short(ours)}, {last.name} has'
        f' {_short(its)}: only networks of the same data can be compared'
      )


def _short(value: Any) -> str:
  """Returns a value for a message; of a long list, its length and beginning."""
  if isinstance(value, list) and len(value) > 3:
    return f'{len(value)}: {", ".join(map(str, value[:3]))}, ...'
  return str(value)


def _teacher(
  student: Student, students: Sequence[Student]
) -> tuple[Network, str]:
  """Returns whom a student is compared with, and its model.

  A student without a teacher, as in plain training, is compared with the other
  one's.
  """
  for other in (student, *students):
    if other.teacher is not None:
      of = '' if other is student else f' of {other.run_name}'
      return other.teacher, describe.model_name(other.teacher[1]) + of
  names = ' and '.join(x.name for x in students)
  raise ValueError(
    f'no teacher in the run of {names}, and correlations are compared with a'
    " teacher's: name a run that has one by --against"
  )


def _test_of(student: Student, config: ConfigDict | None) -> Evaluator:
  """Reads the data that a student is tested on."""
  settings = artifacts.data_settings(student.run, student.card, config)
  return artifacts.evaluator(settings, student.card)


def _look(
  student: Student,
  teacher: Network,
  teacher_name: str,
  test: Evaluator,
  examples: int,
) -> Seen:
  """Shows the first test images to a student and to its teacher."""
  card = student.card
  own = _outputs(test, student.network, examples, student.name)
  its = _outputs(test, teacher, examples, f'teacher {teacher_name}')
  features = own.taps[FEATURES]
  return Seen(
    name=student.name,
    model=describe.model_name(card),
    teacher=teacher_name,
    top1=card['top1'],
    labels=own.labels,
    neighbours=plots.neighbour_accuracy(features, own.labels),
    # The authors of t-SNE: N - 1 should be three times the perplexity or more.
    points=plots.embed(
      features, perplexity=min(plots.PERPLEXITY, (len(features) - 1) / 3)
    ),
    difference=plots.correlation_difference(own.logits, its.logits),
  )


def _outputs(
  test: Evaluator, network: Network, examples: int, name: str
) -> Examples:
  """Returns what a network says of the first test images."""
  variables, card = network
  module = module_of(card)
  variables = fitted(variables, card, f'the network {name}')
  outputs = test.outputs(module, variables, examples, taps=(FEATURES,))
  for what in (outputs.logits, outputs.taps[FEATURES]):
    if not np.isfinite(what).all():
      raise ValueError(
        f'{name} says what is not finite of {len(what):,} test images: its'
        ' training has diverged'
      )
  return outputs


def _save(
  seen: Sequence[Seen], card: dict[str, Any], output: pathlib.Path
) -> Pictures:
  """Draws what was seen."""
  images = f'{len(seen[0].labels):,} test images of {card["data"]}'
  features = [
    (
      f'{x.name}: {x.model}\n'
      f'test top-1 {text.percent(x.top1)},'
      f' {NEAREST} {text.percent(x.neighbours)}',
      x.points,
    )
    for x in seen
  ]
  relations = [
    (f'{x.name}: {x.model}\nteacher: {x.teacher}', x.difference) for x in seen
  ]
  tsne = plots.scatter(
    features,
    seen[0].labels,
    card['class_names'],
    output / 'tsne.png',
    title=f't-SNE of features: {images}',
  )
  correlation = plots.heat_maps(
    relations, output / 'correlation.png', title=f'Class correlations: {images}'
  )
  return Pictures(tuple(seen), tsne, correlation)
