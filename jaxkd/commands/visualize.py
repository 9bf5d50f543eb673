"""Pictures of finished students: features, and correlations of classes.

Two students side by side, typically of one method and another, as in the
appendix of https://arxiv.org/abs/2304.11923 (SLKD).
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from jaxkd import disk, plots, problems, text
from jaxkd.checkpoints import Card, SavedNetwork
from jaxkd.data.base import Dataset
from jaxkd.runs import artifacts, layout
from jaxkd.training.evaluation import Evaluator, Examples

EXAMPLES = 2000  # test images: t-SNE of so many takes seconds
FEATURES = 'pooled'  # the tap that the classifier reads
NEAREST = f'{plots.NEIGHBOURS}-NN'
SAME = {'data': 'data set', 'class_names': 'classes'}


class Student(NamedTuple):
  """A network to be drawn.

  run: its folder, or an exported file.
  network: variables and card.
  teacher: the network that guided its run; None without one.
  """

  run: pathlib.Path
  network: SavedNetwork
  teacher: SavedNetwork | None

  @property
  def card(self) -> Card:
    """The card of the network."""
    return self.network.card

  @property
  def run_name(self) -> str:
    """The last part of its folder; of a run in a study, RECIPE/SEED."""
    *_, recipe, last = ('', *self.run.resolve().parts)
    return f'{recipe}/{last}' if re.fullmatch(r'seed\d+', last) else last

  @property
  def name(self) -> str:
    """RUN/NETWORK."""
    return f'{self.run_name}/{self.card.name}'


@dataclasses.dataclass(frozen=True)
class Portrait:
  """The content of a student's pictures.

  name, model, teacher: display names.
  top1: of the whole test split, from its card; a fraction, None if unknown.
  labels: int [N], of the first test images.
  neighbours: `plots.neighbour_accuracy` of its features; a fraction.
  points: [N, 2], features embedded by t-SNE.
  difference: [K, K], of its correlations from its teacher's.
  """

  name: str
  model: str
  teacher: str
  top1: float | None
  labels: np.ndarray
  neighbours: float
  points: np.ndarray
  difference: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pictures:
  """The result of `draw`.

  students: the content of each one's pictures.
  tsne, correlation: paths of the pictures.
  """

  students: tuple[Portrait, ...]
  tsne: pathlib.Path
  correlation: pathlib.Path

  def __str__(self) -> str:
    head = ('student', 'model', 'test top-1', NEAREST, 'teacher', 'difference')
    rows = [
      (
        student.name,
        student.model,
        text.percent(student.top1),
        text.percent(student.neighbours),
        student.teacher,
        f'{plots.mean_difference(student.difference):.4f}',
      )
      for student in self.students
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
    first: a run, whose student (or else teacher) is drawn; a network of a run,
      RUN/networks/NAME; or an exported file.
    second: likewise, drawn beside it; None for one panel.
    output: the folder of tsne.png and correlation.png, made if need be.
    examples: N, the first test images; all if there are fewer.
    config: see `artifacts.data_settings`.

  Raises:
    FileNotFoundError: there is no such run or network.
    ValueError: the second is not of the same data; neither has a teacher; too
      few test images; a network has diverged; images with several labels.
  """
  disk.check_writable(output, 'the folder of the pictures')
  students = [_read(place) for place in (first, second) if place is not None]
  _check_data(students)
  teachers = [_teacher(student, students) for student in students]
  datasets = [_data_of(student, config) for student in students]
  problem = problems.of(datasets[0])
  if problem.sigmoid:
    raise ValueError(
      f'{students[0].name} is of the problem {problem.name!r}, whose'
      ' images have several labels each, and pictures show one class for each'
      ' image: there are none for such data'
    )
  first_labels, *others = (dataset.test.label for dataset in datasets)
  if any(not np.array_equal(first_labels, labels) for labels in others):
    raise ValueError(
      f'{students[0].name} and {students[-1].name} have different test images'
      ' of one data set: compare runs with equal settings of the data, such as'
      ' data.validation'
    )
  output.mkdir(parents=True, exist_ok=True)
  portraits = [
    _portray(student, *each, dataset, examples)
    for student, each, dataset in zip(students, teachers, datasets, strict=True)
  ]
  return _save(portraits, students[0].card, output)


def _read(place: pathlib.Path) -> Student:
  """Reads a network and the teacher of its run."""
  run, name = place, ''
  if place.parent.name == layout.NETWORKS:
    run, name = place.parents[1], place.name
  network = artifacts.load_network(run, name)
  return Student(run, network, artifacts.first_guide(run, network.card))


