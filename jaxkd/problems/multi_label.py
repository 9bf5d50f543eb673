"""Multi-label classification: any number of labels for each image.

Labels are a multi-hot matrix [N, K]. A network has one logit for each class,
whose sigmoid is the probability that the image has this label.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import metrics as measures
from jaxkd.data.base import Dataset
from jaxkd.metrics import several_labels
from jaxkd.metrics.sums import Sums
from jaxkd.problems import classification
from jaxkd.problems.base import Display, Problem
from jaxkd.types import Array, Batch, Metrics

SCORE, TRUTH = 'score', 'truth'


def batch_spec(
  image_shape: tuple[int, int, int], size: int, num_classes: int
) -> Batch:
  """Returns the shapes and types of a batch; see `Problem`."""
  label = jax.ShapeDtypeStruct((size, num_classes), jnp.uint8)
  return Batch(
    **{**classification.batch_spec(image_shape, size), 'label': label}
  )


def metrics(logits: Array, batch: Batch) -> Metrics:
  """Returns 'map', the mean average precision of the batch's examples."""
  value = several_labels.batch_map(logits, batch['label'], batch['mask'])
  return {'map': value}


def sums(logits: Array, batch: Batch) -> Sums:
  """Returns likelihood and counts of decisions."""
  return several_labels.binary_counts(logits, batch['label'], batch['mask'])


def rows(logits: Array, batch: Batch) -> dict[str, Array]:
  """Returns all scores and labels, which mAP needs together."""
  return {SCORE: logits, TRUTH: batch['label']}


def agreement(
  student: Array, teacher: Array, batch: Batch, temperature: float
) -> Sums:
  """Returns 'agreement', 'kl' and 'seen'; see `binary_agreement`."""
  return several_labels.binary_agreement(
    student, teacher, batch['mask'], temperature
  )


def summary(total: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Returns the metrics of a split, or of an agreement."""
  means = measures.summary(total)
  if SCORE in total:
    means['map'] = several_labels.mean_average_precision(
      total[SCORE], total[TRUTH]
    )
  if 'hits' in total:
    means |= several_labels.f1(total)
  return means


def chance(dataset: Dataset) -> tuple[float, float]:
  """Returns mean and standard deviation of the mAP of a random order."""
  return several_labels.chance_map(dataset.test.label)


MULTI_LABEL = Problem(
  name='multi_label',
  batch_spec=batch_spec,
  train_view=classification.train_view,
  eval_view=classification.eval_view,
  label_objective='binary_cross_entropy',
  metrics=metrics,
  sums=sums,
  rows=rows,
  agreement=agreement,
  summary=summary,
  headline='map',
  finite=('nll',),
  displays={
    'map': Display('mAP', percent=True, column='test mAP'),
    'f1_micro': Display('micro F1', percent=True, column='micro F1'),
    'f1_macro': Display('macro F1', percent=True, column='macro F1'),
    'nll': Display('NLL (nats)', column='NLL'),
  },
  chance=chance,
  sigmoid=True,
)
