"""Published figures beside runs: which apply, and what is different there."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxkd import config as configs
from jaxkd.catalog import published
from jaxkd.catalog.published import PLAIN, TEACHER, Figure

# Of the benchmark's settings, those that a run is compared in, besides its
# optimizer and its schedule.
COMPARED = (
  'batch_size',
  'data.few_shot',
  'data.validation',
  'data.hold_out',
  'data.augment',
  'student.width',
  'student.branches',
)
OF_TEACHER = (
  'teacher.width',
  'teacher.loss',
  'teacher.epochs',
  'teacher.stop',
  'teacher.start',
)


class Beside(NamedTuple):
  """A published figure, and how its training differs from a run's.

  figure: as it is printed.
  differences: in words; empty if there is none in what is compared.
  """

  figure: Figure
  differences: tuple[str, ...]


def beside(metric: str, settings: Mapping[str, Any]) -> tuple[Beside, ...]:
  """Returns the published figures of a recipe.

  Args:
    metric: that is compared, NETWORK/METRIC; only accuracies are published.
    settings: of the recipe, by name.
  """
  network, _, name = metric.partition('/')
  teacher, student = settings.get('teacher.name'), settings.get('student.name')
  methods = {
    'student': published.method_of(settings),
    'teacher': TEACHER,
    'plain_student': PLAIN,
    'kd_student': 'KD',
  }
  method = methods.get(network)
  if name != 'top1' or method is None:
    return ()
  return tuple(
    Beside(figure, _differences(figure, settings))
    for figure in published.lookup(method, teacher or '', student or '')
  )


def _differences(
  figure: Figure, settings: Mapping[str, Any]
) -> tuple[str, ...]:
  """Returns how a figure's training differs from that of a run."""
  lines = []
  data, epochs = settings['data.name'], settings['epochs']
  if not _same_data(figure.data, data):
    lines.append(f'published on {figure.data}, here {data}')
  if figure.epochs is None:
    lines.append('the number of epochs is not stated')
  elif figure.epochs != epochs:
    lines.append(f'published at {figure.epochs} epochs, here {epochs}')
  if figure.data == 'cifar100':
    wanted = _benchmark(figure, settings)
    lines += [
      f'{key} {wanted[key]}, here {settings.get(key)}'
      for key in sorted(wanted)
      if settings.get(key) != wanted[key]
    ]
  return tuple(lines)


def _same_data(published_name: str, name: str) -> bool:
  """Returns whether the data set of a figure is that of a run."""
  if published_name == 'imagenet':
    return bool(re.fullmatch(r'tfds:imagenet2012(:.*)?', name))
  return published_name == name


def _benchmark(figure: Figure, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings of a figure's training, as far as they are compared.

  They are those of the CIFAR-100 benchmark, and the arguments of the method
  where the file of figures has them.
  """
  config = configs.benchmark(f'{figure.teacher},{figure.student}')
  defaults = dict(configs.flat(configs.as_json(config.to_dict())))
  keys = [x for x in defaults if x.startswith(('optimizer.', 'schedule.'))]
  keys.remove('optimizer.name')  # DOT's is its own
  keys += COMPARED
  trained = not (settings['teacher.checkpoint'] or settings['teacher.outputs'])
  if figure.method != PLAIN and trained:
    keys += OF_TEACHER
  if figure.method == TEACHER:
    keys = [key for key in keys if not key.startswith('student.')]
    defaults['optimizer.learning_rate'] = _rate(defaults)
  arguments = published.settings_of(figure.method)
  return {key: defaults[key] for key in keys} | {
    f'method.{key}': value for key, value in arguments.items()
  }


def _rate(settings: Mapping[str, Any]) -> float:
  """Returns the learning rate of a teacher."""
  own = settings['teacher.learning_rate']
  return own or settings['optimizer.learning_rate']
