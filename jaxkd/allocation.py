"""How this process returns memory to the operating system.

A step allocates its temporary memory, tens to hundreds of megabytes, and frees
it. By default the C library maps such blocks anew each time, and the kernel
clears every page of them when it is first written: a tenth or more of a step on
a CPU.
"""

import ctypes
import sys

# Parameters of glibc's `mallopt`, and their values here.
_SETTINGS = {
  -3: 2**30,  # M_MMAP_THRESHOLD: smaller blocks are taken from the heap,
  -1: 2**31 - 1,  # M_TRIM_THRESHOLD: which shrinks if so much of it is free,
  -8: 1,  # M_ARENA_MAX: and is one for all threads: others hold 64 MiB at most
}


def keep_freed_memory() -> bool:
  """Makes the C library keep freed memory for the next allocations.

  To be called before JAX computes anything, since it is for threads that start
  later. Blocks of 1 GiB and more are still returned at once.

  Returns:
    Whether the C library has these settings; only glibc does, on Linux.
  """
  if not sys.platform.startswith('linux'):
    return False
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return False
  return all([mallopt(*setting) == 1 for setting in _SETTINGS.items()])
