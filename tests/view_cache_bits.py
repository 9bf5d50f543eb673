"""Trains students with each kind of view cache, empty and full.

  python tests/view_cache_bits.py FOLDER METHOD TEACHER STUDENT [MODE [LABEL]]

Prints the digests of the students, as JSON. A mode trains one student alone, in
a folder of that label. A script of its own, since bits depend on the compiler's
flags, and those of the tests are not the usual ones.
"""

import json
import pathlib
import sys

import jax
import tiny

from jaxkd import sharing
from jaxkd.runs.run import Run

POOLED = dict(name='distil', objective={'kd': 1.0, 'rkd': 1.0})


def main(folder, method, teacher, student, mode='', label=''):
  folder = pathlib.Path(folder)
  settings = dict(
    epochs=2,
    teacher__name=teacher,
    student__name=student,
    cache=str(folder / 'cache'),
    method=POOLED if method == 'pooled' else dict(name=method),
    # 44 images are five batches and a smaller one.
    data__settings__train_size=44,
    data__augment='crop_flip',
  )
  digests = {}

  def train(label: str, mode: str) -> None:
    experiment = tiny.experiment(**settings, teacher__cache=mode)
    summary = Run(experiment, folder / label).finish()
    digests[label] = summary['networks']['student']['params_sha256']

  if mode:
    train(label or mode, mode)
  else:
    train('off', 'off')
    for mode in ('host', 'device', 'disk'):
      with sharing.sharing():
        for state in ('empty', 'full'):
          train(f'{mode}, {state}', mode)
  print(json.dumps(digests))


if __name__ == '__main__':
  jax.config.update('jax_num_cpu_devices', 2)
  main(*sys.argv[1:])
