"""The networks of a run as results: cards, rows of the summary, the table."""

from collections.abc import Mapping
from typing import Any

from jaxkd import models, text, tree
from jaxkd.runs import describe
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.types import Variables

REPORTED = (
  'model',
  'width',
  'branches',
  'top1',
  'best_top1_on_test',
  'top5',
  'nll',
  'brier',
  'ece',
  'params',
  'macs',
  'params_sha256',
)
# Of data with a posterior, and of a network with another one's classifier.
OPTIONAL = ('posterior_square', 'posterior_kl', 'reused')


def card_of(
  experiment: Experiment, phase: ResolvedPhase, name: str, variables: Variables
) -> dict[str, Any]:
  """Returns the card of a trained network, without its test results.

  Args:
    experiment: of the run.
    phase: that has trained it.
    name: of the network.
    variables: its arrays.
  """
  model, module = phase.models[name], phase.program.modules[name]
  further = {'settings': dict(model.settings), 'taps': dict(model.taps)}
  params, macs = describe.sizes(phase.program, name)
  reused = models.reuses(module)
  dataset = experiment.dataset
  return {
    'phase': phase.name,
    'model': model.name,
    'width': model.width * phase.graph.networks[name].width,
    'branches': getattr(module, 'branches', 1),
    **{key: value for key, value in further.items() if value},
    'read_out': models.read_out_of(module),
    **({'reused': reused} if reused else {}),
    'compute_dtype': experiment.config.compute_dtype,
    'num_classes': dataset.num_classes,
    'class_names': list(dataset.class_names),
    'image_shape': list(dataset.image_shape),
    'data': dataset.name,
    'data_fingerprint': dataset.fingerprint,
    'mean': list(dataset.view.mean),
    'std': list(dataset.view.std),
    'scale': dataset.view.scale,
    'params': params,
    'macs': macs,
    'params_sha256': tree.digest(dict(variables)),
  }


def reported(card: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the part of a network's card that the summary has."""
  optional = {key: card[key] for key in OPTIONAL if key in card}
  return {key: card.get(key) for key in REPORTED} | optional


def result_table(summary: Mapping[str, Any]) -> str:
  """Returns the networks of a summary as a table.

  A measure that an older run does not have is a dash.
  """
  head = ('network', 'model', 'test top-1', 'NLL', 'Brier', 'ECE')
  rows = [
    (
      name,
      describe.model_name(network),
      text.percent(network['top1']),
      text.number(network['nll']),
      text.number(network.get('brier')),
      text.percent(network.get('ece')),
      f'{network["params"]:,}',
      f'{network["macs"] / 1e6:,.1f} M',
    )
    for name, network in summary['networks'].items()
  ]
  table = [(*head, 'parameters', 'MACs'), *rows]
  return text.table(table, right=(2, 3, 4, 5, 6, 7))
