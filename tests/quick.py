"""What makes tests quick."""

import functools

import jax
import pytest

# For what is compiled to be run a few times: in a quarter of the time.
OPTIONS = {
  'xla_backend_optimization_level': 0,
  'xla_cpu_use_fusion_emitters': False,
}
jit = functools.partial(jax.jit, compiler_options=OPTIONS)


@pytest.fixture(scope='module', autouse=True)
def compilation():
  """The same of all that a module's tests compile; import it to have it."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
