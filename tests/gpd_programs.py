"""The method's graph with networks of three convolutions in it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import reparam_nets as nets
from reparam_nets import SHAPE

from jaxkd import methods
from jaxkd.graph.program import bind
from jaxkd.training import state as states
from jaxkd.training.step import make_step

KEY = functools.partial(jax.random.key, impl='rbg')
BATCH = 8
GUIDED = dict(name='kd', temperature=2.0)


def program_of(dtype=jnp.float32, student_branches=1, **settings):
  """The method's graph with small networks in it."""
  (phase,) = methods.gpd(**{'static': GUIDED, 'noise': 0.0} | settings)

  def build(like, width, branches):
    branches = student_branches if branches is None else branches
    return nets.Branched(width, branches, dtype=dtype)

  return bind(phase.graph, build, SHAPE)


def batch_of(seed=0, size=BATCH, dtype=np.float32):
  rng = np.random.default_rng(seed)
  return {
    'image': nets.images(size, dtype, seed),
    'label': rng.integers(0, nets.CLASSES, size),
    'index': np.arange(size),
    'mask': np.ones(size, dtype),
  }


def initial_of(program, dtype=np.float32):
  """Random variables of the student and of the frozen teacher."""
  return {
    name: nets.random_variables(program.init_modules[name], seed, dtype)
    for seed, name in enumerate(('student', 'teacher'))
    if name in program.init_modules
  }


def start(program, optimizer, initial, **kwargs):
  return states.init(
    program, optimizer, KEY(0), initial, examples=BATCH, **kwargs
  )


def run(program, steps, rate=0.1, dtype=np.float32, batch=None, **kwargs):
  """States before and after some steps of SGD on one batch, and metrics."""
  optimizer, batch = optax.sgd(rate), batch or batch_of(dtype=dtype)
  step = make_step(
    program, optimizer, seed=0, steps_per_epoch=10, epochs=1, **kwargs
  )

  def train(initial, batch):
    first = start(program, optimizer, initial, ema='ema' in kwargs)
    last, metrics = jax.lax.scan(
      lambda state, _: step(state, batch), first, length=steps
    )
    return first, last, metrics

  states_and_metrics = nets.compiled(train)(initial_of(program, dtype), batch)
  return jax.tree.map(np.asarray, states_and_metrics)
