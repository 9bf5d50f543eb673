"""Examples with names of labels, weights and splits, as a data set.

Tables and Hugging Face data sets are brought into this form.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxkd.catalog import lookup
from jaxkd.data.assemble import Source, from_files
from jaxkd.data.base import Dataset, unit_mean
from jaxkd.data.decode import File, Rules
from jaxkd.data.folder import TEST_NAMES, TRAIN_NAMES
from jaxkd.data.records import Mistakes
from jaxkd.data.select import held_out, rest

HELD_OUT = 0.2  # of each class, where there is no test split
# Problem -> whether an example has a set of labels, and not one of them.
PROBLEMS = {'classification': False, 'multi_label': True}


ByIndex = Mapping[int, str]  # what is wrong with some examples


@dataclasses.dataclass(frozen=True)
class Examples:
  """Examples of all splits, in the order of their source.

  name: of the data set.
  places: of each example in its source, for messages.
  labels: of each example, the names of its labels.
  fetch: the files of examples, given their indices [B].
  identity: of each image, its name and size in bytes.
  splits: of each example, the name of its split; None if it has none.
  weights: [N], finite and at least 0; None if all examples count alike.
  mistakes: what is wrong with images and labels, an error if they are used.
  training_mistakes: likewise, if they are in the training split.
  class_names: of all classes, in their order; () takes those of the labels,
    sorted.
  """

  name: str
  places: list[str]
  labels: list[list[str]]
  fetch: Callable[[np.ndarray], list[File]]
  identity: list[str]
  splits: list[str] | None = None
  weights: np.ndarray | None = None
  class_names: tuple[str, ...] = ()
  mistakes: tuple[ByIndex, ...] = ()
  training_mistakes: ByIndex = dataclasses.field(default_factory=dict)


class Options(NamedTuple):
  """Settings that all sources of examples share.

  problem: 'classification', one label for each example; or 'multi_label', any
    number of them.
  test: the name of the test split; '' takes the first of `TEST_NAMES` that is
    there.
  image_size: in pixels; None: the images' own size if they all share one square
    size of at most 64, else 224.
  channels: 3 for RGB, 1 for grey; 0: 1 if all images are grey.
  memory: bytes of decoded images to keep in memory; a larger data set is
    decoded batch by batch.
  hold_out: a part of the training split that becomes the test split, see
    `select.held_out`; 0: `HELD_OUT` where there is no test split, else none.
  hold_out_seed: of this choice.
  rules: for decoding; the settings of a data set are its fields.
  skip_unreadable: whether files that cannot be decoded are left out.
  """

  problem: str
  test: str
  image_size: int | None
  channels: int
  memory: int
  hold_out: float
  hold_out_seed: int
  rules: Rules
  skip_unreadable: bool


def dataset_of(examples: Examples, options: Options) -> Dataset:
  """Returns examples as a data set.

  Raises:
    KeyError: no such problem.
    ValueError: an unknown split or class; no training example; a class that is
      too small to hold examples out; weights that are all 0.
  """
  several = lookup('problem', PROBLEMS, options.problem)
  train, tests, notes = _divide(examples, options.test)
  kept = np.concatenate([train, tests])
  _check(examples, train, kept)
  names = _class_names(examples, train)
  label = _encode(examples, names, several, kept)
  if options.hold_out or not len(tests):
    train, tests, note = _hold_out(label, names, train, tests, options)
    notes += (note,)
  weight = None
  if examples.weights is not None:
    weight, note = _weight(examples.weights[train])
    notes += (note,)

  def source(index, weight=None):
    return Source(label[index], lambda i: examples.fetch(index[i]), weight)

  return from_files(
    examples.name,
    source(train, weight),
    source(tests),
    names,
    image_size=options.image_size,
    channels=options.channels,
    memory=options.memory,
    identity='\n'.join(examples.identity[i] for i in (*train, *tests)),
    notes=notes + _remarks(examples, label, names, train, tests),
    rules=options.rules,
    skip_unreadable=options.skip_unreadable,
    problem=options.problem,
  )


def _check(examples: Examples, train: np.ndarray, kept: np.ndarray) -> None:
  """Raises ValueError for mistakes in examples that are used."""
  mistakes = Mistakes(examples.name)
  parts = [(kept, found) for found in examples.mistakes]
  for index, found in (*parts, (train, examples.training_mistakes)):
    for i in index.tolist():
      if i in found:
        mistakes.add(examples.places[i], found[i])
  mistakes.check()


def _divide(
  examples: Examples, test: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
  """Returns the indices of both splits, and notes on what is left out."""
  everything = np.arange(len(examples.labels), dtype=np.int32)
  if examples.splits is None:
    if test:
      raise ValueError(
        f'data.test={test!r} is the name of a split, and {examples.name} has'
        " no column of splits: set it to ''"
      )
    return everything, everything[:0], ()
  splits = [name.strip().lower() for name in examples.splits]
  counts, test = collections.Counter(splits), test.lower()
  if test and test not in counts:
    raise ValueError(
      f'data.test={test!r} is no split of {examples.name}, only'
      f' {", ".join(sorted(counts))}'
    )
  known, mistakes = (*TRAIN_NAMES, *TEST_NAMES), Mistakes(examples.name)
  for where, name in zip(examples.places, splits, strict=True):
    if name not in known and (not name or name != test):
      mistakes.add(
        where,
        f'unknown split {name!r}: write one of {", ".join(known)}, or name the'
        ' test split by data.test',
      )
  mistakes.check()
  if test in TRAIN_NAMES:
    raise ValueError(
      f'data.test={test!r} is the training split: set it to another one, or to'
      " '' and data.hold_out to a part of it"
    )
  test = test or next((name for name in TEST_NAMES if name in counts), '')
  of_split = np.array(splits)
  train = everything[np.isin(of_split, TRAIN_NAMES)]
  if not len(train):
    raise ValueError(
      f'{examples.name} has no example of the split train, only'
      f' {", ".join(sorted(counts))}'
    )
  unused = sorted(set(counts) - {*TRAIN_NAMES, test})
  notes = tuple(
    f'{counts[name]} examples of the split {name} are not used: the test split'
    f' is {test}.'
    for name in unused
  )
  return train, everything[of_split == test], notes


def _class_names(examples: Examples, train: np.ndarray) -> tuple[str, ...]:
  """Returns the classes: those given, or the training labels, sorted.

  Whole numbers are sorted as numbers.
  """
  if examples.class_names:
    return examples.class_names
  names = {name for i in train for name in examples.labels[i]}
  if not names:
    raise ValueError(f'{examples.name} has no label at all')
  if all(name.isdecimal() for name in names):
    return tuple(sorted(names, key=lambda name: (int(name), name)))
  return tuple(sorted(names))


def _encode(
  examples: Examples, names: tuple[str, ...], several: bool, kept: np.ndarray
) -> np.ndarray:
  """Returns the labels of the examples `kept`; those of others are 0.

  Returns:
    int32 [N]; or, if examples have several labels, uint8 [N, K] of zeros and
    ones.
  """
  places = {name: k for k, name in enumerate(names)}
  label = np.zeros((len(examples.labels), len(names)), np.uint8)
  mistakes = Mistakes(examples.name)
  for i in kept:
    for name in examples.labels[i]:
      if name in places:
        label[i, places[name]] = 1
      else:
        mistakes.add(
          examples.places[i],
          f'the label {name!r} is none of the {len(names)} classes, which are'
          ' those of the training split, unless data.settings.classes lists'
          ' others',
        )
  mistakes.check()
  return label if several else np.argmax(label, axis=1).astype(np.int32)


def _hold_out(
  label: np.ndarray,
  names: tuple[str, ...],
  train: np.ndarray,
  tests: np.ndarray,
  options: Options,
) -> tuple[np.ndarray, np.ndarray, str]:
  """Returns the indices of both splits, one held out, and a note."""
  part, seed = options.hold_out, options.hold_out_seed
  held = held_out(label[train], names, part or HELD_OUT, seed)
  why = 'There is no test split'
  if len(tests):
    why = f'data.hold_out={part:g}, so the test split of {len(tests)} is unused'
  note = (
    f'{why}: {len(held)} of the {len(train)} training examples, a stratified'
    f' choice with data.hold_out_seed={seed}, are the test split.'
  )
  return train[rest(len(train), held)], train[held], note


def _remarks(
  examples: Examples,
  label: np.ndarray,
  names: tuple[str, ...],
  train: np.ndarray,
  tests: np.ndarray,
) -> tuple[str, ...]:
  """Returns notes on what may be meant so, or may be a mistake."""
  notes = ()
  if label.ndim > 1:
    counts = np.sum(label[train], axis=0, dtype=int)
  else:
    counts = np.bincount(label[train], minlength=len(names))
  absent = np.flatnonzero(counts == 0)
  if absent.size:
    notes += (
      f'{absent.size} of {len(names)} classes have no training image, such as'
      f' {names[absent[0]]!r}.',
    )
  if label.ndim > 1 and (bare := int(np.sum(~np.any(label[train], axis=1)))):
    notes += (f'{bare} of {len(train)} training images have no label.',)
  twice = {examples.identity[i] for i in train}
  twice &= {examples.identity[i] for i in tests}
  if twice:
    notes += (
      f'{len(twice)} images are in the training and in the test split, such as'
      f' {min(twice)}.',
    )
  return notes


def _weight(weights: np.ndarray) -> tuple[np.ndarray, str]:
  """Returns the training weights, of mean 1, and a note."""
  if not np.any(weights):
    raise ValueError(
      'the weights of all training examples are 0: give some of them a positive'
      " one, or set data.settings.weight='' to ignore the column"
    )
  note = (
    f'Training examples are weighted, from {np.min(weights):g} to'
    f' {np.max(weights):g} in the table; evaluation counts every example once.'
  )
  return unit_mean(weights), note
