"""What a training costs, estimated from the MACs of its networks.

A MAC is two floating-point operations (FLOPs). The gradient of a layer takes as
much as two forward passes: one is with respect to its input, the other one with
respect to its parameters.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jaxkd import models, tree
from jaxkd.graph import Graph, Update
from jaxkd.graph.program import Program

BACKWARD = 2  # passes of a gradient


class Flops(NamedTuple):
  """FLOPs for one image: of training on it, and of testing on it."""

  training: int
  testing: int


def sizes(program: Program, name: str) -> tuple[int, int]:
  """Returns a network's parameters and MACs per image; 0 if unknown."""
  module = program.modules[name]
  if isinstance(module, models.Precomputed):
    return module.params, module.macs
  return (
    models.count(tree.shapes(module, program.input_shape)['params']),
    models.macs(module, program.input_shape),
  )


def training(program: Program, macs: Mapping[str, int], gradients: int) -> int:
  """Returns the FLOPs of training on one image.

  Counted are the forward passes of frozen networks, and forward and backward
  passes of the others; in a graph with turns, those of each update. Not counted
  are losses, regressors of objectives, the optimizer, augmentation, tests, and
  networks whose logits are stored, cached or those of a function.

  Args:
    program: of the phase.
    macs: by network.
    gradients: of each update; 2 for an optimizer of `TwoGradients`.
  """
  graph = program.graph
  passes = {name: 1 for name in graph.frozen if name not in program.precomputed}
  for update in graph.updates():
    for name in update.networks - set(graph.frozen):
      backward = gradients * BACKWARD if _moves(graph, update, name) else 0
      passes[name] = passes.get(name, 0) + 1 + backward
  return sum(2 * macs[name] * number for name, number in passes.items())


def _moves(graph: Graph, update: Update, name: str) -> bool:
  """Returns whether an update's gradient flows through a network."""
  return graph.owner(name) in update.learners or any(
    name in transfer.guides and not transfer.detach
    for transfer in update.transfers
  )


def testing(graph: Graph, macs: Mapping[str, int]) -> int:
  """Returns the FLOPs of testing the trained networks on one image."""
  return sum(2 * macs[name] for name in graph.trained)
