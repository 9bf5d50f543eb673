"""Trainings whose numbers are no longer finite, and what helps against it."""

import math
from collections.abc import Mapping

import jax.numpy as jnp

from jaxkd.graph.program import Program
from jaxkd.training.evaluation import Evaluator
from jaxkd.types import Variables


class DivergedError(ValueError):
  """A training loss or a test metric is NaN or infinite."""


def undefined(
  program: Program, variables: Mapping[str, Variables], test: Evaluator
) -> list[str]:
  """Returns the frozen networks whose outputs are NaN for some example.

  An infinite logit is not among them: a guide may exclude a class.

  Args:
    program: of the phase.
    variables: by network.
    test: on the examples.
  """
  names = []
  for name in program.graph.frozen:
    result = test(program.modules[name], variables[name])
    if any(math.isnan(result[metric]) for metric in test.problem.finite):
      names.append(name)
  return names


def advice(
  program: Program,
  *,
  first: bool,
  transfers: list[str],
  guides: list[str],
) -> str:
  """Returns what helps against a loss that is not finite.

  Args:
    program: of the phase.
    first: whether it is the loss of the first step, which is before anything
      has been learned.
    transfers: those whose loss is not finite.
    guides: see `undefined`.
  """
  low = any(
    getattr(module, 'dtype', None) == jnp.bfloat16
    for module in program.modules.values()
  )
  exact = ' Or set --config.compute_dtype=float32.' if low else ''
  if guides:
    return (
      f'The frozen network {" and ".join(map(repr, guides))} has NaN as output'
      ' for training images, and no setting of the optimizer helps against'
      f' that: take another checkpoint, or look at these images.{exact}'
    )
  of = f' of {", ".join(transfers)}' if transfers else ''
  if first:
    return (
      'It is that of the first step, before anything has been learned, so a'
      f' lower learning rate does not help: look at the settings{of}, at its'
      ' weight, and at the checkpoints and the data that it starts from.'
      f'{exact}'
    )
  return (
    'Try a lower --config.optimizer.learning_rate, or'
    ' --config.optimizer.clip_norm=5, or a longer'
    f' --config.schedule.warmup_epochs, in a new --workdir.{exact}'
  )
