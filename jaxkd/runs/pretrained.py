"""Pretrained networks of a run: from checkpoints, or the Bayes classifier."""

import math
from typing import Any

import numpy as np

from jaxkd import checkpoints, problems, tree
from jaxkd import config as configs
from jaxkd.catalog import lookup
from jaxkd.checkpoints import Card, SavedNetwork
from jaxkd.config import BAYES
from jaxkd.graph import Model
from jaxkd.problems import Problem
from jaxkd.runs import sources
from jaxkd.runs.experiment import Experiment
from jaxkd.runs.interfaces import Interface, input_of
from jaxkd.runs.phases import ResolvedPhase
from jaxkd.training.evaluation import Evaluator
from jaxkd.training.initial import module_variables
from jaxkd.training.precomputed import Source
from jaxkd.training.progress import say
from jaxkd.types import Variables


def load_pretrained(experiment: Experiment) -> dict[str, SavedNetwork]:
  """Reads the networks whose checkpoints a config names.

  Files of PyTorch are converted.

  Returns:
    By network name.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ImportError: PyTorch is needed to read it, and absent.
    ValueError: it is another network than the config asks for; the Bayes
      classifier of the data is unknown.
  """
  learners = _learners(experiment)
  networks, precomputed = {}, sources_of(experiment)
  if precomputed:
    sources.check(experiment.dataset, precomputed)
  for name, model in _models(experiment).items():
    path = model.checkpoint or model.start or model.outputs
    card = name in precomputed and precomputed[name].card
    if not path and not card:
      continue
    interface = _interface(experiment, name)
    if path == BAYES:
      network = _bayes(experiment)
    elif card:
      network = SavedNetwork(
        {'params': {}, 'batch_stats': {}}, Card.from_json(card)
      )
    else:
      network = checkpoints.load(
        path,
        model.name,
        interface.target.shape if interface else experiment.image_shape,
        model.weights,
        width=model.width,
        **configs.as_json(model.settings),
      )
    if card:  # of outputs that fit the data, or of a function that does
      networks[name] = network
      continue
    wanted = _wanted(model)
    wanted['num_classes'] = experiment.num_classes
    if interface and name not in learners:
      wanted['num_classes'] = interface.num_classes
    if model.checkpoint and name not in learners and path != BAYES:
      _check_problem(experiment, name, network.card, path)
    where = name if name in experiment.models else 'method'
    _check(network.card, wanted, f'--config.{where}', name, path)
    networks[name] = network
  return networks


def sources_of(experiment: Experiment) -> dict[str, Source]:
  """Returns where the logits of networks come from that no step runs."""
  return {n: x for phase in experiment.phases for n, x in phase.sources.items()}


def _learners(experiment: Experiment) -> set[str]:
  """Returns the networks that any phase trains; others are always frozen."""
  return {n for phase in experiment.phases for n in phase.graph.trained}


def _models(experiment: Experiment) -> dict[str, Model]:
  """Returns the model of each network that may have a checkpoint."""
  networks = {
    name: (phase, network)
    for phase in experiment.phases
    for name, network in phase.graph.networks.items()
  }
  used = {network.like or name for name, (_, network) in networks.items()}
  own = {
    name: phase.models[name]
    for name, (phase, network) in networks.items()
    if getattr(network, 'model', None)
  }
  sections = experiment.models.items()
  return {name: model for name, model in sections if name in used} | own


def _interface(experiment: Experiment, name: str) -> Interface | None:
  """Returns the interface of a network, or of a section's architecture."""
  for phase in experiment.phases:
    for network in phase.graph.networks:
      if name in (network, phase.graph.architecture(network)):
        return phase.interfaces.get(network)
  return None


def evaluate_pretrained(
  experiment: Experiment, networks: dict[str, SavedNetwork]
) -> dict[str, dict[str, float]]:
  """Evaluates the pretrained guides, before anything is trained.

  A network that only starts from its checkpoint is left out: its training
  changes it before it guides.

  Args:
    experiment: whose data they are evaluated on.
    networks: by name, as `load_pretrained` returns them.

  Returns:
    Results by network name, see `Evaluator`.

  Raises:
    ValueError: one of them is no better than guessing.
  """
  learners = _learners(experiment)
  phases: dict[str, ResolvedPhase] = {}
  for phase in reversed(experiment.phases):
    guides = set(phase.graph.frozen) & set(networks)
    phases |= dict.fromkeys(guides - learners, phase)
  results = {}
  for name, phase in phases.items():
    task = phase.task(experiment.dataset)
    dataset, source = task.dataset, task.sources.get(name)
    test = Evaluator(dataset.test, dataset.view, task.problem, task.mesh)
    if source and source.card:
      results[name] = sources.evaluate(source, task.problem, test)
    else:
      initial = {name: networks[name].variables}
      variables = module_variables(task.program, initial, task.seed)[name]
      results[name] = test(task.program.modules[name], variables)
    check_results(experiment, name, phase, results[name])
  return results


def check_results(
  experiment: Experiment,
  name: str,
  phase: ResolvedPhase,
  result: dict[str, float],
) -> None:
  """Checks that a pretrained network has something to teach.

  Args:
    experiment: on whose data it was evaluated.
    name: of the network.
    phase: in which it is frozen.
    result: of the network, see `Evaluator`.

  Raises:
    ValueError: it is no better than guessing, or its outputs are NaN.
  """
  _check_defined(experiment, name, problems.of(experiment.dataset), result)
  _check_accuracy(experiment, name, phase, result)


