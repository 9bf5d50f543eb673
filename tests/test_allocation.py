"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

from jaxkd import allocation

SCRIPT = """
import resource
import numpy as np
from jaxkd.allocation import keep_freed_memory
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def count():
  np.ones(2**24, np.uint8)  # 4096 pages
  before = faults()
  np.ones(2**24, np.uint8)
  return faults() - before
print(keep_freed_memory(), count())
"""


@pytest.mark.skipif(
  not sys.platform.startswith('linux'), reason='a setting of glibc'
)
def test_the_next_allocation_needs_no_new_pages():
  line = subprocess.check_output([sys.executable, '-c', SCRIPT], text=True)
  kept, faults = line.split()
  assert kept == 'True' and int(faults) < 100


def test_other_systems_are_left_alone(monkeypatch):
  monkeypatch.setattr(sys, 'platform', 'darwin')
  assert not allocation.keep_freed_memory()
