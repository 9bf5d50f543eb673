"""Evaluation of any network on any data, in one call."""

import os
from typing import Any

from jaxkd import config as configs
from jaxkd.api import settings
from jaxkd.api.networks import Network
from jaxkd.api.results import Result
from jaxkd.data.base import Dataset
from jaxkd.runs import artifacts, layout


def evaluate(
  network: Network | Result | str | os.PathLike[str], data: Any = None
) -> dict[str, float]:
  """Returns the metrics of a network on a test split.

  Args:
    network: of a result, the result itself (its student, or else its teacher),
      or a path, see `load_network`.
    data: see `distill`; by default the data that the network was trained on. A
      network takes images of another size, and maps classes by name, as a
      teacher does.

  Returns:
    For one label for each image 'top1', 'top5', 'brier' and 'ece' (fractions)
    and 'nll' (nats).

  Raises:
    FileNotFoundError: there is no network.
    ValueError: nothing names the data that it was trained on, or data of other
      classes.
  """
  if isinstance(network, Result):
    network = network.network
  elif not isinstance(network, Network):
    network = Network(network)
  dataset = _dataset(network, data)
  test = artifacts.evaluator(dataset)
  predict = artifacts.predict_for(network.predict, network.card, dataset)
  return test.problem.summary(test.totals_of(predict))


def _dataset(network: Network, data: Any) -> Dataset:
  """Returns the data to evaluate a network on."""
  if data is not None:
    changes, dataset = settings.data(data)
    if dataset is not None:
      return dataset
    config = configs.default()
    settings.put(config, 'data', changes)
    return artifacts.load_data(config.data.to_dict())
  if network.dataset is not None:
    return network.dataset
  run = network.path.parent.parent  # of RUN/networks/NAME
  place = run if layout.is_run(run) else network.path
  try:
    return artifacts.load_data(artifacts.data_settings(place, network.card))
  except FileNotFoundError as error:
    if layout.is_run(place):
      raise
    raise ValueError(
      f'{network.path} does not say which data it was trained on: pass data='
    ) from error
