"""What is done with finished networks: measure them, and export them.

To export a network is to leave out what only its training needed: it has been
cut out of the dynamic teacher when it was saved, and here its branches are
merged and the biases that they brought are folded into BatchNorm.
"""

import dataclasses
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxkd import config as configs
from jaxkd import data, describe, models, plots, reparam, tree
from jaxkd.evaluate import reliability, summary
from jaxkd.experiment import DTYPES
from jaxkd.given import Network
from jaxkd.run import CONFIG
from jaxkd.train import checkpoint, mesh
from jaxkd.train.checkpoint import load_checkpoint
from jaxkd.train.evaluation import Evaluator

COMPARED = 1000  # test images, at most, whose logits are compared
TOLERANCE = 1e-5  # of the largest logit


# What is measured, as people call it, and how they are shown it.
MEASURES = {
  'top1': ('top-1', describe.percent),
  'top5': ('top-5', describe.percent),
  'nll': ('NLL (nats)', describe.number),
  'brier': ('Brier score', describe.number),
  'ece': ('ECE', describe.percent),
  'posterior_square': ('squared distance to the posterior', describe.number),
  'posterior_kl': ('KL(posterior || network) (nats)', describe.number),
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
        (f'agreement with {guide}', describe.percent(result['agreement'])),
        (f'KL({guide} || {self.name}) (nats)', describe.number(result['kl'])),
      ]
    head = (f'{self.name}, {describe.model_name(self.card)}', 'test')
    return (
      f'{describe.table([head, *rows], right=(1,))}\n\n'
      f'Measured on {self.images:,} test images of {self.data}.'
    )


@dataclasses.dataclass(frozen=True)
class Exported:
  """What `export` has done.

  before, after: cards of the network as it was trained, and as it is written.
  images: of the test split, on which both gave the same logits.
  difference: the largest between their logits, in units of the largest logit.
  """

  before: dict[str, Any]
  after: dict[str, Any]
  images: int
  difference: float

  def __str__(self) -> str:
    name = self.before.get('network', 'network')
    rows = [(name, 'model', 'parameters', 'MACs')]
    for when, card in (('trained', self.before), ('exported', self.after)):
      rows.append(
        (
          when,
          describe.model_name(card),
          f'{card["params"]:,}',
          f'{card["macs"] / 1e6:,.1f} M',
        )
      )
    return (
      f'{describe.table(rows, right=(2, 3))}\n\nLogits of'
      f' {self.images:,} test images differ by {self.difference:.1e} of the'
      f' largest at most. Test top-1: {100 * self.after["top1"]:.2f} %'
    )


def find(workdir: pathlib.Path, name: str = '') -> Network:
  """Reads a network of a run, or a network that is not in a run.

  Args:
    workdir: the folder of a run, of a network, or an exported file.
    name: of the network in the run; '' takes its student, or the teacher of a
      run that only trains one.

  Raises:
    FileNotFoundError: there is no such network; the message names those that
      there are.
  """
  if checkpoint.is_network(workdir) and not name:
    return checkpoint.load_network(workdir)
  config = _config_of(workdir)
  is_teacher = config['method']['name'] == 'teacher'
  name = name or ('teacher' if is_teacher else 'student')
  folder = workdir / 'networks'
  if not checkpoint.is_network(folder / name):
    there = sorted(x.name for x in folder.glob('*') if checkpoint.is_network(x))
    raise FileNotFoundError(
      f'no network {name!r} in {workdir}; there are: {", ".join(there)}. Name'
      ' one of them by --network, or finish the run first'
      if there
      else f'no network in {workdir} yet: the same command goes on with the run'
    )
  variables, card = checkpoint.load_network(folder / name)
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