def _check_defined(
  experiment: Experiment, name: str, problem: Problem, result: dict[str, float]
) -> None:
  """Raises ValueError if a network's outputs are not numbers.

  An infinite metric may be right: a class of probability 0.
  """
  for metric in problem.finite:
    if math.isnan(result[metric]):
      raise ValueError(
        f'the outputs of the pretrained {name} on the test images of'
        f' {experiment.dataset.name} are NaN, though its parameters are finite:'
        f' they overflow in {experiment.config.compute_dtype}, or for images of'
        ' this normalisation. Set --config.compute_dtype=float32, or another'
        ' checkpoint'
      )


def _check_accuracy(
  experiment: Experiment,
  name: str,
  phase: ResolvedPhase,
  result: dict[str, float],
) -> None:
  """Raises ValueError if a pretrained network is no better than guessing.

  The usual causes are a file of another network, another normalisation of the
  images, and another order of the classes. A network that may guess is
  mentioned.
  """
  dataset, model = experiment.dataset, phase.models[name]
  path = model.outputs or model.checkpoint or model.name
  interface = phase.interfaces.get(name)
  problem = problems.of(dataset)
  if path == BAYES or problem.chance is None:
    return
  guess, deviation = problem.chance(dataset)
  # On a few test images, even a perfect network may be within three deviations.
  margin = min(3 * deviation, (1 - guess) / 2)
  if result[problem.headline] > guess + margin:
    return
  display = problem.displays[problem.headline]
  own = name in experiment.models
  where = f'--config.{name}.' if own else f'of {name}, '
  fact = (
    f'the {name} of {path} has {display.label}'
    f' {problem.show_headline(result)} on the {len(dataset.test):,} test images'
    f' of {dataset.name}, where guessing has {display.show(guess)}'
  )
  if model.allow_guessing:
    say(f'{fact}: it may, since allow_guessing is set')
    return
  images = input_of(dataset.image_shape, dataset.view)
  images = interface.target if interface else images
  raise ValueError(
    f'{fact}: it has nothing to teach. Was it trained on these classes, in this'
    f' order, and on images of {images}? Set {where}mean and std, image_size or'
    f' classes to its own, or another {where}checkpoint;'
    f' {where}allow_guessing=True takes it as it is'
  )


def _bayes(experiment: Experiment) -> SavedNetwork:
  """Returns the linear network whose softmax is the data's posterior."""
  dataset = experiment.dataset
  if dataset.bayes is None:
    raise ValueError(
      f'the posterior of {dataset.name} is unknown, so no checkpoint can be'
      f' {BAYES!r}; gaussian_mixture is a data set where it is known'
    )
  kernel, bias = (np.asarray(x, np.float32) for x in dataset.bayes)
  variables: Variables = {
    'params': {'head': {'kernel': kernel, 'bias': bias}},
    'batch_stats': {},
  }
  card = Card(
    model='linear',
    num_classes=dataset.num_classes,
    image_shape=dataset.image_shape,
    params=tree.count(variables['params']),
    macs=kernel.size,
    params_sha256=tree.digest(variables),
  )
  return SavedNetwork(variables, card)


def _wanted(model: Model) -> dict[str, Any]:
  """Returns the entries that a card must have for a model."""
  wanted = {
    'model': model.name,
    'width': model.width,
    'settings': configs.as_json(model.settings),
    # A single branch can become many, and many can be merged.
    'branches': model.branches,
  }
  if model.checkpoint and model.read_out:
    wanted['read_out'] = model.read_out  # otherwise the card's
  return wanted


def _check_problem(
  experiment: Experiment, name: str, card: Card, path: str
) -> None:
  """Raises ValueError if a guide was trained for another kind of labels.

  That of an unknown network is not compared.
  """
  wanted, stated = experiment.dataset.problem, ''
  if name == 'teacher':
    stated = experiment.config.teacher.problem
    if stated:
      lookup('problem', problems.CATALOG, stated)
  got = stated or card.known_problem
  if got and got != wanted:
    raise ValueError(
      f'the {name} of {path} was trained for the problem {got!r}, and'
      f' {experiment.dataset.name} poses {wanted!r}: its logits mean something'
      ' else. Take a teacher that was trained on such labels, or, if this one'
      f' was, say so by --config.teacher.problem={wanted}'
    )


def _check(
  card: Card, wanted: dict[str, Any], where: str, name: str, path: str
) -> None:
  """Raises ValueError if an entry of a card is not the wanted one.

  Entries on data that a card does not have are not compared.
  """
  entries = {
    'settings': {},
    'width': card.width,
    'branches': card.branches,
    'read_out': card.read_out,
    **card.to_json(),
  }
  if 1 in (card.branches, wanted.get('branches')):
    wanted = {key: x for key, x in wanted.items() if key != 'branches'}
  for key, value in wanted.items():
    if entries.get(key, value) != value:
      raise ValueError(
        f'the checkpoint {path} has {key} {entries[key]!r}, the config asks for'
        f' a {name} with {key} {value!r}; change {where} or the checkpoint'
      )
