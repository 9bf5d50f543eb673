"""The networks of a run as results: cards, rows of the summary, the table."""

from collections.abc import Mapping
from typing import Any

from jaxkd import config as configs
from jaxkd import models, problems, text, tree
from jaxkd.catalog import lookup
from jaxkd.checkpoints import Card
from jaxkd.checkpoints.card import USUAL
from jaxkd.problems import Problem
from jaxkd.runs import describe
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.interfaces import input_of
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.runs.pretrained import sources_of
from jaxkd.runs.provenance import provenance
from jaxkd.types import Variables


def card_of(
  experiment: Experiment, phase: ResolvedPhase, name: str, variables: Variables
) -> Card:
  """Returns the card of a trained network, without its test results.

  Args:
    experiment: of the run.
    phase: in which it was trained.
    name: of the network.
    variables: its arrays.
  """
  model, module = phase.models[name], phase.program.modules[name]
  params, macs = phase.sizes[name]
  dataset = experiment.dataset
  interface = phase.interfaces.get(name)
  own = interface.target if interface else None
  own = own or input_of(dataset.image_shape, dataset.view)
  return Card(
    phase=phase.name,
    model=model.name,
    width=model.width * phase.graph.networks[name].width,
    branches=getattr(module, 'branches', 1),
    settings=model.settings,
    taps=model.taps,
    read_out=models.read_out_of(module),
    reused=models.reuses(module) or {},
    compute_dtype=experiment.config.compute_dtype,
    num_classes=dataset.num_classes,
    class_names=tuple(dataset.class_names),
    problem='' if dataset.problem == USUAL else dataset.problem,
    image_shape=own.shape,
    data=dataset.name,
    data_fingerprint=dataset.fingerprint,
    mean=own.mean,
    std=own.std,
    scale=own.scale,
    params=params,
    macs=macs,
    params_sha256=tree.digest(dict(variables)),
  )


def reported(card: Card, problem: Problem) -> dict[str, Any]:
  """Returns a network's entry in the summary, a part of its card."""
  displays = problem.reported
  always = [name for name, display in displays.items() if not display.optional]
  keys = ('model', 'width', 'branches', *always)
  keys += ('params', 'macs', 'params_sha256')
  optional = (*(name for name in displays if name not in always), 'reused')
  entries = card.to_json()
  return {
    **{key: entries.get(key) for key in keys},
    **{key: entries[key] for key in optional if key in entries},
  }


def summary_of(
  experiment: Experiment,
  cards: Mapping[str, Card],
  phases: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
  """Returns the result of a run.

  Args:
    experiment: of the run.
    cards: of all networks, by name.
    phases: by name, the records of the finished phases.
  """
  config, dataset = experiment.config, experiment.dataset
  last = phases[experiment.phases[-1].name]
  frozen = {n for p in experiment.phases for n in p.graph.frozen}
  guides = {n: str(x) for n, x in sources_of(experiment).items()}
  return {
    'networks': {
      name: reported(card, problems.of(dataset)) for name, card in cards.items()
    },
    'method': configs.resolved(config)['method'],
    'data': dataset.name,
    'problem': dataset.problem,
    'epochs': config.epochs,
    'seed': config.seed,
    'seconds': sum(phase['seconds'] for phase in phases.values()),
    'images_per_second': last['images_per_second'],
    'phases': phases,
    'provenance': {
      **provenance(),
      'data_fingerprint': dataset.fingerprint,
      'train_images': len(dataset.train),
      'test_images': len(dataset.test),
      'guide_fingerprints': {
        n: card.params_sha256 for n, card in cards.items() if n in frozen
      },
      **({'guide_sources': guides} if guides else {}),
    },
  }


def result_table(summary: Mapping[str, Any]) -> str:
  """Returns the networks of a summary as a table.

  A metric that an older run does not have is a dash.
  """
  problem = lookup(
    'problem', problems.CATALOG, summary.get('problem', 'classification')
  )
  displays = {k: x for k, x in problem.displays.items() if x.column}
  columns = [display.column for display in displays.values()]
  rows = [
    (
      name,
      describe.row_name(network),
      *(display.show(network.get(key)) for key, display in displays.items()),
      *describe.size_cells(network['params'], network['macs']),
    )
    for name, network in summary['networks'].items()
  ]
  head = ('network', 'model', *columns, 'parameters', 'MACs')
  return text.table([head, *rows], right=tuple(range(2, len(head))))