def module_of(card: dict[str, Any], **changes: Any) -> nn.Module:
  """Returns the module that a card describes, with some attributes changed."""
  settings = {key: card.get(key, 1) for key in ('width', 'branches')}
  settings['dtype'] = DTYPES[card.get('compute_dtype', 'float32')]
  settings['read_out'] = card.get('read_out', 'softmax')
  settings |= changes
  return models.build(card['model'], card['num_classes'], **settings)


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
    file: an exported network, to be measured in the run's place, alone.
    config: see `data_settings`.

  Raises:
    FileNotFoundError: there is no such run or network.
  """
  variables, card = load_checkpoint(file) if file else find(workdir, name)
  guides = {} if file else _guides(workdir, card)
  test = evaluator(data_settings(workdir, card, config), card)
  own = module_of(card), _fitted(variables, card)
  totals = test.totals(*own)
  return Measured(
    card=card,
    data=test.dataset.name,
    images=len(test.dataset.test),
    results=summary(totals),
    guides={
      guide: test.compare(*own, module_of(its), _fitted(arrays, its))
      for guide, (arrays, its) in guides.items()
    },
    reliability=reliability(totals),
  )


def _guides(workdir: pathlib.Path, card: dict[str, Any]) -> dict[str, Network]:
  """Reads the frozen networks of the stage of a run that trained a network."""
  mark = workdir / 'stages' / f'{card.get("stage")}.json'
  if not mark.exists():
    return {}
  names = json.loads(mark.read_text())['frozen']
  found = {name: _guide(workdir, name) for name in names}
  return {name: guide for name, guide in found.items() if guide}


def _guide(workdir: pathlib.Path, name: str) -> Network | None:
  """Reads a frozen network of a run.

  Returns:
    None if it was given by a checkpoint that is not there any more, or is now
    of another network than the one that the run's summary is about.
  """
  if checkpoint.is_network(workdir / 'networks' / name):
    return find(workdir, name)
  given = _config_of(workdir).get(name, {}).get('checkpoint')
  results = workdir / 'summary.json'
  if not (given and results.exists()):
    return None
  if checkpoint.find_network(pathlib.Path(given)) is None:
    return None
  variables, card = load_checkpoint(pathlib.Path(given))
  known = json.loads(results.read_text())['networks'][name]
  same = card.get('params_sha256') == known['params_sha256']
  return (variables, card) if same else None


def draw(found: Measured, workdir: pathlib.Path) -> pathlib.Path | None:
  """Draws how well a network of a run is calibrated.

  Args:
    found: what `measure` has returned.
    workdir: of the run.

  Returns:
    The picture, reliability.png; None if the folder is not a run's.
  """
  if not (workdir / CONFIG).exists():
    return None
  title = f'{describe.model_name(found.card)} on {found.data}'
  picture = workdir / 'reliability.png'
  return plots.reliability(
    {found.name: found.reliability}, picture, title=title
  )


def _fitted(variables: Any, card: dict[str, Any]) -> Any:
  """Returns the variables in the structure of the card's module."""
  shapes = tree.shapes(module_of(card), tuple(card['image_shape']))
  return tree.fit(variables, shapes, 'the network')


def export(
  workdir: pathlib.Path, output: pathlib.Path, name: str = ''
) -> Exported:
  """Writes a run's network as the plain architecture, in one file.

  Args:
    workdir: of a finished run.
    output: the file to write.
    name: of the network; '' takes the student or else the teacher.

  Raises:
    FileNotFoundError: there is no such run or network.
    ValueError: the two networks do not agree on test images; nothing is
      written.
  """
  variables, before = find(workdir, name)
  variables = _fitted(variables, before)
  settings = data_settings(workdir, before)
  test = evaluator(settings, before)
  # Their outputs are compared as they are: a read-out need not be continuous.
  trained, plain = (
    module_of(before, dtype=jnp.float32, read_out='softmax', **change)
    for change in ({}, {'branches': 1})
  )
  shape = tuple(before['image_shape'])
  deployed = reparam.fold_biases(reparam.merge(variables), plain, shape)
  with jax.default_matmul_precision('highest'):
    want = test.logits(trained, variables, COMPARED)
    got = test.logits(plain, deployed, COMPARED)
  difference = float(np.max(np.abs(want - got)) / np.max(np.abs(want)))
  if not difference <= TOLERANCE:
    raise ValueError(
      f'the exported network would differ from the trained one by'
      f' {difference:.1e} of the largest logit, more than {TOLERANCE:.0e}, so'
      ' it has not been written; are its weights finite?'
    )
  after = {
    **before,
    **test(module_of(before, branches=1), deployed),
    'branches': 1,
    'params': tree.count(deployed['params']),
    'macs': models.macs(plain, shape),
    'params_sha256': tree.digest(deployed),
    'exported_from': before['params_sha256'],
    # Where the data lie here means nothing elsewhere.
    'data_settings': {**settings, 'dir': ''},
  }
  checkpoint.save_file(output, deployed, after)
  return Exported(before, after, len(want), difference)
