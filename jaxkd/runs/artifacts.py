"""Networks of finished runs, the data they are evaluated on, and their guides.

A finished network is in the folder of a run, in a folder of its own, or in an
exported file.
"""

import json
import pathlib
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from jaxkd import checkpoints, data, problems
from jaxkd import config as configs
from jaxkd.checkpoints import Card, SavedNetwork
from jaxkd.checkpoints.load import RESULTS
from jaxkd.data.base import Dataset
from jaxkd.graph import Model
from jaxkd.interop.export import Predict
from jaxkd.runs import folder, interfaces, layout, sections
from jaxkd.runs.interfaces import Interface
from jaxkd.training import mesh
from jaxkd.training.evaluation import Evaluator


def load_network(workdir: pathlib.Path, name: str = '') -> SavedNetwork:
  """Reads a network of a run, or a network outside of runs.

  Args:
    workdir: the folder of a run, of a network, or an exported file.
    name: of the network in the run; '' takes its result: the student, or the
      teacher of a run that only trains one.

  Raises:
    FileNotFoundError: there is no such network; the message names those of the
      run.
    ValueError: the folder is a study's, or a file is corrupt.
  """
  if not name and checkpoints.kind_of(workdir):
    return checkpoints.load(workdir)
  config = _config_of(workdir)
  study = config.get('study', {})
  if study.get('recipes') or study.get('seeds'):
    raise ValueError(
      f'{workdir} holds a study: name one of its runs, such as'
      f' {workdir}/runs/RECIPE/seed0'
    )
  name = name or _result(workdir)
  place = layout.network(workdir, name)
  if not checkpoints.kind_of(place):
    names = sorted(
      x.name for x in place.parent.glob('*') if checkpoints.kind_of(x)
    )
    raise FileNotFoundError(
      f'no network {name!r} in {workdir}; there are: {", ".join(names)}. Name'
      ' one of them by --network, or finish the run first'
      if names
      else f'no network in {workdir} yet: finish the run first, which the same'
      ' command resumes'
    )
  network = checkpoints.load(place)
  card = network.card.replace(
    network=network.card.network or name,
    compute_dtype=network.card.compute_dtype or config['compute_dtype'],
  )
  return SavedNetwork(network.variables, card)


def _result(workdir: pathlib.Path) -> str:
  """Returns the name of the network that a run is for."""
  names = (folder.read_summary(workdir) or {}).get('networks', ())
  return next((name for name in RESULTS if name in names), RESULTS[0])


