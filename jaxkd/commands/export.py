"""Export of a finished network, without the parts that only training needs.

Its branches are merged, and the biases of merged BatchNorms are folded. A file
is kept only if, read back, it gives the logits of the trained network.
"""

import dataclasses
import itertools
import os
import pathlib
import tempfile
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import __version__, checkpoints, disk, models, reparam, text, tree
from jaxkd.checkpoints import Card, formats
from jaxkd.data import augment
from jaxkd.data.base import Dataset
from jaxkd.interop.export import Predict
from jaxkd.problems import Problem
from jaxkd.runs import artifacts
from jaxkd.types import Variables

COMPARED = 1000  # test images, at most, whose logits are compared
BATCH = 111  # of them, after a first one alone: 1000 = 1 + 9 * 111


@dataclasses.dataclass(frozen=True)
class Exported:
  """The result of `export`.

  before, after: cards of the trained and of the written network.
  images: number of test images on which both gave the same logits.
  difference: see `difference`.
  problem: that the data set poses.
  """

  before: Card
  after: Card
  images: int
  difference: float
  problem: Problem

  def __str__(self) -> str:
    rows = [(self.before.name, 'model', 'parameters', 'MACs')]
    for when, card in (('trained', self.before), ('exported', self.after)):
      params, macs = f'{card.params:,}', f'{card.macs / 1e6:,.1f} M'
      rows.append((when, card.model_name, params, macs))
    label = self.problem.displays[self.problem.headline].label
    return (
      f'{text.table(rows, right=(2, 3))}\n\nRead back, the file gives'
      f' {self.images:,} test images the same {_compared(self.after)}, to'
      f' {self.difference:.1e} of the largest. Test {label}:'
      f' {self.problem.show_headline(self.after.results)}'
    )


def export(
  workdir: pathlib.Path,
  output: pathlib.Path,
  name: str = '',
  dataset: Dataset | None = None,
) -> Exported:
  """Writes a run's network as the plain architecture, in one file.

  Args:
    workdir: of a finished run.
    output: the file to write; its suffix is a key of `formats.FORMATS`.
    name: of the network; '' takes the student or else the teacher.
    dataset: the run's data, if they are in memory; None reads them again.

  Raises:
    FileNotFoundError: there is no such run or network.
    ImportError: the format needs a library that is absent.
    KeyError: no such format.
    ValueError: the file's logits are not those of the network; nothing is
      written.
  """
  formats.of(output)  # before anything is read
  if ',' in name:
    raise ValueError(
      f'--network={name}: an ensemble can be evaluated, by --mode=eval, but not'
      ' exported; export its networks one by one'
    )
  disk.check_output(output)
  network = artifacts.load_network(workdir, name)
  before, variables = network.card, network.module_variables()
  settings = artifacts.data_settings(workdir, before)
  dataset = dataset or artifacts.load_data(settings)
  test = artifacts.evaluator(dataset)
  plain = before.module(dtype=jnp.float32, branches=1)
  deployed = reparam.fold_biases(reparam.merge(variables), plain, before.shape)
  deployed_module = artifacts.connected(before, dataset, branches=1)
  results = test(deployed_module, deployed)
  after = before.with_results(results).replace(
    branches=1,
    params=tree.count(deployed['params']),
    macs=models.macs(plain, before.shape),
    params_sha256=tree.digest(deployed),
    exported_from=before.params_sha256,
    layout='NHWC',
    jaxkd=__version__,
    # Where the data lie here means nothing elsewhere.
    data_settings={**settings, 'dir': ''},
  )
  trained = artifacts.connected(before, dataset, dtype=jnp.float32)
  with jax.default_matmul_precision('highest'):
    want = test.logits(trained, variables, COMPARED)
  error = _write(output, plain, deployed, after, want, dataset)
  return Exported(before, after, len(want), error, test.problem)


def _write(
  path: pathlib.Path,
  module: nn.Module,
  variables: Variables,
  card: Card,
  want: np.ndarray,
  dataset: Dataset,
) -> float:
  """Writes a network, and returns the `difference` of the file's logits.

  Raises:
    ValueError: it is above the format's tolerance; the file is removed.
  """
  form = formats.of(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    partial = pathlib.Path(folder) / path.name
    form.write(partial, module, variables, card)
    predict, written = checkpoints.load_function(partial)
    predict = artifacts.predict_for(predict, written, dataset)
    error = difference(want, logits(predict, dataset, len(want)), written)
    if not error <= form.tolerance:
      raise ValueError(
        f'the exported network would differ from the trained one by {error:.1e}'
        f' of the largest of the {_compared(card)}, more than'
        f' {form.tolerance:.0e}, so it has not been written; are its weights'
        ' finite?'
      )
    os.replace(partial, path)
  return error


def logits(predict: Predict, dataset: Dataset, examples: int) -> np.ndarray:
  """Returns the logits [N, K] of the first N = `examples` test images.

  The first image comes alone, the others in larger batches.

  Args:
    predict: images of the data [B, H, W, C] -> logits [B, K]. JAX runs it on
      the CPU, which does not round float32 before products, unless
      `JAX_PLATFORMS` leaves the CPU out.
    dataset: whose test images they are.
    examples: N.
  """
  split: Any = dataset.test  # it has either image or load
  batches = []
  edges = [0, *range(1, examples, BATCH), examples]
  with jax.default_device(_cpu()):
    for first, last in itertools.pairwise(edges):
      index = np.arange(first, last, dtype=np.int32)
      raw = split.load(index, None) if split.load else split.image[index]
      image = augment.eval_view(jnp.asarray(raw), view=dataset.view)
      batches.append(predict(np.asarray(image)))
  return np.concatenate(batches)


def _cpu() -> Any:
  """Returns the CPU as a device; None if `JAX_PLATFORMS` leaves it out."""
  try:
    return jax.local_devices(backend='cpu')[0]
  except RuntimeError:
    return None


def difference(want: np.ndarray, got: np.ndarray, card: Card) -> float:
  """Returns the largest difference between logits, over the largest logit.

  Where a read-out other than softmax gives the logits, it is that between the
  probabilities: their logarithm magnifies rounding without a limit.

  Args:
    want: [N, K].
    got: [N, K].
    card: of the network.
  """
  if _compared(card) == 'probabilities':
    want, got = (np.asarray(jax.nn.softmax(x)) for x in (want, got))
  return float(np.max(np.abs(want - got)) / np.max(np.abs(want)))


def _compared(card: Card) -> str:
  return 'logits' if card.read_out == 'softmax' else 'probabilities'


def run(workdir: pathlib.Path, output: pathlib.Path, name: str = '') -> str:
  """Exports a network, see `export`, and returns the report."""
  return f'{export(workdir, output, name)}\nWritten: {output}'
