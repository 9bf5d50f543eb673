"""Checks that a graph's objectives are defined for images of several labels."""

import jax
import jax.numpy as jnp

from jaxkd.graph import LABELS, Transfer
from jaxkd.graph.program import Program
from jaxkd.graph.transfers import guide_outputs
from jaxkd.objectives.dependence import depends_on

SIZE = 2  # relations need several examples in a batch


def check_sigmoid(program: Program) -> None:
  """Refuses objectives that are only defined for one label for each image.

  They are those that read logits or labels, unless they say that they take
  logits as those of one sigmoid for each class, see `Objective.sigmoid`. So an
  objective of features alone is defined for any labels.

  Raises:
    ValueError: there is such an objective.
  """
  for transfer in program.graph.transfers:
    if transfer.objective.sigmoid:
      continue
    read = sorted(
      {name.rpartition('/')[2] for name in _read(program, transfer)}
    )
    if read:
      raise ValueError(_message(transfer, read))


def _read(program: Program, transfer: Transfer) -> list[str]:
  """Returns the logits and labels that an objective depends on."""
  outputs = jax.eval_shape(lambda: program.outputs_of_zeros(SIZE))
  ends = {
    'learner': outputs[transfer.learner],
    'guide': jax.eval_shape(
      lambda x: guide_outputs(transfer.guide, x), outputs
    ),
  }
  shape = (SIZE, *program.input_shape)
  batch = {
    'image': jax.ShapeDtypeStruct(shape, jnp.float32),
    'label': jax.ShapeDtypeStruct((SIZE,), jnp.int32),
    'index': jax.ShapeDtypeStruct((SIZE,), jnp.int32),
    'mask': jax.ShapeDtypeStruct((SIZE,), jnp.float32),
  }
  key = jax.random.key(0)

  def loss(inputs, key):
    ends = {'learner': inputs['learner'], 'guide': inputs['guide']}
    one = jax.tree.map(lambda x: x[:1], ends)
    params, memory = transfer.objective.init(key, **one, examples=SIZE)
    return transfer.objective.loss(
      params,
      memory,
      **ends,
      batch=inputs['batch'],
      key=key,
      epoch=jnp.zeros(()),
      epochs=1,
    )

  names = depends_on(loss, {**ends, 'batch': batch}, key)
  return [x for x in names if x.endswith('/logits') or x == 'batch/label']


def _message(transfer: Transfer, read: list[str]) -> str:
  """Returns what is wrong with a transfer, and the remedy."""
  own, remedy = transfer.objective, "objective='binary_kd'"
  if transfer.guide == LABELS:
    remedy = "label_objective='binary_cross_entropy'"
  return (
    f'{transfer.name}: {own} takes {" and ".join(read)} as those of one label'
    ' for each image (a softmax over the classes), and these data have any'
    f' number of labels for each (a sigmoid for each class). Set {remedy} in'
    " the method's settings, or an objective of features, such as 'fitnet'"
  )
