"""The catalogue as a table, made from the objectives themselves.

An objective is traced between two networks of the CIFAR-100 benchmark, from
shapes alone: its taps are the outputs that its loss depends on, and it adds the
arrays that its `init` returns. Its paper is the head of its module's docstring:

  Title (Authors, venue and year).

  https://address
"""

import functools
import inspect
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxkd import models, objectives, tree
from jaxkd.models import norms
from jaxkd.objectives.base import Objective
from jaxkd.objectives.dependence import depends_on
from jaxkd.types import Outputs, Tree

GUIDE, LEARNER = 'teacher', 'student'
PAIR = {GUIDE: 'resnet32x4', LEARNER: 'resnet8x4'}
CLASSES, IMAGE, EXAMPLES = 100, (32, 32, 3), 50_000  # CIFAR-100
SIZE = 8  # relations need several examples in a batch
BATCH = {
  'label': jax.ShapeDtypeStruct((SIZE,), jnp.int32),
  'index': jax.ShapeDtypeStruct((SIZE,), jnp.int32),
  'mask': jax.ShapeDtypeStruct((SIZE,), jnp.float32),
}
# Names of the batch's arrays in the table, without the mask.
OF_BATCH = {'label': 'labels', 'index': "the examples' numbers"}

NOTHING = '–'
HEAD = ('objective', 'paper', 'taps', 'adds', 'weight')
CAPTION = f"""\
Taps and additions are those for a {PAIR[LEARNER]} with a {PAIR[GUIDE]} as
teacher, on CIFAR-100: parameters, which are learned and discarded after
training, and memory. The weight is the published one on CIFAR-100, beside
cross-entropy with weight 1, or with the weight after "labels"; {NOTHING} where
none is known, or the objective is not used alone. `ab` and `fsp` have a
phase of their own, before the labels.
"""
MARKS = ('<!-- objectives -->\n', '<!-- end of objectives -->\n')


class Paper(NamedTuple):
  """The source of an objective.

  title: of the objective, not of the paper.
  authors: with venue and year.
  address: of the paper.
  """

  title: str
  authors: str
  address: str


def markdown() -> str:
  """Returns the table of `objectives.CATALOG` and its caption."""
  rows = [HEAD, ['---'] * len(HEAD), *map(_row, sorted(objectives.CATALOG))]
  lines = [f'| {" | ".join(row)} |' for row in rows]
  return '\n'.join([*lines, '', CAPTION])


def placed(page: str) -> str:
  """Returns a page with the table between its `MARKS`.

  Raises:
    ValueError: the page does not have each of them once, in their order.
  """
  start, end = MARKS
  parts = re.fullmatch(f'(.*{start}).*({end}.*)', page, re.DOTALL)
  if parts is None or any(page.count(mark) != 1 for mark in MARKS):
    raise ValueError(
      f'a page must have the lines {start.strip()!r} and {end.strip()!r} once,'
      ' in this order: write them where the table should be'
    )
  return f'{parts[1]}\n{markdown()}\n{parts[2]}'


def _row(name: str) -> tuple[str, ...]:
  objective = objectives.make(objectives.example(name, CLASSES))
  source = paper(name)
  return (
    f'`{name}`',
    f'{source.title}: [{source.authors}]({source.address})',
    _in_words(objective),
    added(objective),
    _weight(name),
  )


def paper(name: str) -> Paper:
  """Returns the head of the docstring of an objective's module.

  Raises:
    ValueError: the docstring does not have this form.
  """
  text = inspect.getdoc(inspect.getmodule(objectives.CATALOG[name])) or ''
  head = re.match(r'(.+) \((.+ \d{4})\)\.\n\n(https?://\S+)', text)
  if head is None:
    raise ValueError(
      f'the docstring of the module of {name!r} must begin with'
      " 'Title (Authors, venue and year).', an empty line, and the paper's"
      f' address, got {text[:80]!r}'
    )
  return Paper(head[1], head[2], head[3].rstrip('.,:;'))


def tapped(objective: Objective) -> list[str]:
  """Returns the names of the arrays that a loss depends on.

  For example 'student/logits', 'teacher/taps/stage1' and 'batch/label'. Arrays
  that only its memory depends on do not count.
  """
  inputs = {**_outputs(), 'batch': BATCH}

  def loss(inputs, params, memory):
    return objective.loss(
      params,
      memory,
      learner=inputs[LEARNER],
      guide=inputs[GUIDE],
      batch=inputs['batch'],
      key=jax.random.key(0),
      epoch=jnp.zeros(()),
      epochs=1,
    )[0]

  return depends_on(loss, inputs, *_owned(objective))


def added(objective: Objective) -> str:
  """Returns how many parameters and bytes an objective owns, in words."""
  params, memory = (tree.leaves(own).values() for own in _owned(objective))
  count = sum(x.size for x in params)
  size = sum(x.size * x.dtype.itemsize for x in memory)
  parts = [f'{count:,} parameter{"s" if count > 1 else ""}'] if count else []
  if size:
    parts.append(f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size:,} bytes')
  return ', '.join(parts) or NOTHING


@functools.cache
def _outputs() -> dict[str, Outputs]:
  """Returns the shapes of the networks' outputs on a batch."""

  def outputs(name: str) -> Outputs:
    net, image = models.build(name, CLASSES), jnp.zeros((SIZE, *IMAGE))
    return norms.apply(net, net.init(jax.random.key(0), image), image)[0]

  return {
    role: jax.eval_shape(functools.partial(outputs, name))
    for role, name in PAIR.items()
  }


def _owned(objective: Objective) -> tuple[Tree, Tree]:
  """Returns the shapes of an objective's parameters and memory."""
  outputs = _outputs()

  def init(learner, guide):
    key = jax.random.key(0)
    ends = dict(learner=learner, guide=guide)
    return objective.init(key, **ends, examples=EXAMPLES)

  return jax.eval_shape(init, outputs[LEARNER], outputs[GUIDE])


def _in_words(objective: Objective) -> str:
  """Returns an objective's taps in words, without those of a wrapped one."""
  names, inner = tapped(objective), objective.settings.get('objective')
  if not isinstance(inner, Objective):
    return _listed(names)
  more = _listed([name for name in names if name not in tapped(inner)])
  return '; '.join(['as the wrapped one', *filter(None, [more])])


def _listed(names: list[str]) -> str:
  """Returns names of `tapped` in words, those of both networks first."""
  parts = [name.split('/') for name in names]
  of = {
    role: list(dict.fromkeys(_tap(*x) for own, *x in parts if own == role))
    for role in (LEARNER, GUIDE)
  }
  both = [tap for tap in of[LEARNER] if tap in of[GUIDE]]
  groups = {'': both} | {
    f"{role}'s ": [tap for tap in taps if tap not in both]
    for role, taps in of.items()
  }
  words = [
    f'{whose}{", ".join(taps)}' for whose, taps in groups.items() if taps
  ]
  of_batch = [OF_BATCH.get(x) for own, x, *_ in parts if own == 'batch']
  return '; '.join([*words, *filter(None, of_batch)])


def _tap(kind: str, *path: str) -> str:
  """Returns the name of an array among a network's outputs."""
  if kind == 'norms':
    return 'BatchNorm'
  return path[0] if kind == 'taps' else kind


def _weight(name: str) -> str:
  if name not in objectives.PUBLISHED:
    return NOTHING
  weight, label_weight = objectives.PUBLISHED[name]
  labels = '' if label_weight == 1 else f' (labels {label_weight:g})'
  return f'{weight:,g}{labels}'
