"""Which taps of their guides the objectives of a program read."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxkd.graph import LABELS
from jaxkd.graph.program import Program, fold_in
from jaxkd.graph.transfers import guide_outputs
from jaxkd.types import Array, Batch, Outputs

EVERYTHING = '*'  # in place of the names, where they cannot be listed


def taps_read(program: Program, spec: Batch, epochs: int) -> dict[str, set]:
  """Traces every objective; computes nothing.

  Args:
    program: of a phase, whose objectives have been checked.
    spec: shapes and types of a batch, see `Problem.batch_spec`.
    epochs: length of the phase.

  Returns:
    By guide: the names of its taps that any objective reads; or `EVERYTHING`,
    for one that lists the taps or reads norms.
  """
  read: dict[str, set] = {}

  def trace(key: Array, batch: Batch) -> Array:
    outputs = program.outputs_of_zeros(len(batch['index']))
    one = jax.tree.map(lambda x: x[:1], outputs)
    for transfer in program.graph.transfers:
      if transfer.guide == LABELS:
        continue
      names: set[str] = set()

      def recorded(every: Mapping[str, Outputs], names=names, of=transfer):
        guide = guide_outputs(of.guide, every)
        assert guide is not None
        return guide.replace(
          taps=_Recorder(guide.taps, names), norms=_Norms(guide.norms, names)
        )

      arguments = dict(key=fold_in(key, transfer.name))
      try:
        own, memory = transfer.objective.init(
          **arguments,
          learner=one[transfer.learner],
          guide=recorded(one),
          examples=len(batch['index']),
        )
        transfer.objective.loss(
          own,
          memory,
          **arguments,
          learner=outputs[transfer.learner],
          guide=recorded(outputs),
          batch=batch,
          epoch=jnp.zeros(()),
          epochs=epochs,
        )
      except (LookupError, TypeError, ValueError):  # takes outputs as a whole
        names.add(EVERYTHING)
      for name in transfer.guides:
        read.setdefault(name, set()).update(names)
    return jnp.zeros(())

  jax.eval_shape(trace, jax.random.key(0), spec)
  return read


class _Recorder(Mapping):
  """Taps that note which of them are read.

  Args:
    arrays: by name.
    names: gets the names.
  """

  def __init__(self, arrays: Mapping[str, Any], names: set[str]):
    self._arrays, self._names = arrays, names

  def __getitem__(self, name: str) -> Any:
    self._names.add(name)
    return self._arrays[name]

  def __iter__(self) -> Iterator[str]:
    self._names.add(EVERYTHING)
    return iter(self._arrays)

  def __len__(self) -> int:
    self._names.add(EVERYTHING)
    return len(self._arrays)


class _Norms(_Recorder):
  """Norms, of which any access counts as one to everything."""

  def __getitem__(self, name: str) -> Any:
    self._names.add(EVERYTHING)
    return self._arrays[name]
