"""Pretrained networks of a run: from checkpoints, or the Bayes classifier."""

import math
from typing import Any

import numpy as np

from jaxkd import checkpoints, problems, tree
from jaxkd import config as configs
from jaxkd.checkpoints import Card, SavedNetwork
from jaxkd.config import BAYES
from jaxkd.graph import Model
from jaxkd.problems import Problem
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.train.evaluation import Evaluator
from jaxkd.train.phase import module_variables
from jaxkd.types import Variables


def load_pretrained(experiment: Experiment) -> dict[str, SavedNetwork]:
  """Reads the networks whose checkpoints a config names.

  Files of PyTorch are converted.

  Returns:
    By network name.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ImportError: PyTorch is needed to read it, and absent.
    ValueError: it is another network than the config asks for; the Bayes
      classifier of the data is unknown.
  """
  learners = _learners(experiment)
  networks = {}
  for name, model in _models(experiment).items():
    path = model.checkpoint or model.start
    if not path:
      continue
    if path == BAYES:
      network = _bayes(experiment)
    else:
      network = checkpoints.load(
        path,
        model.name,
        experiment.image_shape,
        model.weights,
        width=model.width,
        **configs.as_json(model.settings),
      )
    wanted = _wanted(experiment, model)
    if model.checkpoint and name not in learners and path != BAYES:
      wanted |= _wanted_of_guides(experiment)
    where = name if name in experiment.models else 'method'
    _check(network.card, wanted, f'--config.{where}', name, path)
    networks[name] = network
  return networks


def _learners(experiment: Experiment) -> set[str]:
  """Returns the networks that any phase trains; others are always frozen."""
  return {n for phase in experiment.phases for n in phase.graph.trained}


def _models(experiment: Experiment) -> dict[str, Model]:
  """Returns the model of each network that may have a checkpoint."""
  networks = {
    name: (phase, network)
    for phase in experiment.phases
    for name, network in phase.graph.networks.items()
  }
  used = {network.like or name for name, (_, network) in networks.items()}
  own = {
    name: phase.models[name]
    for name, (phase, network) in networks.items()
    if getattr(network, 'model', None)
  }
  sections = experiment.models.items()
  return {name: model for name, model in sections if name in used} | own


def evaluate_pretrained(
  experiment: Experiment, networks: dict[str, SavedNetwork]
) -> dict[str, dict[str, float]]:
  """Evaluates the pretrained guides, before anything is trained.

  A network that only starts from its checkpoint is left out: its training
  changes it before it guides.

  Args:
    experiment: whose data they are evaluated on.
    networks: by name, as `load_pretrained` returns them.

  Returns:
    Results by network name, see `Evaluator`.

  Raises:
    ValueError: one of them is no better than guessing.
  """
  learners = _learners(experiment)
  phases: dict[str, ResolvedPhase] = {}
  for phase in reversed(experiment.phases):
    guides = set(phase.graph.frozen) & set(networks)
    phases |= dict.fromkeys(guides - learners, phase)
  results = {}
  for name, phase in phases.items():
    task = phase.task(experiment.dataset)
    initial = {name: networks[name].variables}
    variables = module_variables(task.program, initial, task.seed)[name]
    dataset = task.dataset
    test = Evaluator(dataset.test, dataset.view, task.problem, task.mesh)
    results[name] = test(task.program.modules[name], variables)
    _check_defined(experiment, name, task.problem, results[name])
    _check_accuracy(experiment, name, phase.models[name], results[name])
  return results


def _check_defined(
  experiment: Experiment, name: str, problem: Problem, result: dict[str, float]
) -> None:
  """Raises ValueError if a network's outputs are not numbers.

  An infinite metric may be right: a class of probability 0.
  """
  for metric in problem.finite:
    if math.isnan(result[metric]):
      raise ValueError(
        f'the outputs of the pretrained {name} on the test images of'
        f' {experiment.dataset.name} are NaN, though its parameters are finite:'
        f' they overflow in {experiment.config.compute_dtype}, or for images of'
        ' this normalisation. Set --config.compute_dtype=float32, or another'
        ' checkpoint'
      )


