"""Networks that a run is given: by checkpoints, or by what the data know."""

import math
import pathlib
from typing import Any

import numpy as np

from jaxkd import config as configs
from jaxkd import tree
from jaxkd.config import BAYES
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.graph import Model
from jaxkd.checkpoints import load
from jaxkd.train.evaluation import Evaluator
from jaxkd.train.phase import fitted
from jaxkd.types import Variables

Network = tuple[Variables, dict[str, Any]]  # its arrays and its card


def given(experiment: Experiment) -> dict[str, Network]:
  """Returns the networks whose checkpoints a config names.

  A file of PyTorch's is converted.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ImportError: PyTorch is needed to read it, and absent.
    ValueError: it is another network than the config asks for; the data do not
      know their posterior.
  """
  found = {}
  for name, model in _models(experiment).items():
    path = model.checkpoint or model.start
    if path:
      if path == BAYES:
        network = _bayes(experiment)
      else:
        network = _load(experiment, model, path)
      _check(experiment, name, model, path, network[1])
      found[name] = network
  return found


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


def tested(
  experiment: Experiment, found: dict[str, Network]
) -> dict[str, dict[str, float]]:
  """Measures the networks that are given to teach, before they do.

  Where the training of a network only starts from a checkpoint, what it is then
  is not what will teach.

  Args:
    experiment: whose data they are measured on.
    found: by network, what `given` has returned.

  Returns:
    By network, see `Evaluator`.

  Raises:
    ValueError: one of them is no better than guessing.
  """
  learning = {n for phase in experiment.phases for n in phase.graph.trained}
  phases: dict[str, ResolvedPhase] = {}
  for phase in reversed(experiment.phases):
    phases |= dict.fromkeys(
      (set(phase.graph.frozen) & set(found)) - learning, phase
    )
  results = {}
  for name, phase in phases.items():
    task = phase.task(experiment.dataset)
    known = fitted(task.program, {name: found[name][0]}, task.seed)
    test = Evaluator(task.dataset, task.mesh)
    results[name] = test(task.program.modules[name], known[name])
    _check_accuracy(
      experiment, name, phase.models[name], results[name]['top1']
    )
  return results


def _check_accuracy(
  experiment: Experiment, name: str, model: Model, top1: float
) -> None:
  """Raises ValueError if a network of a file says nothing about the data.

  That is what comes out if a file is another network's, or its images are to be
  normalised in another way, or its classes stand in another order.
  """
  dataset, path = experiment.dataset, model.checkpoint
  guess, size = 1 / dataset.num_classes, len(dataset.test)
  # Three standard deviations of what guessing gives on so many images.
  luck = 3 * math.sqrt(guess * (1 - guess) / size)
  if path == BAYES or top1 > guess + luck:
    return
  own = name in experiment.models
  where = f'--config.{name}.checkpoint' if own else 'checkpoint'
  mean, std = (
    ', '.join(f'{x:.4g}' for x in values)
    for values in (dataset.view.mean, dataset.view.std)
  )
  raise ValueError(
    f'the {name} of {path} has a top-1 accuracy of {100 * top1:.2f} % on the'
    f' {size:,} test images of {dataset.name}, where guessing has'
    f' {100 * guess:.2f} %: it has nothing to teach. Was it trained on these'
    f' classes, in this order, and on images normalised by mean ({mean}) and'
    f' deviation ({std})? Give it another {where}'
  )


def _load(experiment: Experiment, model: Model, path: str) -> Network:
  variables, card = load.load(
    pathlib.Path(path),
    model.name,
    experiment.image_shape,
    width=model.width,
    **configs.as_json(model.settings),
  )
  return variables, {
    'branches': 1,
    'read_out': 'softmax',
    'settings': {},
    **card,
  }


def _bayes(experiment: Experiment) -> Network:
  """Returns the linear network whose softmax is the data's posterior."""
  dataset = experiment.dataset
  if dataset.bayes is None:
    raise ValueError(
      f'the posterior of {dataset.name} is not known, so no checkpoint can be'
      f' {BAYES!r}; gaussian_mixture is a data set where it is'
    )
  kernel, bias = (np.asarray(x, np.float32) for x in dataset.bayes)
  variables: Variables = {
    'params': {'head': {'kernel': kernel, 'bias': bias}},
    'batch_stats': {},
  }
  card = {
    'model': 'linear',
    'width': 1.0,
    'branches': 1,
    'read_out': 'softmax',
    'settings': {},
    'num_classes': dataset.num_classes,
    'params': tree.count(variables['params']),
    'macs': kernel.size,
    'params_sha256': tree.digest(variables),
  }
  return variables, card


def _check(
  experiment: Experiment,
  name: str,
  model: Model,
  path: str,
  card: dict[str, Any],
) -> None:
  """Raises ValueError if a card is not what is said of the network."""
  wanted = {
    'model': model.name,
    'width': model.width,
    'num_classes': experiment.num_classes,
    'settings': configs.as_json(model.settings),
  }
  if 1 not in (card['branches'], model.branches):
    wanted['branches'] = model.branches  # otherwise added or merged
  if model.checkpoint and model.read_out:
    wanted['read_out'] = model.read_out  # otherwise the card's
  if model.checkpoint and name == 'teacher' and path != BAYES:
    view = experiment.dataset.view
    wanted |= {
      'class_names': list(experiment.dataset.class_names),
      'mean': list(view.mean),
      'std': list(view.std),
      'scale': view.scale,
    }
  where = name if name in experiment.models else 'method'
  for key, value in wanted.items():
    if card.get(key, value) != value:
      raise ValueError(
        f'the checkpoint {path} has {key} {card[key]!r}, the config asks for'
        f' a {name} with {key} {value!r}; change --config.{where} or the'
        ' checkpoint'
      )
