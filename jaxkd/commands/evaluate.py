"""Evaluation of a finished network, and its agreement with its guides."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from jaxkd import checkpoints, models, plots, text
from jaxkd.checkpoints import Card, Kind, SavedNetwork
from jaxkd.data.base import Dataset
from jaxkd.graph import Model
from jaxkd.metrics import reliability
from jaxkd.metrics.calibration import BINS
from jaxkd.problems import Problem
from jaxkd.runs import artifacts, functions, layout
from jaxkd.training.evaluation import Evaluator
from jaxkd.types import Variables

ENSEMBLE = 'ensemble'  # the name of several networks together


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Results of a network on a test split.

  card: of the network.
  problem: that the data set poses.
  data: name of the data set.
  images: number of images of the test split.
  results: see `Evaluator`.
  guides: by name of each guide, see `Evaluator.compare`.
  reliability: see `jaxkd.metrics.reliability`.
  differences: between the networks and the data, which are converted; lines.
  """

  card: Card
  problem: Problem
  data: str
  images: int
  results: dict[str, float]
  guides: dict[str, dict[str, float]]
  reliability: dict[str, np.ndarray]
  differences: tuple[str, ...] = ()

  def __str__(self) -> str:
    rows = [
      (display.label, display.show(self.results[key]))
      for key, display in self.problem.displays.items()
      if key in self.results
    ]
    name = self.card.name
    for guide, result in self.guides.items():
      rows += [
        (f'agreement with {guide}', text.percent(result['agreement'])),
        (f'KL({guide} || {name}) (nats)', text.number(result['kl'])),
      ]
    head = (f'{name}, {self.card.model_name}', 'test')
    return '\n'.join(
      [
        text.table([head, *rows], right=(1,)),
        '',
        f'Measured on {self.images:,} test images of {self.data}.',
        *self.differences,
      ]
    )

  def to_json(self) -> dict[str, Any]:
    """Returns the results, the network and the data as JSON values."""
    return {
      'network': self.card.name,
      'model': self.card.model,
      'data': self.data,
      'images': self.images,
      **self.results,
      'guides': self.guides,
    }


def evaluate(
  workdir: pathlib.Path,
  name: str = '',
  file: pathlib.Path | None = None,
  config: ConfigDict | None = None,
) -> Evaluation:
  """Evaluates a network on the test split, and compares it with its guides.

  Args:
    workdir: of a run, or a network itself.
    name: of the network in the run; '' takes its student or else its teacher.
      Several, separated by commas, are evaluated as one ensemble.
    file: an exported network, which is evaluated instead, without guides.
    config: see `artifacts.data_settings`.

  Raises:
    FileNotFoundError: there is no such run or network.
    ImportError: the file's format needs a library that is absent.
    ValueError: a network is named twice.
  """
  place = file or workdir
  if checkpoints.kind_of(place) in (Kind.STATE_DICT, Kind.PROGRAM):
    return _evaluate_function(place, workdir, config)
  names = [''] if file else [each.strip() for each in name.split(',')]
  if len(set(names)) < len(names):
    raise ValueError(f'--network={name} names a network twice: name it once')
  networks = [artifacts.load_network(place, each) for each in names]
  first = networks[0].card
  settings = artifacts.data_settings(workdir, first, config)
  dataset = artifacts.load_data(settings)
  model = artifacts.settings_outside(place, config)
  own = [_bound(network, dataset, model) for network in networks]
  own, card = (own[0], first) if len(own) == 1 else _ensemble(own, networks)
  test = artifacts.evaluator(dataset)
  guides = {} if file else artifacts.guides(workdir, card)
  comparisons = {
    guide: test.compare(
      *own,
      *_bound(network, dataset, artifacts.settings_of_guide(workdir, guide)),
    )
    for guide, network in guides.items()
  }
  differences = [
    line
    for network in networks
    for line in artifacts.differences(network.card, dataset, model)
  ]
  totals = test.totals(*own)
  return _evaluation(card, dataset, test, totals, comparisons, differences)


Bound = tuple[nn.Module, Variables]  # a module and its variables


