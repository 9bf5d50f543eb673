"""Descriptions of phases, networks and transfers, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from jaxkd import models, text
from jaxkd.checkpoints import model_name
from jaxkd.graph import Transfer, role
from jaxkd.runs.phases import ResolvedPhase


def row_name(network: Mapping[str, Any]) -> str:
  """Returns the display name of a network's model.

  Args:
    network: its entry in a summary, with 'model' and possibly 'width',
      'branches', 'read_out' and 'reused'.
  """
  keys = ('width', 'branches', 'read_out', 'reused')
  return model_name(network['model'], *map(network.get, keys))


def size_cells(params: int, macs: int) -> tuple[str, str]:
  """Returns parameters and MACs as text; '-' of a function, unknown."""
  if not params and not macs:
    return '-', '-'
  return f'{params:,}', f'{macs / 1e6:,.1f} M'


def network_cells(
  phase: ResolvedPhase, name: str
) -> tuple[str, str, str, str, str]:
  """Returns a network's name, model, role, parameters and MACs, as text.

  Args:
    phase: that it takes part in.
    name: of the network.
  """
  module, source = phase.program.modules[name], phase.sources.get(name)
  return (
    name,
    model_name(phase.models[name].name, **_particulars(module)),
    f'frozen: {source}' if source else role(phase.graph.networks[name]),
    *size_cells(*phase.sizes[name]),
  )


def phase_text(
  number: int, phase: ResolvedPhase, images: int, done: str | None = None
) -> str:
  """Returns one phase as text.

  Args:
    number: counted from 1.
    phase: the one to describe.
    images: of the training split; 0 if unknown.
    done: why it will not be trained; its graph is left out then.
  """
  head = (
    f'Phase {number}: {phase.name} ({duration(phase, images)},'
    f' {phase.optimizer} at {phase.learning_rate:g}, {phase.schedule} schedule)'
  )
  if done:
    return f'{head}: {done}'
  networks = [('network', 'model', 'role', 'parameters', 'MACs')]
  networks += [network_cells(phase, name) for name in phase.graph.networks]
  transfers = [('guide', '', 'learner', 'weight', 'objective')]
  for transfer in phase.graph.transfers:
    transfers.append(
      (
        str(transfer.guide),
        '->' if transfer.detach else '<->',
        transfer.learner,
        _weight(transfer),
        str(transfer.objective),
      )
    )
  parts = [
    head,
    _indent(text.table(networks, right=(3, 4))),
    _indent(text.table(transfers, right=(3,))),
  ]
  if phase.differences:
    parts.append(_indent('\n'.join(phase.differences)))
  if phase.graph.turns:
    turns = ', then '.join(map(' and '.join, phase.graph.turns))
    parts.append(f'  Updated one after another on each batch: {turns}')
  return '\n\n'.join(parts)


def cost_text(phases: Sequence[ResolvedPhase], images: int) -> str:
  """Returns how many steps phases take, and an estimate of their FLOPs.

  Args:
    phases: to be trained.
    images: of the training split; 0 if unknown.
  """
  if not images:
    each = ', '.join(
      f'{phase.name} {text.quantity(phase.flops.training, "FLOPs")}'
      for phase in phases
    )
    return f'Cost of training for an image: {each or "nothing"}'
  each = ', '.join(
    f'{phase.name} {text.quantity(phase.training_flops(images), "FLOPs")}'
    for phase in phases
  )
  steps, flops = totals(phases, images)
  in_all = text.quantity(flops, 'FLOPs')
  more = f' ({each})' if len(phases) > 1 else ''
  return f'Cost of training: {steps:,} steps, about {in_all}{more}'


def totals(phases: Sequence[ResolvedPhase], images: int) -> tuple[int, int]:
  """Returns the steps and the FLOPs of phases."""
  steps = sum(phase.epochs * phase.steps(images) for phase in phases)
  return steps, sum(phase.training_flops(images) for phase in phases)


def recipes_text(experiments: Mapping[str, Any], seeds: int) -> str:
  """Returns the recipes of a study as text: phases and cost of a run of each.

  Args:
    experiments: the first `Experiment` of each recipe.
    seeds: runs of a recipe.
  """
  rows = [('recipe', 'phases (epochs)', 'steps of a run', 'cost of a run')]
  whole = 0
  for name, experiment in experiments.items():
    images = experiment.source.train_images
    steps, flops = totals(experiment.phases, images)
    whole += flops * seeds
    phases = ', '.join(f'{x.name} ({x.epochs})' for x in experiment.phases)
    cost = text.quantity(flops, 'FLOPs')
    rows.append((name, phases, f'{steps:,}', cost))
  number = len(experiments)
  return (
    f'{number} recipe{"s" * (number > 1)} x {seeds} seed{"s" * (seeds > 1)}:'
    f' {number * seeds} runs, at most {text.quantity(whole, "FLOPs")}\n\n'
    + _indent(text.table(rows, right=(2, 3)))
  )


def duration(phase: ResolvedPhase, images: int = 0) -> str:
  """Returns the epochs of a phase, and the steps of each, as text.

  Args:
    phase: that is trained.
    images: of the training split; 0: the steps are left out.
  """
  of = '' if phase.epochs == phase.length else f' of {phase.length}'
  steps = f' x {phase.steps(images):,} steps' if images else ''
  return f'{phase.epochs}{of} epochs{steps}'


def _particulars(module: nn.Module) -> dict[str, Any]:
  size = {key: getattr(module, key, 1) for key in ('width', 'branches')}
  return {
    **size,
    'read_out': models.read_out_of(module),
    'reused': models.reuses(module),
  }


def _weight(transfer: Transfer) -> str:
  weight, dropout = transfer.weight, transfer.dropout
  shown = str(weight) if callable(weight) else f'{weight:g}'
  return f'{shown}, {dropout}' if dropout else shown


def _indent(block: str) -> str:
  return '\n'.join(f'  {line}' for line in block.splitlines())
