"""The config's sections on networks, which only this module reads."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxkd import checkpoints, disk, methods
from jaxkd import config as configs
from jaxkd.catalog import lookup
from jaxkd.config import Config
from jaxkd.graph import Model, Phase
from jaxkd.models import READ_OUTS
from jaxkd.runs import functions

SECTIONS = ('teacher', 'student')


def models(config: Config) -> dict[str, Model]:
  """Returns the model of each section."""
  return {name: model_of_section(config[name].to_dict()) for name in SECTIONS}


def model_of_section(section: Mapping[str, Any]) -> Model:
  """Returns the model of a section of a config.

  Args:
    section: as plain values; settings that it lacks have their defaults.
  """
  model = Model(
    name=section['name'],
    width=section['width'],
    settings=section.get('settings', {}),
    taps=section.get('taps', {}),
    checkpoint=section['checkpoint'],
    branches=section.get('branches', 1),
    start=section.get('start', ''),
    read_out=section.get('read_out', ''),
    outputs=section.get('outputs', ''),
    image_size=section.get('image_size', 0),
    channels=section.get('channels', 0),
    mean=tuple(section.get('mean', ())),
    std=tuple(section.get('std', ())),
    classes=section.get('classes', ''),
    unmapped=section.get('unmapped', 'renormalise'),
    allow_guessing=section.get('allow_guessing', False),
    weights=section.get('weights', ''),
  )
  return _described(model)


def _described(model: Model) -> Model:
  """Returns a model with what its checkpoint says of it."""
  path = model.checkpoint or model.start
  own = checkpoints.hub_settings(path, model.name) if path else {}
  if own:
    model = dataclasses.replace(model, settings={**own, **model.settings})
  return functions.described(model)


def model_of(of: str | Model, models: Mapping[str, Model]) -> Model:
  """Returns a network's model.

  Args:
    of: the model itself, or the name of a section.
    models: by section.

  Raises:
    KeyError: no such section, with suggestions.
  """
  if isinstance(of, Model):
    return _described(of)
  return lookup('architecture', models, of)


def models_of(phase: Phase, models: Mapping[str, Model]) -> dict[str, Model]:
  """Returns the model of each network of a phase, by name.

  Args:
    phase: of a run.
    models: by section.
  """
  return {
    name: model_of(phase.graph.architecture(name), models)
    for name in phase.graph.networks
  }


def phases_of(config: Config) -> tuple[Phase, ...]:
  """Returns the method's phases, and before them those that it needs.

  Raises:
    KeyError: no method, teacher loss or read-out of that name, with
      suggestions.
    ValueError: a setting that the method does not take, or that contradicts
      another one.
  """
  if config.teacher.read_out:
    lookup('read-out', READ_OUTS, config.teacher.read_out)
  settings = configs.method_settings(config)
  name = settings.pop('name', '')
  phases = methods.phases(
    name,
    settings,
    teacher_settings=_teacher_settings(config),
    teacher_checkpoint=_trained_teacher(config),
    baseline=config.baseline,
    kd_baseline=config.kd_baseline,
  )
  configs.check_start(config, trains=phases[-1].reusable)
  _check_outputs(config, trains=phases[-1].reusable)
  return phases


def _check_outputs(config: Config, trains: bool) -> None:
  """Checks that stored outputs take the place of a teacher.

  Args:
    config: with the section on the teacher.
    trains: whether the run trains nothing but the teacher.

  Raises:
    ValueError: a teacher is trained or read as well.
  """
  section = config.teacher
  if section.outputs and (trains or section.checkpoint or section.start):
    raise ValueError(
      f'teacher.outputs={section.outputs!r} takes the place of a teacher, so'
      ' that none is trained or read: set it, or teacher.checkpoint and'
      " teacher.start, to ''"
    )


def _trained_teacher(config: Config) -> str:
  """Returns what makes a teacher's training unnecessary; '': nothing."""
  section = config.teacher
  function = section.name if checkpoints.is_function(section.name) else ''
  return section.checkpoint or section.outputs or function


def _teacher_settings(config: Config) -> dict[str, Any]:
  """Returns the arguments of the teacher's training."""
  section = config.teacher
  return {
    'loss': section.loss,
    'reduction': section.reduction,
    'scale': section.scale,
    'epochs': section.epochs or None,
    'learning_rate': section.learning_rate or None,
    'stop': configs.teacher_stop(config) or None,
    'cross_entropy_epochs': section.cross_entropy_epochs,
    'blend_epochs': section.blend_epochs,
    'seed': section.seed,
  }


def read_out(config: Config, name: str) -> str:
  """Returns how the outputs of a section's network become logits.

  It is that of its checkpoint's card; or, if the network is trained here (or
  its checkpoint does not exist yet), the config's, which by default is the one
  that fits the loss.

  Args:
    config: with the section.
    name: of the section.
  """
  section = config[name]
  if section.checkpoint == configs.BAYES or section.get('outputs'):
    return 'softmax'
  if checkpoints.is_function(section.name, section.checkpoint):
    return 'softmax'  # it returns logits
  path = section.checkpoint and disk.expanded(section.checkpoint)
  if path and path.exists():
    card = checkpoints.load_card(path)
    return card.read_out if card else 'softmax'
  if section.get('read_out') or 'loss' not in section:
    return section.get('read_out') or 'softmax'
  return methods.TEACHER_LOSSES[section.loss].read_out
