"""A cache of trained networks, by the settings that determine them."""

import hashlib
import json
import os
import pathlib
import shutil
import uuid
from typing import Any

from jaxkd import checkpoints, disk, models
from jaxkd import config as configs
from jaxkd.checkpoints import Card, SavedNetwork
from jaxkd.runs import layout
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.types import Variables

FORMAT = (
  1  # to be increased when the same settings come to mean another training
)
FOLDER = 'teachers'  # the reusable networks are teachers
# Settings of a network's training that are newer than the cache. They are part
# of a key only where they differ from their defaults, so that older keys match.
LATER = (
  'read_out',
  'cross_entropy_epochs',
  'blend_epochs',
  'stop',
  'start',
  'problem',
  'settings',
  'taps',
  'image_size',
  'channels',
  'mean',
  'std',
)
# Settings of a network that is used as it is, without effect on a training.
AS_IT_IS = (
  'checkpoint',
  'weights',
  'outputs',
  'cache',
  'cache_dtype',
  'cache_gigabytes',
  'classes',
  'unmapped',
  'allow_guessing',
)
# Likewise, in the section on data.
LATER_OF_DATA = ('channels', 'hold_out', 'hold_out_seed', 'test')


class Cache:
  """A folder of networks, each named after the digest of its settings."""

  def __init__(self, folder: str | os.PathLike[str] | None = None):
    """Opens the cache.

    Args:
      folder: None or '' takes $JAXKD_CACHE, or else ~/.cache/jaxkd.
    """
    self._folder = layout.cache_folder(folder) / FOLDER

  def check(self) -> None:
    """Checks that networks can be added; raises OSError if not."""
    disk.check_writable(
      self._folder, 'the cache of teachers (--config.cache or JAXKD_CACHE)'
    )

  def path(self, settings: dict[str, Any]) -> pathlib.Path:
    """Returns where the network with these settings is or would be."""
    text = json.dumps({'format': FORMAT, **settings}, sort_keys=True)
    return self._folder / hashlib.sha256(text.encode()).hexdigest()[:20]

  def load(self, settings: dict[str, Any]) -> SavedNetwork | None:
    """Returns the network, or None if it is not in the cache."""
    folder = self.path(settings)
    return checkpoints.load(folder) if checkpoints.kind_of(folder) else None

  def store(
    self, settings: dict[str, Any], variables: Variables, card: Card
  ) -> pathlib.Path:
    """Adds a network; of two that are added at once, one is kept."""
    folder = self.path(settings)
    partial = folder.with_name(f'{folder.name}.{uuid.uuid4().hex}.partial')
    checkpoints.save(partial, variables, card)
    try:
      os.replace(partial, folder)
    except OSError:
      if not folder.exists():
        raise
      shutil.rmtree(partial)
    return folder


def settings_of(experiment: Experiment, phase: ResolvedPhase) -> dict[str, Any]:
  """Returns all settings that determine a reusable network, as JSON values.

  Args:
    experiment: of the run.
    phase: a reusable one, whose network has a section of the config.
  """
  settings = _of_config(experiment, phase)
  (name,) = phase.graph.learners
  if 'start' in settings[name]:  # its content, not its path
    model = phase.models[name]
    _, card = checkpoints.load(
      model.start,
      model.name,
      experiment.image_shape,
      model.weights,
      width=model.width,
      **model.settings,
    )
    settings[name]['start'] = card.params_sha256
  return {**settings, 'fingerprint': experiment.dataset.fingerprint}


def prepared(experiment: Experiment) -> dict[str, str]:
  """Returns a key for each reusable network that a run prepares, by phase.

  Runs with equal keys share the network through the cache. Nothing is read for
  it: data and checkpoints count by their settings.
  """
  place = str(experiment.config.cache)
  return {
    phase.name: json.dumps(
      {'cache': place, **_of_config(experiment, phase)}, sort_keys=True
    )
    for phase in experiment.phases
    if phase.prepares
  }


def _of_config(experiment: Experiment, phase: ResolvedPhase) -> dict[str, Any]:
  """Returns the settings of `settings_of`, as they are in the config."""
  config = configs.resolved(experiment.config)
  (name,) = phase.graph.learners
  model = phase.models[name]
  default = configs.resolved(configs.default())[name]
  section = {k: v for k, v in config[name].items() if k not in AS_IT_IS}
  if models.is_path(model.name):  # whose code is not ours
    section['source'] = models.source_digest(model.name)
  for key in LATER:
    if section[key] == default[key]:
      del section[key]
  of_data = {**config['data'], 'dir': ''}
  default = configs.resolved(configs.default())['data']
  for key in LATER_OF_DATA:
    if of_data[key] == default[key]:
      del of_data[key]
  optimizer = config['optimizer']
  optimizer['name'] = phase.optimizer
  for key in ('ema', 'delta'):  # without effect on its training
    del optimizer[key]
  return {
    name: section,
    'optimizer': optimizer,
    'learning_rate': phase.learning_rate,
    'epochs': phase.length,
    'schedule': config['schedule'],
    'batch_size': config['batch_size'],
    'compute_dtype': config['compute_dtype'],
    'data': of_data,
  }