def _check_accuracy(
  experiment: Experiment, name: str, model: Model, result: dict[str, float]
) -> None:
  """Raises ValueError if a pretrained network is no better than guessing.

  The usual causes are a file of another network, another normalisation of the
  images, and another order of the classes.
  """
  dataset, path = experiment.dataset, model.checkpoint
  problem = problems.of(dataset)
  if path == BAYES or problem.chance is None:
    return
  guess, deviation = problem.chance(dataset)
  if result[problem.headline] > guess + 3 * deviation:
    return
  display = problem.displays[problem.headline]
  own = name in experiment.models
  where = f'--config.{name}.checkpoint' if own else 'checkpoint'
  mean, std = (
    ', '.join(f'{x:.4g}' for x in values)
    for values in (dataset.view.mean, dataset.view.std)
  )
  raise ValueError(
    f'the {name} of {path} has {display.label}'
    f' {problem.show_headline(result)} on the {len(dataset.test):,} test images'
    f' of {dataset.name}, where guessing has {display.show(guess)}: it has'
    f' nothing to teach. Was it trained on these classes, in this order, and on'
    f' images normalised by mean ({mean}) and deviation ({std})? Set another'
    f' {where}'
  )


def _bayes(experiment: Experiment) -> SavedNetwork:
  """Returns the linear network whose softmax is the data's posterior."""
  dataset = experiment.dataset
  if dataset.bayes is None:
    raise ValueError(
      f'the posterior of {dataset.name} is unknown, so no checkpoint can be'
      f' {BAYES!r}; gaussian_mixture is a data set where it is known'
    )
  kernel, bias = (np.asarray(x, np.float32) for x in dataset.bayes)
  variables: Variables = {
    'params': {'head': {'kernel': kernel, 'bias': bias}},
    'batch_stats': {},
  }
  card = Card(
    model='linear',
    num_classes=dataset.num_classes,
    image_shape=dataset.image_shape,
    params=tree.count(variables['params']),
    macs=kernel.size,
    params_sha256=tree.digest(variables),
  )
  return SavedNetwork(variables, card)


def _wanted(experiment: Experiment, model: Model) -> dict[str, Any]:
  """Returns the entries that a card must have for a model."""
  wanted = {
    'model': model.name,
    'width': model.width,
    'num_classes': experiment.num_classes,
    'settings': configs.as_json(model.settings),
    # A single branch can become many, and many can be merged.
    'branches': model.branches,
  }
  if model.checkpoint and model.read_out:
    wanted['read_out'] = model.read_out  # otherwise the card's
  return wanted


def _wanted_of_guides(experiment: Experiment) -> dict[str, Any]:
  """Returns further entries of a network that is used as it is."""
  dataset = experiment.dataset
  return {
    'class_names': list(dataset.class_names),
    'mean': list(dataset.view.mean),
    'std': list(dataset.view.std),
    'scale': dataset.view.scale,
  }


def _check(
  card: Card, wanted: dict[str, Any], where: str, name: str, path: str
) -> None:
  """Raises ValueError if an entry of a card is not the wanted one.

  Entries on data that a card does not have are not compared.
  """
  entries = {
    'settings': {},
    'width': card.width,
    'branches': card.branches,
    'read_out': card.read_out,
    **card.to_json(),
  }
  if 1 in (card.branches, wanted['branches']):
    wanted = {key: x for key, x in wanted.items() if key != 'branches'}
  for key, value in wanted.items():
    if entries.get(key, value) != value:
      raise ValueError(
        f'the checkpoint {path} has {key} {entries[key]!r}, the config asks for'
        f' a {name} with {key} {value!r}; change {where} or the checkpoint'
      )
