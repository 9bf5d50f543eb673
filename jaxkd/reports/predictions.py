"""What a network predicts on the test images, and where its teacher differs.

The numbers are JSON values, small enough to be kept beside the run.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import metrics, problems
from jaxkd.checkpoints import SavedNetwork
from jaxkd.data.base import Dataset, Split
from jaxkd.metrics.calibration import BINS
from jaxkd.metrics.several_labels import average_precision
from jaxkd.reports import thumbnails
from jaxkd.runs import artifacts, layout
from jaxkd.training import mesh
from jaxkd.training.evaluation import Evaluator

EXAMPLES = 10_000  # the most test images, spread over the split
PAIRS = 10  # of classes that are confused
DISAGREEMENTS = 12  # images
SHOWN = 3  # classes of an image with several labels


class _Compared(NamedTuple):
  """The network of a run and the one that it is compared with.

  names: of both, or of the first alone.
  logits: float32 [N, K] by name.
  labels: int32 [N], or multi-hot [N, K].
  """

  names: tuple[str, ...]
  logits: dict[str, np.ndarray]
  labels: np.ndarray


def of_run(
  workdir: pathlib.Path, dataset: Dataset | None = None
) -> dict[str, Any]:
  """Returns the predictions of a run's result and of its teacher.

  Of more than `EXAMPLES` test images, so many are taken at equal distances.

  Args:
    workdir: of a finished run.
    dataset: its data, where they are in memory.

  Raises:
    FileNotFoundError: no network, or no data.
    ValueError: logits that are not finite.
  """
  network = artifacts.load_network(workdir)
  if dataset is None:
    settings = artifacts.data_settings(workdir, network.card)
    dataset = artifacts.load_data(settings)
  other, reason = teacher_of(workdir, network)
  size = len(dataset.test)
  index = np.arange(size)
  if size > EXAMPLES:
    index = np.linspace(0, size - 1, EXAMPLES).round().astype(np.int64)
  split = dataset.test if len(index) == size else dataset.test.take(index)
  networks = [network, *([other] if other else [])]
  compared = _predict(workdir, networks, dataset, split)
  several = compared.labels.ndim > 1
  parts = _several_labels if several else _one_label
  return {
    'network': compared.names[0],
    'other': compared.names[1] if other else '',
    'no_other': reason,
    'data': dataset.name,
    'images': len(index),
    'of': size,
    'several_labels': several,
    **parts(compared, split, dataset.class_names),
  }


def teacher_of(
  workdir: pathlib.Path, network: SavedNetwork
) -> tuple[SavedNetwork | None, str]:
  """Returns the network that a run's result is compared with.

  It is a network that was frozen in the phase that trained it, or in an earlier
  one; or else one that was trained together with it.

  Args:
    workdir: of the run.
    network: the result.

  Returns:
    None and the reason, if there is none.
  """
  guides = artifacts.guides(workdir, network.card)
  if guides:
    return guides.get('teacher', next(iter(guides.values()))), ''
  record = json.loads(layout.phase(workdir, network.card.phase).read_text())
  if record['frozen']:
    names = ', '.join(record['frozen'])
    return None, (
      f'The guide ({names}) is a function, stored outputs, or a checkpoint that'
      ' is no longer there, so that the networks cannot be compared.'
    )
  first = artifacts.first_guide(workdir, network.card)
  if first:
    return first, ''
  base = network.card.network.removesuffix('_ema')
  for name in record['networks']:
    if name.removesuffix('_ema') != base:
      return artifacts.load_network(workdir, name), ''
  return None, 'Nothing but labels taught this network.'


def _predict(
  workdir: pathlib.Path,
  networks: list[SavedNetwork],
  dataset: Dataset,
  split: Split,
) -> _Compared:
  """Returns the logits of networks on a split."""
  test = Evaluator(split, dataset.view, problems.of(dataset), mesh.make_mesh())
  logits, labels = {}, split.label
  for network in networks:
    name = network.card.network
    settings = None
    if network is not networks[0]:
      settings = artifacts.settings_of_guide(workdir, name)
    module = artifacts.connected(network.card, dataset, settings)
    variables = network.module_variables(f'network {name}')
    logits[name] = test.logits(module, variables, len(split))
    if not np.isfinite(logits[name]).any(axis=-1).all():
      raise ValueError(f'the logits of {name} are NaN: its training diverged')
  return _Compared(tuple(logits), logits, np.asarray(labels))


def _one_label(
  compared: _Compared, split: Split, classes: tuple[str, ...]
) -> dict[str, Any]:
  """Returns the parts of a network of one label for each image."""
  names, labels = compared.names, compared.labels
  probability = {n: _softmax(x) for n, x in compared.logits.items()}
  predicted = {n: p.argmax(-1) for n, p in probability.items()}
  own, others = predicted[names[0]], predicted.get(names[-1])
  assert others is not None, 'the last name is that of a network'
  parts = {
    'reliability': {
      name: _reliability(logits, labels)
      for name, logits in compared.logits.items()
    },
    'mistakes': int(np.sum(own != labels)),
    'confusions': _confusions(compared, probability, split, classes),
    'classes': _by_class(
      labels, {n: predicted[n] == labels for n in names}, classes
    ),
  }
  if len(names) < 2:
    return parts
  distance = _jensen_shannon(*(probability[n] for n in names))
  order = _largest(distance)
  pictures = thumbnails.of_split(split, order)
  rows = [
    {
      'image': picture,
      'label': classes[labels[n]],
      'distance': _round(distance[n]),
      'answers': {
        name: {
          'predicted': classes[predicted[name][n]],
          'probability': _round(probability[name][n].max()),
          'of_label': _round(probability[name][n, labels[n]]),
          'right': bool(predicted[name][n] == labels[n]),
        }
        for name in names
      },
    }
    for n, picture in zip(order, pictures, strict=True)
  ]
  agreement = _round(np.mean(own == others))
  return {**parts, 'agreement': agreement, 'disagreements': rows}


def _several_labels(
  compared: _Compared, split: Split, classes: tuple[str, ...]
) -> dict[str, Any]:
  """Returns the parts of a network of any number of labels for each image."""
  names, labels = compared.names, compared.labels > 0
  probability = {n: _sigmoid(x) for n, x in compared.logits.items()}
  own = probability[names[0]] > 0.5
  precision = {n: average_precision(compared.logits[n], labels) for n in names}
  parts = {
    'classes': [
      {
        'name': name,
        'images': int(labels[:, k].sum()),
        'values': {n: _round(precision[n][k]) for n in names},
        'missed': int(np.sum(labels[:, k] & ~own[:, k])),
        'added': int(np.sum(~labels[:, k] & own[:, k])),
      }
      for k, name in enumerate(classes)
    ]
  }
  if len(names) < 2:
    return parts
  both = [
    np.stack([probability[n], 1 - probability[n]], axis=-1) for n in names
  ]
  each = _jensen_shannon(*both)
  distance = each.sum(-1)
  order = _largest(distance)
  pictures = thumbnails.of_split(split, order)
  rows = [
    {
      'image': picture,
      'label': ', '.join(classes[k] for k in np.flatnonzero(labels[n])) or '-',
      'distance': _round(distance[n]),
      'answers': [
        {
          'class': classes[k],
          'present': bool(labels[n, k]),
          'probabilities': {m: _round(probability[m][n, k]) for m in names},
        }
        for k in np.argsort(-each[n])[:SHOWN]
      ],
    }
    for n, picture in zip(order, pictures, strict=True)
  ]
  same = np.mean(own == (probability[names[1]] > 0.5))
  return {**parts, 'agreement': _round(same), 'disagreements': rows}


def _confusions(
  compared: _Compared,
  probability: Mapping[str, np.ndarray],
  split: Split,
  classes: tuple[str, ...],
) -> list[dict[str, Any]]:
  """Returns the pairs of label and wrong answer that are most frequent.

  Each has the wrong answer of the result that is surest, as a picture.
  """
  labels, own = compared.labels, probability[compared.names[0]]
  answers = own.argmax(-1)
  wrong = np.flatnonzero(answers != labels)
  pairs = np.stack([labels[wrong], answers[wrong]], axis=1)
  values, counts = np.unique(pairs, axis=0, return_counts=True)
  chosen = np.argsort(-counts, kind='stable')[:PAIRS]
  rows, examples = [], []
  for label, answer in values[chosen]:
    at = np.flatnonzero((labels == label) & (answers == answer))
    examples.append(at[own[at, answer].argmax()])
    counted = {
      name: int(np.sum((labels == label) & (p.argmax(-1) == answer)))
      for name, p in probability.items()
    }
    rows.append(
      {
        'label': classes[label],
        'predicted': classes[answer],
        'images': int(np.sum(labels == label)),
        'counts': counted,
      }
    )
  pictures = thumbnails.of_split(split, np.array(examples, np.int64))
  return [
    {**row, 'image': image} for row, image in zip(rows, pictures, strict=True)
  ]


def _by_class(
  labels: np.ndarray, hits: Mapping[str, np.ndarray], classes: tuple[str, ...]
) -> list[dict[str, Any]]:
  """Returns the accuracy of each network on the images of each class."""
  size = np.bincount(labels, minlength=len(classes))
  right = {
    name: np.bincount(labels, hit, len(classes)) for name, hit in hits.items()
  }
  return [
    {
      'name': name,
      'images': int(size[k]),
      'values': {
        n: _round(x[k] / size[k]) if size[k] else None for n, x in right.items()
      },
    }
    for k, name in enumerate(classes)
  ]


def _reliability(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
  """Returns a network's bins of confidence, and its ECE."""
  every = jnp.ones(len(labels))
  sums = metrics.bins(jnp.asarray(logits), jnp.asarray(labels), every)
  total = {name: np.asarray(x, np.float64) for name, x in sums.items()}
  bins = metrics.reliability(total)
  ece = metrics.expected_calibration_error(*(total[name] for name in BINS))
  lists = {k: [_round(x, 6) for x in bins[k]] for k in bins}
  return {**lists, 'ece': _round(ece, 6)}


def _softmax(logits: np.ndarray) -> np.ndarray:
  return np.asarray(jax.nn.softmax(logits), np.float64)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  return np.asarray(jax.nn.sigmoid(logits), np.float64)


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
  """Returns the Jensen-Shannon divergence of [..., K], in nats, at most ln 2.

  It is symmetric, and finite where one of the two is sure.
  """

  def entropy(x):
    return -np.sum(np.where(x > 0, x * np.log(np.maximum(x, 1e-300)), 0), -1)

  return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def _largest(distance: np.ndarray) -> np.ndarray:
  return np.argsort(-distance, kind='stable')[:DISAGREEMENTS]


def _round(value: Any, digits: int = 4) -> float | None:
  """Returns a number for JSON; None for NaN."""
  return round(float(value), digits) if np.isfinite(value) else None
