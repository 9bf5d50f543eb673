"""Permuted dark knowledge, around another objective (Furlanello et al., 2018).

https://arxiv.org/abs/1805.04770, "dark knowledge with permuted predictions":
the teacher's other probabilities keep their sizes, but not their classes. A
control for how much the similarity of classes contributes.
"""

import jax
import jax.numpy as jnp

from jaxkd.objectives.base import Objective
from jaxkd.objectives.kd import kd
from jaxkd.types import Array

KD = kd(temperature=1.0)


def permuted(objective: Objective = KD) -> Objective:
  """Another objective, of a guide whose other classes are permuted.

  The guide's largest logit keeps its class; those of all other classes are
  permuted, anew in each step and for each example.

  Args:
    objective: any of logits. In a config, its name or a mapping.

  The loss raises:
    ValueError: the guide is `labels`.
  """

  def loss(params, memory, *, guide, key, **others):
    if guide is None:
      raise ValueError(
        f'permuted permutes the logits of the guide of {objective}, and labels'
        ' have none: let a network be the guide'
      )
    own, inner = jax.random.split(key)
    guide = guide.replace(logits=shuffled(own, guide.logits))
    return objective.loss(params, memory, guide=guide, key=inner, **others)

  return Objective('permuted', {'objective': objective}, objective.init, loss)


def shuffled(key: Array, logits: Array) -> Array:
  """Returns logits [B, K], in each row permuted around the largest one."""
  largest = jnp.argmax(logits, axis=-1)
  is_largest = jax.nn.one_hot(largest, logits.shape[-1], dtype=bool)
  draws = jnp.where(is_largest, -1, jax.random.uniform(key, logits.shape))
  places = jnp.where(is_largest, -1, jnp.arange(logits.shape[-1])[None])
  # Both orders begin with the largest: it comes from, and goes to, its place.
  come_from, go_to = jnp.argsort(draws), jnp.argsort(jnp.argsort(places))
  rows = jnp.take_along_axis(logits, come_from, axis=-1)
  return jnp.take_along_axis(rows, go_to, axis=-1)