def _bound(
  network: SavedNetwork, dataset: Dataset, model: Model | None
) -> Bound:
  """Returns a network's module for images of a data set, and its variables.

  Args:
    network: read from a file.
    dataset: see `artifacts.interface_of`.
    model: likewise.
  """
  module = artifacts.connected(network.card, dataset, model)
  return module, network.module_variables()


def _ensemble(
  bound: Sequence[Bound], networks: Sequence[SavedNetwork]
) -> tuple[Bound, Card]:
  """Returns several networks as an ensemble, and its card."""
  if problem := networks[0].card.problem:
    names = ','.join(network.card.name for network in networks)
    raise ValueError(
      f'--network={names} names an ensemble, which averages probabilities of a'
      f' softmax, and these networks are for the problem {problem!r}: name one'
    )
  modules, variables = zip(*bound, strict=True)
  cards = [network.card for network in networks]
  card = Card(
    model=' + '.join(card.model_name for card in cards),
    network=ENSEMBLE,
    num_classes=cards[0].num_classes,
    image_shape=cards[0].image_shape,
  )
  return (models.Ensemble(modules), models.members(list(variables))), card


def _evaluate_function(
  file: pathlib.Path, workdir: pathlib.Path, config: ConfigDict | None
) -> Evaluation:
  """Evaluates the function that a file computes, ours or of another program."""
  model = artifacts.settings_outside(file, config)
  if checkpoints.is_function('', str(file)) and not checkpoints.card_of_file(
    file
  ):
    settings = artifacts.data_settings(workdir, Card(file.name), config)
    dataset = artifacts.load_data(settings)
    own = Model(file.name) if model is None else model
    own = dataclasses.replace(own, checkpoint=str(file))
    predict, _, card = functions.read(own, dataset.image_shape)
  else:
    predict, card = checkpoints.load_function(file)
    settings = artifacts.data_settings(workdir, card, config)
    dataset = artifacts.load_data(settings)
  test = artifacts.evaluator(dataset)
  predict = artifacts.predict_for(predict, card, dataset, model)
  totals = test.totals_of(predict)
  differences = artifacts.differences(card, dataset, model)
  return _evaluation(card, dataset, test, totals, {}, differences)


def _evaluation(
  card: Card,
  dataset: Dataset,
  test: Evaluator,
  totals: dict[str, np.ndarray],
  guides: dict[str, dict[str, float]],
  differences: Sequence[str],
) -> Evaluation:
  """Returns the results of a network from its sums over the test split."""
  return Evaluation(
    card=card,
    problem=test.problem,
    data=dataset.name,
    images=len(dataset.test),
    results=test.problem.summary(totals),
    guides=guides,
    reliability=reliability(totals) if set(BINS) <= set(totals) else {},
    differences=tuple(differences),
  )


def draw(evaluation: Evaluation, workdir: pathlib.Path) -> pathlib.Path | None:
  """Draws the calibration of a network of a run.

  Args:
    evaluation: of the network.
    workdir: of the run.

  Returns:
    The picture, reliability.png; None if the folder is not a run's, for an
    ensemble, and for a problem without confidences.
  """
  name = evaluation.card.name
  shown = evaluation.reliability and name != ENSEMBLE
  if not (shown and layout.is_run(workdir)):
    return None
  title = f'{evaluation.card.model_name} on {evaluation.data}'
  picture = workdir / 'reliability.png'
  return plots.reliability({name: evaluation.reliability}, picture, title=title)


def run(
  workdir: pathlib.Path,
  name: str = '',
  file: pathlib.Path | None = None,
  config: ConfigDict | None = None,
) -> str:
  """Evaluates a network, draws its calibration, and returns the report.

  Args:
    workdir: see `evaluate`, as the other arguments.
    name: of the network.
    file: an exported network.
    config: see `artifacts.data_settings`.
  """
  evaluation = evaluate(workdir, name, file, config)
  try:
    picture = None if file else draw(evaluation, workdir)
  except OSError as error:  # the run of somebody else
    return f'{evaluation}\nNot drawn: {error}'
  line = f'\nAccuracy by confidence: {picture}' if picture else ''
  return f'{evaluation}{line}'
