"""Networks that a run is given: by checkpoints, or by what the data know."""

import pathlib
from typing import Any

import numpy as np

from jaxkd import tree
from jaxkd.config import BAYES
from jaxkd.experiment import Experiment
from jaxkd.train.checkpoint import load_checkpoint
from jaxkd.types import Variables

Network = tuple[Variables, dict[str, Any]]  # its arrays and its card


def given(experiment: Experiment) -> dict[str, Network]:
  """Returns the networks whose checkpoints a config names.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: it is another network than the config asks for; the data do not
      know their posterior.
  """
  found = {}
  graphs = [stage.graph.networks for stage in experiment.stages]
  used = {x.like or n for graph in graphs for n, x in graph.items()}
  for name in ('teacher', 'student'):
    section = experiment.config[name]
    path = section.checkpoint or section.get('start', '')
    if path and name in used:
      network = _bayes(experiment) if path == BAYES else _load(path)
      _check(experiment, name, path, network[1])
      found[name] = network
  return found


def _load(path: str) -> Network:
  variables, card = load_checkpoint(pathlib.Path(path))
  return variables, {'branches': 1, 'read_out': 'softmax', **card}


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
    'num_classes': dataset.num_classes,
    'params': tree.count(variables['params']),
    'macs': kernel.size,
    'params_sha256': tree.digest(variables),
  }
  return variables, card


def _check(
  experiment: Experiment, name: str, path: str, card: dict[str, Any]
) -> None:
  """Raises ValueError if a card is not what the config's section says."""
  section = experiment.config[name]
  wanted = {
    'model': section.name,
    'width': section.width,
    'num_classes': experiment.num_classes,
  }
  if 1 not in (card['branches'], section.get('branches', 1)):
    wanted['branches'] = section.branches  # otherwise added or merged
  if section.checkpoint and section.get('read_out'):
    wanted['read_out'] = section.read_out  # otherwise the card's
  for key, value in wanted.items():
    if card[key] != value:
      raise ValueError(
        f'the checkpoint {path} has {key} {card[key]!r}, the config asks for'
        f' a {name} with {key} {value!r}; change --config.{name} or the'
        ' checkpoint'
      )
