"""The catalogue as a table, whose facts are found and not typed.

An objective is traced between two networks of the CIFAR-100 benchmark, from
shapes alone. What its loss depends on is what it taps, and what its `init`
makes is what it adds. Its paper is the head of its module's docstring:

  Title (Authors, venue and year).

  https://address
"""

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal

from jaxkd import models, objectives, tree
from jaxkd.models import norms
from jaxkd.objectives.base import Objective
from jaxkd.types import Outputs, Tree

GUIDE, LEARNER = 'teacher', 'student'
PAIR = {GUIDE: 'resnet32x4', LEARNER: 'resnet8x4'}
CLASSES, IMAGE, EXAMPLES = 100, (32, 32, 3), 50_000  # CIFAR-100
SIZE = 8  # relations want several examples in a batch
BATCH = {
  'label': jax.ShapeDtypeStruct((SIZE,), jnp.int32),
  'index': jax.ShapeDtypeStruct((SIZE,), jnp.int32),
  'mask': jax.ShapeDtypeStruct((SIZE,), jnp.float32),
}
# What is asked of the batch, in words. The mask says which examples count.
OF_BATCH = {'label': 'labels', 'index': "the examples' numbers"}

# For settings that have no default. Other scores may not look at labels.
SETTINGS: dict[str, dict[str, Any]] = {
  'annealed': {'start': 4.0, 'epochs': 1},
  'cmkd': {'hard': 'pearson'},
  'ltkd': {'class_counts': range(CLASSES)},
  'revised': {'eta': 0.5},
  'selected': {'keep': 0.5, 'score': 'margin'},
  'weighted': {'score': 'right'},
}

NOTHING = '–'
HEAD = ('objective', 'paper', 'taps', 'adds', 'weight')
CAPTION = f"""\
What is tapped and added is that of a {PAIR[LEARNER]} that a {PAIR[GUIDE]}
teaches on CIFAR-100: parameters, which learn and are gone afterwards, and
memory. The weight is the published one on CIFAR-100, beside cross-entropy of
weight 1, or of what stands with "labels"; {NOTHING} where none is known, or
none that stands alone. `ab` and `fsp` have a stage of their own, before the
labels.
"""
MARKS = ('<!-- objectives -->\n', '<!-- end of objectives -->\n')


class Paper(NamedTuple):
  """Where an objective comes from.

  title: what it is.
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
  found = re.fullmatch(f'(.*{start}).*({end}.*)', page, re.DOTALL)
  if found is None or any(page.count(mark) != 1 for mark in MARKS):
    raise ValueError(
      f'the table stands between the lines {start.strip()!r} and'
      f' {end.strip()!r}, and the page does not have each of them once: write'
      ' them where it should be'
    )
  return f'{found[1]}\n{markdown()}\n{found[2]}'


def _row(name: str) -> tuple[str, ...]:
  given = {'name': name, **SETTINGS.get(name, {})}
  objective, source = objectives.make(given), paper(name)
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
    ValueError: it has another form.
  """
  text = inspect.getdoc(inspect.getmodule(objectives.CATALOG[name])) or ''
  head = re.match(r'(.+) \((.+ \d{4})\)\.\n\n(https?://\S+)', text)
  if head is None:
    raise ValueError(
      f'the docstring of the module of {name!r} begins with {text[:80]!r}:'
      " expected 'Title (Authors, venue and year).', an empty line, and the"
      " paper's address"
    )
  return Paper(head[1], head[2], head[3].rstrip('.,:;'))


def tapped(objective: Objective) -> list[str]:
  """Returns the names of all that a loss depends on.

  Such as 'student/logits', 'teacher/taps/stage1' and 'batch/label'. What only
  its memory depends on does not count.
  """
  given = {**_outputs(), 'batch': BATCH}

  def loss(given, params, memory):
    ends = given[GUIDE], given[LEARNER], given['batch'], jax.random.key(0)
    return objective.loss(params, memory, *ends)[0]

  program = jax.make_jaxpr(loss)(given, *_owned(objective))
  needed = _needed(program)
  inputs = zip(tree.leaves(given), program.jaxpr.invars, strict=False)
  return [name for name, variable in inputs if variable in needed]


def _needed(program: ClosedJaxpr) -> set[Any]:
  """Returns the variables that a program's results are made of."""
  needed: set[Any] = set(program.jaxpr.outvars)
  for equation in reversed(program.eqns):
    if needed.intersection(equation.outvars):
      needed.update(x for x in equation.invars if not isinstance(x, Literal))
  return needed


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
  """Returns the shapes of what the networks say of a batch."""

  def says(name: str) -> Outputs:
    net, image = models.build(name, CLASSES), jnp.zeros((SIZE, *IMAGE))
    return norms.run(net, net.init(jax.random.key(0), image), image)[0]

  return {
    role: jax.eval_shape(functools.partial(says, name))
    for role, name in PAIR.items()
  }


def _owned(objective: Objective) -> tuple[Tree, Tree]:
  """Returns the shapes of an objective's parameters and memory."""
  ends = _outputs()
  start = functools.partial(objective.init, examples=EXAMPLES)
  return jax.eval_shape(start, jax.random.key(0), ends[GUIDE], ends[LEARNER])


def _in_words(objective: Objective) -> str:
  """Returns what an objective taps, beyond the one that it wraps."""
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
  asked = [OF_BATCH.get(x) for own, x, *_ in parts if own == 'batch']
  return '; '.join([*words, *filter(None, asked)])


def _tap(kind: str, *path: str) -> str:
  """Returns what an array among a network's outputs is called."""
  if kind != 'taps':
    return kind
  return 'BatchNorm' if ':' in path[0] else path[0]


def _weight(name: str) -> str:
  known: Mapping[str, float] = objectives.WEIGHTS
  if name not in known:
    return NOTHING
  beside = objectives.LABEL_WEIGHTS.get(name, 1.0)
  labels = '' if beside == 1 else f' (labels {beside:g})'
  return f'{known[name]:,g}{labels}'
