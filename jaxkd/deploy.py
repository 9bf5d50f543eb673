"""Exporting a finished network, without what only its training needed.

It has been cut out of the dynamic teacher when it was saved; here its branches
are merged, and the biases that they brought are folded into BatchNorm.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxkd import describe, models, reparam, saved, tree
from jaxkd.finished import data_settings, evaluator, find, fitted, module_of

COMPARED = 1000  # test images, at most, whose logits are compared
TOLERANCE = 1e-5  # of the largest logit


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
  variables = fitted(variables, before)
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
  saved.save_file(output, deployed, after)
  return Exported(before, after, len(want), difference)
