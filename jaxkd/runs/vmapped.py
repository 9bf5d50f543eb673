"""All seeds of one recipe at once: trained and measured in memory.

For data whose Bayes posterior is known, the distances to it are among the
figures, of the networks and of what the student is taught.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

from jaxkd import problems
from jaxkd.graph import LABELS, Phase, Transfer
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.pretrained import evaluate_pretrained, load_pretrained
from jaxkd.train import mesh as meshes
from jaxkd.train.evaluation import Evaluator
from jaxkd.train.vmapped import train_together
from jaxkd.types import Tree, Variables

Metrics = dict[str, float]
Networks = dict[str, Metrics]  # of one run, by network


def run_together(experiments: list[Experiment]) -> list[Networks]:
  """Runs one recipe for several seeds.

  Args:
    experiments: one for each seed, which differ in nothing but seed and data.

  Returns:
    For each seed, by network, what an `Evaluator` says of it, and under
    'train_...' what it says on the training split. 'NAME_best' is a trained
    network at the epoch that the validation split chooses. 'target', where it
    can be said, is what the student is taught, as if it were a network.
  """
  initial: list[dict[str, Variables]] = []
  for experiment in experiments:
    networks = load_pretrained(experiment)
    evaluate_pretrained(experiment, networks)
    initial.append({name: x.variables for name, x in networks.items()})
  carried: list[dict[str, Tree]] = [{} for _ in experiments]
  found: list[Networks] = [{} for _ in experiments]
  evaluators = [_evaluators(experiment) for experiment in experiments]
  for phase in experiments[0].phases:
    tasks = [experiment.task(phase) for experiment in experiments]
    for n, outcome in enumerate(train_together(tasks, initial, carried)):
      initial[n] |= outcome.last
      carried[n] |= outcome.objectives
      modules = tasks[n].program.modules
      best = {f'{name}_best': x for name, x in outcome.best.items()}
      test, train = evaluators[n]
      for name, variables in {**outcome.last, **best}.items():
        module = modules[name.removesuffix('_best').removesuffix('_ema')]
        found[n][name] = test(module, variables) | _on_train(
          train(module, variables), len(train.split)
        )
      found[n] |= _target(phase, train, modules, initial[n])
  return found


def _on_train(figures: Metrics, size: int) -> Metrics:
  """Returns figures of the training split under names that say so.

  'train_frobenius' is the distance of all predictions from the posterior as one
  matrix, what the paper's toy calls L2.
  """
  found = {f'train_{key}': value for key, value in figures.items()}
  if 'posterior_square' in figures:
    found['train_frobenius'] = math.sqrt(size * figures['posterior_square'])
  return found


def _evaluators(experiment: Experiment) -> tuple[Evaluator, Evaluator]:
  """Returns what measures networks on the test and on the training split."""
  dataset = experiment.dataset
  settings = dataset.view, problems.of(dataset), meshes.make_mesh()
  return (
    Evaluator(dataset.test, *settings),
    Evaluator(dataset.train, *settings),
  )


def _target(
  phase: Phase,
  train: Evaluator,
  modules: Mapping[str, nn.Module],
  variables: Mapping[str, Variables],
) -> Networks:
  """Returns how far what the student is taught is from the posterior.

  That can be said where frozen networks teach it by `kd` at temperature 1, and
  labels by cross-entropy: the gradient is then that of the weighted mean of
  their probabilities.
  """
  arrows = [t for t in phase.graph.transfers if t.learner == 'student']
  posterior = train.split.posterior
  if posterior is None or not arrows or not all(map(_is_mean, arrows)):
    return {}

  def says(guide):
    if guide == LABELS:
      return np.eye(posterior.shape[1])[train.split.label]
    return _predictions(train, modules[guide], variables[guide])

  weights = np.array([arrow.weight for arrow in arrows], np.float64)
  said = [says(arrow.guide) for arrow in arrows]
  target = np.tensordot(weights / weights.sum(), said, axes=1)
  square = float(np.mean(np.sum((target - posterior) ** 2, axis=-1)))
  return {'target': _on_train({'posterior_square': square}, len(target))}


def _predictions(
  evaluator: Evaluator, module: nn.Module, variables: Variables
) -> np.ndarray:
  """Returns a network's probabilities on a whole split, [N, K]."""
  size = len(evaluator.split)
  logits = evaluator.outputs(module, variables, size).logits
  return np.asarray(jax.nn.softmax(logits))


def _is_mean(arrow: Transfer) -> bool:
  """Does the arrow pull the student towards its guide's probabilities?"""
  settings = {'kd': {'temperature': 1.0}, 'cross_entropy': {}}
  return (
    isinstance(arrow.guide, str)
    and not (callable(arrow.weight) or arrow.chance)
    and settings.get(arrow.objective.name) == arrow.objective.settings
  )
