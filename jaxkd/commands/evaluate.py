"""How good a finished network is, and how far it says what its guides say."""

import dataclasses
import json
import pathlib
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from jaxkd import models, plots, text
from jaxkd.checkpoints import formats
from jaxkd.checkpoints.card import fitted, module_of
from jaxkd.checkpoints.native import load_checkpoint
from jaxkd.evaluate import reliability, summary
from jaxkd.runs import describe
from jaxkd.runs.artifacts import (
  data_settings,
  evaluator,
  find,
  guide_of,
)
from jaxkd.runs.layout import CONFIG
from jaxkd.runs.pretrained import Network
from jaxkd.types import Variables

ENSEMBLE = 'ensemble'  # what several networks are called

# What is measured, as people call it, and how they are shown it.
MEASURES = {
  'top1': ('top-1', text.percent),
  'top5': ('top-5', text.percent),
  'nll': ('NLL (nats)', text.number),
  'brier': ('Brier score', text.number),
  'ece': ('ECE', text.percent),
  'posterior_square': ('squared distance to the posterior', text.number),
  'posterior_kl': ('KL(posterior || network) (nats)', text.number),
}


@dataclasses.dataclass(frozen=True)
class Measured:
  """What `measure` has found.

  card: of the network.
  data: name of the data set.
  images: of its test split.
  results: see `Evaluator`.
  guides: by frozen network that it was trained with, see `Evaluator.compare`.
  reliability: see `jaxkd.evaluate.reliability`.
  """

  card: dict[str, Any]
  data: str
  images: int
  results: dict[str, float]
  guides: dict[str, dict[str, float]]
  reliability: dict[str, np.ndarray]

  @property
  def name(self) -> str:
    """The network's name in its run."""
    return self.card.get('network', 'network')

  def __str__(self) -> str:
    rows = [
      (label, show(self.results[key]))
      for key, (label, show) in MEASURES.items()
      if key in self.results
    ]
    for guide, result in self.guides.items():
      rows += [
        (f'agreement with {guide}', text.percent(result['agreement'])),
        (f'KL({guide} || {self.name}) (nats)', text.number(result['kl'])),
      ]
    head = (f'{self.name}, {describe.model_name(self.card)}', 'test')
    return (
      f'{text.table([head, *rows], right=(1,))}\n\n'
      f'Measured on {self.images:,} test images of {self.data}.'
    )


def evaluate(
  workdir: pathlib.Path,
  name: str = '',
  file: pathlib.Path | None = None,
  config: ConfigDict | None = None,
) -> dict[str, Any]:
  """Measures a network on the test split.

  Args:
    workdir: see `measure`, as the other arguments.
    name: of the network.
    file: an exported network.
    config: see `data_settings`.

  Returns:
    'network', 'model', 'data', 'images', what `Evaluator` returns, and
    'guides': by frozen network that it was trained with, what
    `Evaluator.compare` returns.
  """
  found = measure(workdir, name, file, config)
  return {
    'network': found.name,
    'model': found.card['model'],
    'data': found.data,
    'images': found.images,
    **found.results,
    'guides': found.guides,
  }


def measure(
  workdir: pathlib.Path,
  name: str = '',
  file: pathlib.Path | None = None,
  config: ConfigDict | None = None,
) -> Measured:
  """Measures a network on the test split, and compares it with its guides.

  Args:
    workdir: of a run, or a network itself.
    name: of the network in the run; '' takes its student or else its teacher.
      Several, with commas between, are measured as one ensemble.
    file: an exported network, to be measured in the run's place, alone.
    config: see `data_settings`.

  Raises:
    FileNotFoundError: there is no such run or network.
    ImportError: the file's format needs a library that is absent.
    ValueError: a network is named twice.
  """
  if formats.is_program(file or workdir):
    return _measure_program(file or workdir, workdir, config)
  own, card = _network(workdir, name, file)
  guides = {} if file else _guides(workdir, card)
  test = evaluator(data_settings(workdir, card, config), card)
  totals = test.totals(*own)
  return Measured(
    card=card,
    data=test.dataset.name,
    images=len(test.dataset.test),
    results=summary(totals),
    guides={
      guide: test.compare(*own, module_of(its), fitted(arrays, its))
      for guide, (arrays, its) in guides.items()
    },
    reliability=reliability(totals),
  )


def _network(
  workdir: pathlib.Path, name: str, file: pathlib.Path | None
) -> tuple[tuple[nn.Module, Variables], dict[str, Any]]:
  """Returns a module with its variables, and the card."""
  if file:
    found = [load_checkpoint(file)]
  else:
    names = [each.strip() for each in name.split(',')]
    if len(set(names)) < len(names):
      raise ValueError(f'--network={name} names a network twice: name it once')
    found = [find(workdir, each) for each in names]
  modules = tuple(module_of(card) for _, card in found)
  variables = [fitted(*network) for network in found]
  cards = [card for _, card in found]
  if len(found) == 1:
    return (modules[0], variables[0]), cards[0]
  shared = {key: cards[0][key] for key in ('num_classes', 'image_shape')}
  card = {
    **shared,
    'network': ENSEMBLE,
    'model': ' + '.join(describe.model_name(card) for card in cards),
  }
  return (models.Ensemble(modules), models.members(variables)), card


def _measure_program(
  file: pathlib.Path, workdir: pathlib.Path, config: ConfigDict | None
) -> Measured:
  """Measures what an exported file computes, whatever computes it."""
  predict, card = formats.read(file)
  test = evaluator(data_settings(workdir, card, config), card)
  totals = test.totals_of(predict)
  return Measured(
    card=card,
    data=test.dataset.name,
    images=len(test.dataset.test),
    results=summary(totals),
    guides={},
    reliability=reliability(totals),
  )


def _guides(workdir: pathlib.Path, card: dict[str, Any]) -> dict[str, Network]:
  """Reads the frozen networks of the phase of a run that trained a network."""
  mark = workdir / 'phases' / f'{card.get("phase")}.json'
  if not mark.exists():
    return {}
  names = json.loads(mark.read_text())['frozen']
  found = {name: guide_of(workdir, name) for name in names}
  return {name: guide for name, guide in found.items() if guide}


def draw(found: Measured, workdir: pathlib.Path) -> pathlib.Path | None:
  """Draws how well a network of a run is calibrated.

  Args:
    found: what `measure` has returned.
    workdir: of the run.

  Returns:
    The picture, reliability.png; None if the folder is not a run's, or of an
    ensemble.
  """
  if not (workdir / CONFIG).exists() or found.name == ENSEMBLE:
    return None
  title = f'{describe.model_name(found.card)} on {found.data}'
  picture = workdir / 'reliability.png'
  return plots.reliability(
    {found.name: found.reliability}, picture, title=title
  )
