"""Files of view caches: shared, torn, of killed processes, on full disks."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxkd.stores import Header, Rows, Store, create

ROOT = pathlib.Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, 'XLA_FLAGS': '', 'PYTHONPATH': str(ROOT)}
SLOTS, EXAMPLES, K = 6, 40, 5
HEADER = Header(
  Rows((K,), 'float32', pooled=3), SLOTS, EXAMPLES, {}, {}, {}, {}
)
# Writes all rows, in an order of its own, and prints after each epoch.
WRITER = """
import pathlib, sys
import numpy as np
from test_view_cache_files import HEADER, SLOTS, EXAMPLES, outputs
from jaxkd.stores import create
path, seed, rounds = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:])
rng = np.random.default_rng(seed)
store = create(path, HEADER)
for _ in range(rounds):
  for slot in rng.permutation(SLOTS):
    for part in np.split(rng.permutation(EXAMPLES), 5):
      slots = np.full(len(part), slot)
      there = store.present(slots, part)
      logits, pooled = store.outputs(slots[there], part[there])
      want = outputs(slots[there], part[there])
      assert (logits == want[0]).all() and (pooled == want[1]).all()
      store.write(slots, part, *outputs(slots, part))
  print('written', flush=True)
store.close()
"""


def outputs(slots, index):
  """Outputs that are a function of view and example."""
  base = np.asarray(slots)[:, None] * 100.0 + np.asarray(index)[:, None]
  logits = (base + np.arange(K) / 8).astype(np.float32)
  return logits, -logits[:, :3]


def writer(path, seed, rounds):
  return subprocess.Popen(
    [sys.executable, '-c', WRITER, str(path), str(seed), str(rounds)],
    env={**ENVIRONMENT, 'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests"}'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def check_all(store):
  slots = np.repeat(np.arange(SLOTS), EXAMPLES)
  index = np.tile(np.arange(EXAMPLES), SLOTS)
  assert store.present(slots, index).all()
  for got, want in zip(
    store.outputs(slots, index), outputs(slots, index), strict=True
  ):
    np.testing.assert_array_equal(got, want)


def test_two_processes_fill_one_file(tmp_path):
  """Both write all rows, and each reads what the other one has written."""
  path = tmp_path / 'x.store'
  processes = [writer(path, seed, 20) for seed in range(2)]
  for process in processes:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
  check_all(Store(path))
  assert [x.name for x in tmp_path.iterdir()] == ['x.store']


def test_a_process_that_is_killed_leaves_whole_rows(tmp_path):
  path = tmp_path / 'x.store'
  process = writer(path, 0, 10**9)
  assert process.stdout is not None
  process.stdout.readline()  # an epoch is written; the next is under way
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=60)
  check_all(Store(path))


def test_a_half_written_row_is_not_there(tmp_path):
  path, index = tmp_path / 'x.store', np.arange(EXAMPLES)
  store = create(path, HEADER)
  store.write(2, index, *outputs(np.full(EXAMPLES, 2), index))
  store.close()
  size = HEADER.rows.record.itemsize
  begin = len(HEADER.to_bytes()) + (2 * EXAMPLES + 7) * size
  whole = path.read_bytes()
  for cut in (1, 4, 5, size // 2, size - 1):
    torn = whole[: begin + cut] + bytes(size - cut) + whole[begin + size :]
    path.write_bytes(torn)
    torn_store = create(path, HEADER)
    assert np.flatnonzero(~torn_store.present(2, index)).tolist() == [7]
    torn_store.write(2, index[7:8], *outputs([2], [7]))
    torn_store.close()
    assert path.read_bytes() == whole


def test_a_full_disk_names_the_file_and_loses_nothing(tmp_path, monkeypatch):
  path, index = tmp_path / 'x.store', np.arange(EXAMPLES)
  store, write, calls = create(path, HEADER), os.pwrite, []

  def full(*arguments):
    calls.append(arguments)
    if len(calls) == 2:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(*arguments)

  monkeypatch.setattr(os, 'pwrite', full)
  store.write(0, index, *outputs(np.zeros(EXAMPLES), index))
  with pytest.raises(OSError, match=r'No space left.*x\.store'):
    store.write(1, index, *outputs(np.ones(EXAMPLES), index))
  again = create(path, HEADER)
  assert again.present(0, index).all() and not again.present(1, index).any()


@pytest.mark.slow
def test_two_runs_at_once_are_as_one(tmp_path):
  """Both train on the same teacher and data, and share one cache on disk."""
  script = pathlib.Path(__file__).with_name('view_cache_bits.py')
  command = [sys.executable, str(script), str(tmp_path), 'kd', 'mlp', 'mlp']
  subprocess.run(
    [*command, 'off'], env=ENVIRONMENT, check=True, capture_output=True
  )
  processes = [
    subprocess.Popen(
      [*command, 'disk', str(n)],
      env=ENVIRONMENT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for n in range(2)
  ]
  digests = set()
  for process in processes:
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    digests |= set(json.loads(printed.splitlines()[-1]).values())
  off = json.loads((tmp_path / 'off/summary.json').read_text())
  assert digests == {off['networks']['student']['params_sha256']}
