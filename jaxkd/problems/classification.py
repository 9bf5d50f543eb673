"""Image classification: one label for each image, one logit for each class."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd import metrics as measures
from jaxkd.data import augment
from jaxkd.data.base import Dataset, View
from jaxkd.metrics.sums import Sums
from jaxkd.problems.base import Display, Problem, Raw
from jaxkd.types import Array, Batch, Metrics


def batch_spec(
  image_shape: tuple[int, int, int], size: int, num_classes: int = 0
) -> Batch:
  """Returns the shapes and types of a batch; see `Problem`."""
  del num_classes  # a label is one number

  def spec(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)

  return Batch(
    image=spec((size, *image_shape), jnp.float32),
    label=spec((size,), jnp.int32),
    index=spec((size,), jnp.int32),
    mask=spec((size,), jnp.float32),
  )


def train_view(raw: Raw, epoch: Array, seed: int | Array, view: View) -> Batch:
  """Returns random crops and flips, normalised; labels are unchanged.

  The mask holds the weights of the examples, 1 where the data have none.
  """
  image = augment.train_view(
    raw['image'], raw['index'], epoch, seed=seed, view=view
  )
  return Batch(
    image=image,
    label=raw['label'],
    index=raw['index'],
    mask=raw.get('weight', jnp.ones(len(raw['label']))),
  )


def eval_view(raw: Raw, mask: Array, view: View) -> Batch:
  """Returns normalised images; a posterior, if there is one, is kept."""
  image = augment.eval_view(raw['image'], view=view)
  return Batch(**{**raw, 'image': image, 'mask': mask})


def metrics(logits: Array, batch: Batch) -> Metrics:
  """Returns 'top1': the fraction of right answers among unmasked examples."""
  hits = jnp.argmax(logits, axis=-1) == batch['label']
  mask = batch['mask']
  total = jnp.sum(mask)
  return {'top1': jnp.sum(hits * mask) / jnp.where(total > 0, total, 1)}


def sums(logits: Array, batch: Batch) -> Sums:
  """Returns counts, bins of confidence, and distances to a known posterior."""
  label, mask = batch['label'], batch['mask']
  parts = [
    measures.counts(logits, label, mask),
    measures.bins(logits, label, mask),
  ]
  if 'posterior' in batch:
    parts.append(measures.distance(logits, batch['posterior'], mask))
  return {name: value for part in parts for name, value in part.items()}


def agreement(
  student: Array, teacher: Array, batch: Batch, temperature: float
) -> Sums:
  """Returns 'agreement', 'kl' and 'seen'; see `metrics.agreement`."""
  return measures.agreement(student, teacher, batch['mask'], temperature)


def chance(dataset: Dataset) -> tuple[float, float]:
  """Returns mean and standard deviation of the accuracy of random guesses."""
  guess, size = 1 / dataset.num_classes, len(dataset.test)
  return guess, math.sqrt(guess * (1 - guess) / size)


CLASSIFICATION = Problem(
  name='classification',
  batch_spec=batch_spec,
  train_view=train_view,
  eval_view=eval_view,
  label_objective='cross_entropy',
  metrics=metrics,
  sums=sums,
  agreement=agreement,
  summary=measures.summary,
  headline='top1',
  finite=('nll',),
  displays={
    'top1': Display('top-1', percent=True, column='test top-1'),
    'top5': Display('top-5', percent=True),
    'nll': Display('NLL (nats)', column='NLL'),
    'brier': Display('Brier score', column='Brier'),
    'ece': Display('ECE', percent=True, column='ECE'),
    'posterior_square': Display(
      'squared distance to the posterior', optional=True
    ),
    'posterior_kl': Display('KL(posterior || network) (nats)', optional=True),
  },
  chance=chance,
)
