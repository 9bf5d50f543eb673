"""A strict environment: four devices, no silent rank promotion.

Warnings are errors too: see `filterwarnings` in pyproject.toml.
"""

import gc
import os

import hypothesis
import jax
import pytest

# For the tests and for the processes they start. Set JAX_PLATFORMS to run the
# suite on an accelerator.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compiled programs are kept in a cache of the tests, see below, or not at all.
os.environ.setdefault('JAXKD_COMPILATION_CACHE', 'off')
# Most of the suite's time is compilation. With these flags a training step
# compiles in two fifths of the time, and then runs for milliseconds longer.
if os.environ['JAX_PLATFORMS'] == 'cpu':
  os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_backend_optimization_level=0'
    ' --xla_cpu_use_fusion_emitters=false'
    ' --xla_cpu_parallel_codegen_split_count=1',
  )
jax.config.update('jax_platforms', os.environ['JAX_PLATFORMS'])
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Tracing makes many objects and hardly any circles: a fifth of its time went
# into the search for them. `forget` collects.
gc.set_threshold(50_000)

# The first example compiles, which is slower than any deadline; and a failure
# should be the same failure when the suite runs again.
hypothesis.settings.register_profile('jaxkd', deadline=None, derandomize=True)
hypothesis.settings.load_profile('jaxkd')


def pytest_configure(config):
  """Compiles each program once for all workers, processes and runs.

  The folder is in .pytest_cache. The key of an entry is the program, the
  versions and the flags, so a changed function is compiled again.
  """
  if not config.pluginmanager.hasplugin('cacheprovider'):
    return
  folder = os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR', str(config.cache.mkdir('jax'))
  )
  seconds = os.environ.setdefault(
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1'
  )
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update(
    'jax_persistent_cache_min_compile_time_secs', float(seconds)
  )


@pytest.fixture(scope='module', autouse=True)
def forget(request):
  """Frees what a module has compiled and cached: it adds up to gigabytes."""
  yield
  for value in vars(request.module).values():
    if hasattr(value, 'cache_clear'):  # of functools.cache
      value.cache_clear()
  jax.clear_caches()
  gc.collect()
