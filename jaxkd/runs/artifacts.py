"""Finished networks: found, made into modules, given their data.

A finished network is a run's, a folder of its own, or an exported file.
"""

import json
import pathlib
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from jaxkd import config as configs
from jaxkd import data, models, tree
from jaxkd.checkpoints import native
from jaxkd.runs.pretrained import Network
from jaxkd.checkpoints import load
from jaxkd.runs.layout import CONFIG
from jaxkd.train import mesh
from jaxkd.train.evaluation import Evaluator
from jaxkd.types import Variables


def find(workdir: pathlib.Path, name: str = '') -> Network:
  """Reads a network of a run, or a network that is not in a run.

  Args:
    workdir: the folder of a run, of a network, or an exported file.
    name: of the network in the run; '' takes its student, or the teacher of a
      run that only trains one.

  Raises:
    FileNotFoundError: there is no such network; the message names those that
      there are.
    ValueError: the folder is a study's.
  """
  if native.is_network(workdir) and not name:
    return native.load_network(workdir)
  config = _config_of(workdir)
  study = config.get('study', {})
  if study.get('recipes') or study.get('seeds'):
    raise ValueError(
      f'{workdir} holds a study: name one of its runs, such as'
      f' {workdir}/runs/RECIPE/seed0'
    )
  is_teacher = config['method']['name'] == 'teacher'
  name = name or ('teacher' if is_teacher else 'student')
  folder = workdir / 'networks'
  if not native.is_network(folder / name):
    there = sorted(x.name for x in folder.glob('*') if native.is_network(x))
    raise FileNotFoundError(
      f'no network {name!r} in {workdir}; there are: {", ".join(there)}. Name'
      ' one of them by --network, or finish the run first'
      if there
      else f'no network in {workdir} yet: the same command goes on with the run'
    )
  variables, card = native.load_network(folder / name)
  # What cards did not say from the beginning.
  known = {'network': name, 'compute_dtype': config['compute_dtype']}
  return variables, {**known, **card}


def _config_of(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the config of a run, as plain values."""
  path = workdir / CONFIG
  if not path.exists():
    raise FileNotFoundError(
      f'no run in {workdir}: {CONFIG} is missing. --workdir is the folder of a'
      ' run, or an exported file'
    )
  return json.loads(path.read_text())


def data_settings(
  workdir: pathlib.Path, card: dict[str, Any], config: ConfigDict | None = None
) -> dict[str, Any]:
  """Returns the settings of the data that a network is measured on.

  Args:
    workdir: of its run, where the data's settings are.
    card: of the network; an exported one has the data's settings.
    config: says where the data lie now, and for a network that has neither
      run nor settings, what they are.
  """
  given = configs.resolved(config)['data'] if config is not None else {}
  is_run = (workdir / CONFIG).exists()
  settings = {} if is_run else card.get('data_settings') or given
  settings = settings or _config_of(workdir)['data']
  return {**settings, 'dir': given.get('dir') or settings['dir']}


def evaluator(settings: dict[str, Any], card: dict[str, Any]) -> Evaluator:
  """Returns what measures a network on its test split.

  Args:
    settings: of the data.
    card: of the network.

  Raises:
    ValueError: the data are not such as the network takes.
  """
  section = dict(settings)
  dataset = data.load(**section.pop('settings'), **section)
  for what, ours, its in (
    ('classes', dataset.num_classes, card['num_classes']),
    ('image shape', list(dataset.image_shape), card['image_shape']),
  ):
    if ours != its:
      raise ValueError(
        f'{dataset.name} has {what} {ours}, the network {its}: measure it on'
        ' the data that it was made for'
      )
  return Evaluator(dataset, mesh.make_mesh())


def guide_of(workdir: pathlib.Path, name: str) -> Network | None:
  """Reads a frozen network of a run.

  Returns:
    None if it was given by a checkpoint that is not there any more, or is now
    of another network than the one that the run's summary is about.
  """
  if native.is_network(workdir / 'networks' / name):
    return find(workdir, name)
  section = _config_of(workdir).get(name, {})
  given, results = section.get('checkpoint'), workdir / 'summary.json'
  if not (given and results.exists()):
    return None
  if native.find_network(pathlib.Path(given)) is None:
    return None
  _, own = find(workdir)
  variables, card = load.load(
    pathlib.Path(given),
    section['name'],
    tuple(own['image_shape']),
    width=section['width'],
    **section.get('settings', {}),
  )
  card = {'taps': section.get('taps', {}), **card}
  known = json.loads(results.read_text())['networks'].get(name, {})
  same = card.get('params_sha256') == known.get('params_sha256')
  return (variables, card) if same else None