def _check_data(students: Sequence[Student]) -> None:
  """Checks that networks were made for the same data."""
  first, last = students[0], students[-1]
  for key, label in SAME.items():
    one, other = getattr(first.card, key), getattr(last.card, key)
    if one != other:
      raise ValueError(
        f'{first.name} has the {label} {_short(one)}, {last.name} has'
        f' {_short(other)}: only networks of the same data can be compared'
      )


def _short(value: Any) -> str:
  """Returns a value for a message, and of a long tuple the beginning."""
  if isinstance(value, tuple) and len(value) > 3:
    return f'{len(value)}: {", ".join(map(str, value[:3]))}, ...'
  return str(list(value) if isinstance(value, tuple) else value)


def _teacher(
  student: Student, students: Sequence[Student]
) -> tuple[Student, str]:
  """Returns whose teacher a student is compared with, and this one's model.

  A student without a teacher, as in plain training, is compared with the other
  one's.
  """
  for other in (student, *students):
    if other.teacher is not None:
      of = '' if other is student else f' of {other.run_name}'
      return other, other.teacher.card.model_name + of
  names = ' and '.join(x.name for x in students)
  raise ValueError(
    f'no teacher in the run of {names}, and correlations are compared with a'
    " teacher's: name a run that has one by --against"
  )


def _data_of(student: Student, config: ConfigDict | None) -> Dataset:
  """Reads the data that a student is tested on."""
  settings = artifacts.data_settings(student.run, student.card, config)
  return artifacts.load_data(settings)


def _portray(
  student: Student,
  taught: Student,
  teacher_name: str,
  dataset: Dataset,
  examples: int,
) -> Portrait:
  """Returns the features and correlations of the first test images.

  Args:
    student: the student.
    taught: the student that has the teacher.
    teacher_name: display name of the teacher.
    dataset: whose test images they are.
    examples: N.
  """
  test, teacher = artifacts.evaluator(dataset), taught.teacher
  assert teacher is not None, 'a student was chosen that has a teacher'
  model = artifacts.settings_of_guide(taught.run, teacher.card.name)
  modules = (
    artifacts.connected(student.card, dataset),
    artifacts.connected(teacher.card, dataset, model),
  )
  own, its = (
    _outputs(test, module, network, examples, name)
    for module, network, name in (
      (modules[0], student.network, student.name),
      (modules[1], teacher, f'teacher {teacher_name}'),
    )
  )
  features = own.taps[FEATURES]
  return Portrait(
    name=student.name,
    model=student.card.model_name,
    teacher=teacher_name,
    top1=student.card.results.get('top1'),
    labels=own.labels,
    neighbours=plots.neighbour_accuracy(features, own.labels),
    # The authors of t-SNE: N - 1 should be three times the perplexity or more.
    points=plots.embed(
      features, perplexity=min(plots.PERPLEXITY, (len(features) - 1) / 3)
    ),
    difference=plots.correlation_difference(own.logits, its.logits),
  )


def _outputs(
  test: Evaluator,
  module: nn.Module,
  network: SavedNetwork,
  examples: int,
  name: str,
) -> Examples:
  """Returns a network's outputs on the first test images.

  Raises:
    ValueError: they are not finite.
  """
  variables = network.module_variables(f'network {name}')
  outputs = test.outputs(module, variables, examples, taps=(FEATURES,))
  for array in (outputs.logits, outputs.taps[FEATURES]):
    if not np.isfinite(array).all():
      raise ValueError(
        f'outputs of {name} on {len(array):,} test images are NaN or infinite:'
        ' its training has diverged'
      )
  return outputs


def _save(
  portraits: Sequence[Portrait], card: Card, output: pathlib.Path
) -> Pictures:
  """Draws both pictures."""
  images = f'{len(portraits[0].labels):,} test images of {card.data}'
  features = [
    (
      f'{x.name}: {x.model}\n'
      f'test top-1 {text.percent(x.top1)},'
      f' {NEAREST} {text.percent(x.neighbours)}',
      x.points,
    )
    for x in portraits
  ]
  relations = [
    (f'{x.name}: {x.model}\nteacher: {x.teacher}', x.difference)
    for x in portraits
  ]
  tsne = plots.scatter(
    features,
    portraits[0].labels,
    card.class_names,
    output / 'tsne.png',
    title=f't-SNE of features: {images}',
  )
  correlation = plots.heat_maps(
    relations, output / 'correlation.png', title=f'Class correlations: {images}'
  )
  return Pictures(tuple(portraits), tsne, correlation)


def run(
  first: pathlib.Path,
  second: pathlib.Path | None,
  output: pathlib.Path | None,
  config: ConfigDict | None = None,
) -> str:
  """Draws one student or two, see `draw`, and returns the report.

  Args:
    first: a run, a network of a run, or an exported file.
    second: likewise, or None.
    output: the folder of the pictures; None takes the first run's.
    config: see `artifacts.data_settings`.
  """
  return str(draw(first, second, output or first, config=config))
