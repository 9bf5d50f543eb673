"""Folders of finished runs that were never trained: a config and a summary."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxkd import config as configs


def make(
  path: pathlib.Path,
  settings: Mapping[str, Any] | None = None,
  *,
  top1: float | None = 0.5,
  nll: float = 1.0,
  commit: str = 'a' * 40,
  fingerprint: str = 'images',
  test_images: int = 100,
  pair: str = 'resnet32x4,resnet8x4',
  finished: bool = True,
  teacher: float | None = 0.75,
) -> pathlib.Path:
  """Writes a run of the CIFAR-100 benchmark, and returns its folder.

  Args:
    path: the folder.
    settings: that differ from the benchmark's, by name.
    top1: accuracy of its result.
    nll: likewise.
    commit: of the code.
    fingerprint: of the data.
    test_images: their number.
    pair: of networks.
    finished: whether there is a summary.
    teacher: accuracy of the teacher; None for a run without one.
  """
  config = configs.benchmark(pair)
  config.method = dict(name='kd')
  for key, value in (settings or {}).items():
    *parents, last = key.split('.')
    node = config
    for parent in parents:
      node = node[parent]
    node[last] = value
  resolved = configs.resolved(config)
  path.mkdir(parents=True)
  (path / 'config.json').write_text(json.dumps(resolved))
  student = {'model': config.student.name, 'top1': top1, 'nll': nll}
  networks = {'student': {**student, 'params': 7, 'macs': 8}}
  if teacher is not None:
    networks['teacher'] = {'model': config.teacher.name, 'top1': teacher}
  if config.method.name == 'teacher':
    del networks['student']
  summary = {
    'networks': networks,
    'method': resolved['method'],
    'data': config.data.name,
    'epochs': config.epochs,
    'seed': config.seed,
    'provenance': {
      'git_commit': commit,
      'data_fingerprint': fingerprint,
      'test_images': test_images,
    },
  }
  if finished:
    (path / 'summary.json').write_text(json.dumps(summary))
  return path


def over_seeds(
  folder: pathlib.Path,
  values: Sequence[float] | Mapping[int, float],
  settings: Mapping[str, Any] | None = None,
  **others: Any,
) -> pathlib.Path:
  """Writes runs FOLDER/seedN with these accuracies, and returns the folder."""
  by_seed = values if isinstance(values, Mapping) else dict(enumerate(values))
  for seed, top1 in by_seed.items():
    own = {**(settings or {}), 'seed': seed}
    make(folder / f'seed{seed}', own, top1=top1, **others)
  return folder
