"""A problem beside classification: a label for each pixel."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxkd import objectives
from jaxkd.data import augment
from jaxkd.data.base import Dataset, Split, View, digest_splits
from jaxkd.graph import Frozen, Graph, Learner, Transfer
from jaxkd.graph.program import bind
from jaxkd.problems import Display, Problem
from jaxkd.training import mesh as meshes
from jaxkd.training.phase import Task
from jaxkd.types import Batch, Outputs

SIZE, K = 4, 3
SHAPE = (SIZE, SIZE, 2)
VIEW = View(mean=(0.5, 0.5), std=(0.25, 0.25), pad=1, flip=True)


def batch_spec(image_shape, size, num_classes=K):
  del num_classes  # a label is one number

  def spec(shape, dtype):
    return jax.ShapeDtypeStruct((size, *shape), dtype)

  pixels = image_shape[:2]
  return Batch(
    image=spec(image_shape, jnp.float32),
    label=spec(pixels, jnp.int32),
    index=spec((), jnp.int32),
    mask=spec(pixels, jnp.float32),
  )


def train_view(raw, epoch, seed, view):
  """Moves image and label alike; the border that comes in does not count."""
  drawn = augment.view_number(raw['index'], epoch, seed=seed, view=view)
  offsets = augment.view_offsets(drawn, view)

  def moved(x):
    return augment.crop(x[..., None], *offsets, view.pad)[..., 0]

  image = augment.crop(raw['image'], *offsets, view.pad)
  return Batch(
    image=augment.eval_view(image, view=view),
    label=moved(raw['label']),
    index=raw['index'],
    mask=moved(jnp.ones(raw['label'].shape)),
  )


def eval_view(raw, mask, view):
  image = augment.eval_view(raw['image'], view=view)
  mask = jnp.broadcast_to(mask[:, None, None], raw['label'].shape)
  return Batch(**{**raw, 'image': image, 'mask': mask})


def sums(logits, batch):
  log_p = jax.nn.log_softmax(logits)
  nll = -jnp.take_along_axis(log_p, batch['label'][..., None], -1)[..., 0]
  hits = jnp.argmax(logits, axis=-1) == batch['label']
  return {'pixel_accuracy': total(hits, batch), 'nll': total(nll, batch)} | {
    'pixels': jnp.sum(batch['mask']),
    'seen': jnp.sum(batch['mask'][:, 0, 0]),
  }


def total(values, batch):
  return jnp.sum(values * batch['mask'])


def metrics(logits, batch):
  hits = jnp.argmax(logits, axis=-1) == batch['label']
  return {'pixel_accuracy': total(hits, batch) / jnp.sum(batch['mask'])}


def agreement(student, teacher, batch, temperature):
  del temperature
  same = jnp.argmax(student, axis=-1) == jnp.argmax(teacher, axis=-1)
  mask = batch['mask']
  return {
    'agreement': total(same, batch),
    'pixels': jnp.sum(mask),
    'seen': jnp.sum(mask[:, 0, 0]),
  }


def summary(totals):
  names = totals.keys() - {'seen', 'pixels'}
  return {name: float(totals[name] / totals['pixels']) for name in names}


PIXELS = Problem(
  name='pixels',
  batch_spec=batch_spec,
  train_view=train_view,
  eval_view=eval_view,
  label_objective='cross_entropy',
  metrics=metrics,
  sums=sums,
  agreement=agreement,
  summary=summary,
  headline='pixel_accuracy',
  finite=('nll',),
  displays={
    'pixel_accuracy': Display('pixel accuracy', percent=True, column='pixels'),
    'nll': Display('NLL (nats)', column='NLL'),
  },
)


class PerPixel(nn.Module):
  """A linear classifier of every pixel."""

  @nn.compact
  def __call__(self, image, train=False):
    del train
    return Outputs(nn.Dense(K)(image), {'pixels': image})


def split(size, seed, load=False):
  """Returns images whose label at a pixel is a function of that pixel."""
  image = np.random.default_rng(seed).integers(
    0, 256, (size, *SHAPE), dtype=np.uint8
  )
  label = right(image)
  if load:
    return Split(label, load=lambda index, _: image[index])
  return Split(label, image)


def right(image):
  first, second = np.moveaxis(image.astype(np.int32), -1, 0)
  return np.where(first > 128, 2, second > 128).astype(np.int32)


def dataset(**changes):
  train, test = split(20, 0), split(10, 1)
  made = Dataset(
    name='shapes',
    train=train,
    test=test,
    class_names=('a', 'b', 'c'),
    view=VIEW,
    fingerprint=digest_splits(train, test),
    problem='pixels',
  )
  return dataclasses.replace(made, **changes)


def make_task(**changes):
  """Returns a training by labels and by a frozen teacher."""
  labels = objectives.CATALOG[PIXELS.label_objective]()
  transfers = (
    Transfer('labels', 'student', labels),
    Transfer('teacher', 'student', objectives.CATALOG['kd'](), 0.1),
  )
  graph = Graph({'teacher': Frozen(), 'student': Learner()}, transfers)
  made: dict[str, Any] = dict(
    name='train',
    program=bind(graph, lambda *_: PerPixel(), SHAPE),
    dataset=dataset(),
    problem=PIXELS,
    mesh=meshes.make_mesh(),
    optimizer=optax.sgd(0.5),
    epochs=3,
    length=3,
    batch_size=8,
    seed=0,
  )
  return Task(**{**made, **changes})


def teacher(made):
  return {'teacher': made.program.init_network('teacher', jax.random.key(1))}
