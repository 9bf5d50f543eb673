"""Networks that a run is given: by checkpoints, or by what the data know."""

import pathlib
from typing import Any

import numpy as np

from jaxkd import tree
from jaxkd.config import BAYES, Config
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
  for name, section in _sections(experiment).items():
    path = section.checkpoint or section.get('start', '')
    if path:
      network = _bayes(experiment) if path == BAYES else _load(path)
      _check(experiment, name, section, path, network[1])
      found[name] = network
  return found


def _sections(experiment: Experiment) -> dict[str, Config]:
  """Returns what is said of each network that may have a checkpoint."""
  networks = {
    name: (stage, network)
    for stage in experiment.stages
    for name, network in stage.graph.networks.items()
  }
  used = {network.like or name for name, (_, network) in networks.items()}
  own = {
    name: experiment.section(stage, name)
    for name, (stage, network) in networks.items()
    if getattr(network, 'model', None)
  }
  config = experiment.config
  return {n: config[n] for n in ('teacher', 'student') if n in used} | own


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
  experiment: Experiment,
  name: str,
  section: Config,
  path: str,
  card: dict[str, Any],
) -> None:
  """Raises ValueError if a card is not what is said of the network."""
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
