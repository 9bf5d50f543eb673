"""All seeds of one recipe of a study at once: trained and tested in memory.

For data whose Bayes posterior is known, the distances to it are among the
metrics, of the networks and of the target of the run's result.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

from jaxkd import problems
from jaxkd.graph import LABELS, Graph, Transfer
from jaxkd.runs import preflight
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.pretrained import (
  evaluate_pretrained,
  load_pretrained,
  sources_of,
)
from jaxkd.training import mesh as meshes
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.vmapped import train_together
from jaxkd.types import Tree, Variables

Metrics = dict[str, float]
Networks = dict[str, Metrics]  # of one run, by network


def run_together(experiments: list[Experiment]) -> list[Networks]:
  """Runs one recipe for several seeds.

  Args:
    experiments: one for each seed, which differ in nothing but seed and data.

  Returns:
    For each seed, by network, the metrics of an `Evaluator`, and under
    'train_...' those on the training split. 'NAME_best' is a trained network at
    its best epoch on the validation split. 'target', where it is defined, is
    the mean of the guides of the run's result, as if it were a network; it is
    not defined where this result is reusable, such as a teacher.
  """
  initial: list[dict[str, Variables]] = []
  for name, source in sources_of(experiments[0]).items():
    raise ValueError(
      f'seeds cannot be trained together where {name!r} is {source}: set'
      ' study.together to False'
    )
  for experiment in experiments:
    networks = load_pretrained(experiment)
    preflight.check(experiment, networks)
    evaluate_pretrained(experiment, networks)
    initial.append({name: x.variables for name, x in networks.items()})
  carried: list[dict[str, Tree]] = [{} for _ in experiments]
  results: list[Networks] = [{} for _ in experiments]
  evaluators = [_evaluators(experiment) for experiment in experiments]
  last = experiments[0].phases[-1]
  for resolved in zip(*(e.phases for e in experiments), strict=True):
    tasks = [
      phase.task(experiment.dataset)
      for phase, experiment in zip(resolved, experiments, strict=True)
    ]
    for n, outcome in enumerate(train_together(tasks, initial, carried)):
      initial[n] |= outcome.last
      carried[n] |= outcome.objectives
      modules = tasks[n].program.modules
      best = {f'{name}_best': x for name, x in outcome.best.items()}
      test, train = evaluators[n]
      for name, variables in {**outcome.last, **best}.items():
        module = modules[name.removesuffix('_best').removesuffix('_ema')]
        results[n][name] = test(module, variables) | _on_train(
          train(module, variables), len(train.split)
        )
      if not last.reusable:
        graph, learner = tasks[n].program.graph, last.graph.result
        results[n] |= _target(graph, learner, train, modules, initial[n])
  return results


def _on_train(metrics: Metrics, size: int) -> Metrics:
  """Returns metrics of the training split, under names with 'train_'.

  'train_frobenius' is the distance of all predictions from the posterior as one
  matrix, the L2 distance in the toy experiment of Hamidi et al., ECCV 2024.

  Args:
    metrics: means over the split.
    size: of the split.
  """
  renamed = {f'train_{key}': value for key, value in metrics.items()}
  if 'posterior_square' in metrics:
    square = size * metrics['posterior_square']
    renamed['train_frobenius'] = math.sqrt(square)
  return renamed


def _evaluators(experiment: Experiment) -> tuple[Evaluator, Evaluator]:
  """Returns evaluators on the test split and on the training split."""
  dataset = experiment.dataset
  settings = dataset.view, problems.of(dataset), meshes.make_mesh()
  return (
    Evaluator(dataset.test, *settings),
    Evaluator(dataset.train, *settings),
  )


def _target(
  graph: Graph,
  learner: str,
  train: Evaluator,
  modules: Mapping[str, nn.Module],
  variables: Mapping[str, Variables],
) -> Networks:
  """Returns how far the target of a learner is from the posterior.

  The target is the weighted mean of its guides' probabilities. It is defined
  where all transfers to the network match probabilities.

  Args:
    graph: of a phase.
    learner: a network, which need not be in the graph.
    train: evaluates on the training split.
    modules: by network.
    variables: by network.

  Returns:
    'target' -> metrics; {} where it is not defined.
  """
  transfers = [t for t in graph.transfers if t.learner == learner]
  posterior = train.split.posterior
  defined = transfers and all(map(_averages, transfers))
  if posterior is None or not defined:
    return {}

  def probabilities(guide):
    if guide == LABELS:
      return np.eye(posterior.shape[1])[train.split.label]
    return _predictions(train, modules[guide], variables[guide])

  weights = np.array([transfer.weight for transfer in transfers], np.float64)
  guides = [probabilities(transfer.guide) for transfer in transfers]
  target = np.tensordot(weights / weights.sum(), guides, axes=1)
  square = float(np.mean(np.sum((target - posterior) ** 2, axis=-1)))
  return {'target': _on_train({'posterior_square': square}, len(target))}


def _predictions(
  evaluator: Evaluator, module: nn.Module, variables: Variables
) -> np.ndarray:
  """Returns a network's probabilities on a whole split, [N, K]."""
  size = len(evaluator.split)
  logits = evaluator.outputs(module, variables, size).logits
  return np.asarray(jax.nn.softmax(logits))


def _averages(transfer: Transfer) -> bool:
  """Returns whether the transfer is a fixed part of a mean of probabilities."""
  return (
    transfer.objective.matches_probabilities
    and isinstance(transfer.guide, str)
    and not (callable(transfer.weight) or transfer.dropout)
  )
