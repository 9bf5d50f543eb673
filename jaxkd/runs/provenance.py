"""The provenance of results: versions, devices, commit."""

import importlib.metadata
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax

import jaxkd

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def provenance() -> dict[str, Any]:
  """Returns versions, devices and the commit of the code, if it has one."""
  return {
    'jaxkd': jaxkd.__version__,
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in PACKAGES},
    'devices': [str(d.device_kind) for d in jax.devices()],
    'machine': platform.machine(),
    'git_commit': git_commit(),
    'command': sys.argv,
  }


def git_commit() -> str | None:
  """Returns the commit, with '+changes' where the code differs from it.

  None where the code is not a git checkout.
  """
  here = pathlib.Path(__file__).parent

  def git(*arguments):
    result = subprocess.run(
      ['git', '-C', here, *arguments],
      capture_output=True,
      text=True,
      check=True,
    )
    return result.stdout.strip()

  try:
    commit = git('rev-parse', 'HEAD')
    changes = git('status', '--porcelain', '--untracked-files=no')
  except (OSError, subprocess.CalledProcessError):
    return None
  return commit + ('+changes' if changes else '')
