"""The pure pieces of a training, for people with a loop of their own."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxkd import config as configs
from jaxkd.api import settings
from jaxkd.data import Spec
from jaxkd.graph.program import Program
from jaxkd.problems import CLASSIFICATION
from jaxkd.runs.experiment import Experiment, Source, bound
from jaxkd.runs.pretrained import load_pretrained
from jaxkd.training import state as states
from jaxkd.training.initial import module_variables
from jaxkd.training.step import make_step
from jaxkd.types import Batch, Metrics, Variables


class Functional(NamedTuple):
  """A method as pure functions; unpacks as (program, state, step).

  program: the graph of networks and transfers, with its modules.
  state: before the first step.
  step: (state, batch) -> (state, metrics), pure, not jitted. A batch is a
    mapping: 'image' float32 [B, H, W, C], normalised; 'label' int32 [B];
    'index' int32 [B], the examples' positions in the data; 'mask' float32 [B].
  """

  program: Program
  state: states.State
  step: Callable[[states.State, Batch], tuple[states.State, Metrics]]

  def variables(self, state: states.State) -> dict[str, Variables]:
    """Returns the variables of each network in a state."""
    return states.variables_of(self.program, state)


def functional(
  student: Any,
  teacher: Any = None,
  method: str | Mapping[str, Any] = 'kd',
  *,
  num_classes: int,
  image_shape: tuple[int, int, int],
  optimizer: optax.GradientTransformation | None = None,
  initial: Mapping[str, Variables] | None = None,
  steps_per_epoch: int = 1,
  epochs: int = 1,
  examples: int = 1,
  seed: int | jax.Array = 0,
  **others: Any,
) -> Functional:
  """Returns a method's graph, initial state and step, to be used in any loop.

  Of a method with several phases it is the last one: a frozen teacher comes
  from a checkpoint, or from `initial`.

  Args:
    student: see `jaxkd.distill`, as the next two.
    teacher: the guide, or None for methods without one.
    method: its name, or its name and arguments.
    num_classes: K.
    image_shape: [H, W, C] of one image.
    optimizer: of all networks that learn; by default that of the config.
    initial: initial variables by network; others start at random, or from
      their checkpoints.
    steps_per_epoch: for weights and rates that are functions of the epoch.
    epochs: likewise.
    examples: size of the training set, for objectives with a memory of it.
    seed: of initial values and of the step's randomness; it may be traced.
    **others: further sections and settings of the config.

  Raises:
    KeyError: an unknown name, with suggestions; a frozen network without
      variables.
    ValueError: a setting that does not fit.
  """
  sizes = Spec(image_shape, num_classes)
  networks = {'teacher': teacher, 'student': student}
  experiment = _experiment(networks, method, sizes, epochs, others)
  phase = experiment.phases[-1]
  program = phase.program
  optimizer = optimizer or phase.make_optimizer(steps_per_epoch)
  variables = _initial(experiment, program, initial or {})
  key = jax.random.key(seed)  # the runs' generator draws otherwise under vmap
  state = states.init(program, optimizer, key, variables, examples=examples)
  step = make_step(
    program,
    optimizer,
    seed=seed,
    steps_per_epoch=steps_per_epoch,
    epochs=epochs,
    measure=CLASSIFICATION.metrics,
  )
  return Functional(program, state, step)


def _initial(
  experiment: Experiment, program: Program, given: Mapping[str, Variables]
) -> dict[str, Variables]:
  """Returns the variables of checkpoints, and those of the caller."""
  pretrained = load_pretrained(experiment)
  own = {name: network.variables for name, network in pretrained.items()}
  variables = module_variables(program, {**own, **given}, seed=0)
  # Copies, since a caller may donate the state, but not the caller's arrays.
  return jax.tree.map(jnp.copy, variables)


def _experiment(
  networks: Mapping[str, Any],
  method: str | Mapping[str, Any],
  sizes: Spec,
  epochs: int,
  others: Mapping[str, Any],
) -> Experiment:
  """Returns an experiment without data; see `functional`."""
  config = configs.default()
  config.data.name, config.epochs = 'arrays', epochs
  source = Source(config.data, sizes=sizes)
  settings.apply(config, networks, method, source, others)
  return bound(config, source=source)