def _config_of(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the config of a run, as plain values."""
  if not layout.is_run(workdir):
    raise FileNotFoundError(
      f'no run in {workdir}: {layout.CONFIG} is missing. Name the folder'
      ' of a run, or an exported file'
    )
  return folder.read_config(workdir / layout.CONFIG)


def data_settings(
  workdir: pathlib.Path, card: Card, config: ConfigDict | None = None
) -> dict[str, Any]:
  """Returns the settings of the data that a network is evaluated on.

  Those of its run come first, then those on its card.

  Args:
    workdir: of the run, or of a network outside of runs.
    card: of the network; an exported network's has settings of the data.
    config: of the command line, or None. Its folder of the data takes
      precedence; its other settings serve a network that has none.
  """
  section = configs.resolved(config)['data'] if config is not None else {}
  settings = {} if layout.is_run(workdir) else card.data_settings or section
  settings = settings or _config_of(workdir)['data']
  return {**settings, 'dir': section.get('dir') or settings['dir']}


def load_data(settings: dict[str, Any]) -> Dataset:
  """Returns the data set that a network is evaluated on.

  Args:
    settings: of the data.
  """
  section = dict(settings)
  further = section.pop('settings')
  if section['name'].startswith('folder:'):
    # Folders were RGB before there was a choice, also those of grey images.
    section = {'channels': 3, **section}
  return data.load(**{**section, **further})


def settings_of_guide(workdir: pathlib.Path, name: str) -> Model | None:
  """Returns a run's settings of a network that is frozen in it.

  They say how its checkpoint is connected to the data.

  Args:
    workdir: of the run.
    name: of the network; None is returned if it has no section in the config.
  """
  section = _config_of(workdir).get(name)
  return sections.model_of_section(section) if section else None


def settings_outside(
  workdir: pathlib.Path, config: ConfigDict | None
) -> Model | None:
  """Returns the settings of a network that is not in the folder of a run.

  Args:
    workdir: of a network, or else of a run: None is returned.
    config: of the command line, whose section `teacher` says how the network is
      connected to the data; or None.
  """
  if config is None or layout.is_run(workdir):
    return None
  return sections.model_of_section(configs.resolved(config)['teacher'])


def interface_of(
  card: Card, dataset: Dataset, model: Model | None = None
) -> Interface:
  """Returns how a saved network is connected to a data set.

  Args:
    card: of the network.
    dataset: on which it is used.
    model: settings that come before those of the card; None: there are none.

  Raises:
    ValueError: its images or classes cannot be converted.
  """
  problem = card.known_problem or dataset.problem
  if problem != dataset.problem:
    raise ValueError(
      f'{dataset.name} has problem {dataset.problem}, but the network expects'
      f' {problem}: evaluate it on the data that it was trained for'
    )
  resolved = interfaces.interface(
    model or Model(card.model), dataset, card, 'teacher.'
  )
  assert resolved is not None, 'a network with a card has an interface'
  return resolved


def differences(
  card: Card, dataset: Dataset, model: Model | None = None
) -> list[str]:
  """Returns what differs between a saved network and a data set, as lines.

  Args:
    card: see `interface_of`.
    dataset: likewise.
    model: likewise.
  """
  lines = interface_of(card, dataset, model).lines
  return [f'{card.name}: {line}' for line in lines]


def connected(
  card: Card, dataset: Dataset, model: Model | None = None, **changes: Any
) -> nn.Module:
  """Returns the module of a saved network, for images of a data set.

  Args:
    card: see `interface_of`.
    dataset: likewise.
    model: likewise.
    **changes: see `Card.module`.
  """
  return interface_of(card, dataset, model).connect(card.module(**changes))


def predict_for(
  predict: Predict, card: Card, dataset: Dataset, model: Model | None = None
) -> Predict:
  """Returns the function that a file computes, for images of a data set.

  Args:
    predict: images of the network [B, H, W, C] -> its logits [B, J], in NumPy.
    card: see `interface_of`.
    dataset: likewise.
    model: likewise.
  """
  return interface_of(card, dataset, model).of_data(predict, np.asarray)


def evaluator(dataset: Dataset) -> Evaluator:
  """Returns an evaluator of the test split, on all devices."""
  return Evaluator(
    dataset.test, dataset.view, problems.of(dataset), mesh.make_mesh()
  )


def guides(workdir: pathlib.Path, card: Card) -> dict[str, SavedNetwork]:
  """Reads the guides of a network: those frozen in the phase that trained it.

  Args:
    workdir: of a run; any other folder or file has no guides.
    card: of the network.

  Returns:
    By name, without those that can no longer be read; see `load_guide`.
  """
  mark = layout.phase(workdir, card.phase)
  if not mark.exists():
    return {}
  names = json.loads(mark.read_text())['frozen']
  networks = {name: load_guide(workdir, name) for name in names}
  return {name: network for name, network in networks.items() if network}


def first_guide(workdir: pathlib.Path, card: Card) -> SavedNetwork | None:
  """Reads the first guide of a run, to compare the run's networks with.

  It is the first network that is frozen in any phase: further ones may have
  learned from it.

  Args:
    workdir: of a run; any other folder or file has no guides.
    card: of a network of the run.

  Returns:
    None if there is no guide, or the network is the guide itself.
  """
  if not layout.is_run(workdir):
    return None
  summary = folder.read_summary(workdir) or {}
  phases = summary.get('phases') or [card.phase]
  marks = [layout.phase(workdir, name) for name in phases]
  names = [
    name
    for mark in marks
    if mark.exists()
    for name in json.loads(mark.read_text())['frozen']
  ]
  if not names or names[0] == card.network:
    return None
  return load_guide(workdir, names[0])


def load_guide(workdir: pathlib.Path, name: str) -> SavedNetwork | None:
  """Reads a network that was frozen in a run.

  Returns:
    None if its checkpoint is gone, or now holds another network than the one in
    the run's summary; or if it was stored outputs, or a function.
  """
  if checkpoints.kind_of(layout.network(workdir, name)):
    return load_network(workdir, name)
  section = _config_of(workdir).get(name, {})
  path, summary = section.get('checkpoint'), folder.read_summary(workdir)
  if path and checkpoints.is_function('', path):
    return None
  if not path or summary is None or checkpoints.find(path) is None:
    return None
  variables, card = interfaces.load(
    sections.model_of_section(section), _data_shape(workdir)
  )
  taps = card.taps or section.get('taps', {})
  card = card.replace(network=name, taps=taps)
  of_run = summary['networks'].get(name, {}).get('params_sha256')
  return SavedNetwork(variables, card) if card.params_sha256 == of_run else None


def _data_shape(workdir: pathlib.Path) -> tuple[int, int, int]:
  """Returns the shape of the images of a run, [H, W, C]."""
  config = _config_of(workdir)
  if config['student'].get('image_size'):  # the student's is another
    return load_data(config['data']).image_shape
  return load_network(workdir).card.shape
