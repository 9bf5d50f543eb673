"""The cache of compiled programs, which runs and processes share.

JAX keeps compiled programs in a folder: a program that was compiled before, by
any process, is read in a fraction of the time. The seed of a run is an argument
of its step, so that the seeds of a study have one program.
"""

import hashlib
import os
import pathlib
import platform
from typing import Any

from jaxkd import disk
from jaxkd.runs import layout

FOLDER = 'programs'  # in the folder of everything that runs share
VARIABLE = 'JAXKD_COMPILATION_CACHE'  # 'off': compiled programs are not kept
FOLDER_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'  # another folder, JAX's own
SIZE = 2 * 10**9  # bytes; programs that were not used for longest are removed
SECONDS = 0.3  # of compilation, from which on a program is kept


def keep(folder: str | os.PathLike[str] | None = None) -> pathlib.Path | None:
  """Turns the cache on for this process, unless it is configured already.

  Args:
    folder: of everything that runs share, see `layout.cache_folder`.

  Returns:
    The folder of programs; None where they are not kept: it is turned off by
    `VARIABLE`, JAX has a cache of its own, or the folder cannot be written to.
  """
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  settings: Any = jax.config
  if not wanted() or settings.jax_compilation_cache_dir:
    return None
  place = layout.cache_folder(folder) / FOLDER / machine()
  try:
    place.mkdir(parents=True, exist_ok=True)
    disk.check_writable(place, 'the cache of compiled programs')
  except OSError:
    return None
  compilation_cache.reset_cache()  # something may have been compiled before
  jax.config.update('jax_compilation_cache_dir', str(place))
  if settings.jax_compilation_cache_max_size == -1:
    jax.config.update('jax_compilation_cache_max_size', SIZE)
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', SECONDS)
  return place


def wanted() -> bool:
  """Returns whether programs are kept in the folder of this project.

  Raises:
    ValueError: an unknown value of the environment variable.
  """
  value = os.environ.get(VARIABLE, '').lower()
  if value not in ('', 'on', 'off'):
    raise ValueError(
      f'${VARIABLE} must be on or off, got {value!r}: off keeps no compiled'
      f' programs, and ${FOLDER_VARIABLE} names another folder for them'
    )
  return value != 'off' and FOLDER_VARIABLE not in os.environ


def machine() -> str:
  """Returns a name for the kind of this machine's processor.

  Programs for a CPU contain its instructions; a home folder may be shared by
  machines of several kinds.
  """
  text = platform.machine() + platform.processor()
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    text += next((x for x in lines if x.startswith(('flags', 'Features'))), '')
  except OSError:  # not Linux
    pass
  return hashlib.sha256(text.encode()).hexdigest()[:8]
