"""A table like that of a store, in memory."""

import numpy as np

from jaxkd.stores.store import Header


class Memory:
  """Outputs by view and example, in memory; see `Store`, whose methods it has.

  Rows that are not written yet take no memory.

  header: as of a store.
  """

  def __init__(self, header: Header):
    """Makes an empty table."""
    self.header, self.rows = header, header.rows
    # Of pages of zeros, which the system provides once they are written.
    self._table = np.zeros(header.slots * header.examples, self.rows.record)

  def __str__(self) -> str:
    return 'memory'

  def present(self, slot: np.ndarray | int, index: np.ndarray) -> np.ndarray:
    """Returns bool [N]: which rows are there."""
    return self._table['check'][self._position(slot, index)] != 0

  def outputs(
    self, slot: np.ndarray | int, index: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns logits and `pooled` features, if there are any."""
    rows = self._table[self._position(slot, index)]
    pooled = self.rows.features(rows) if self.rows.pooled else None
    return self.rows.decode(rows), pooled

  def write(
    self,
    slot: np.ndarray | int,
    index: np.ndarray,
    logits: np.ndarray,
    pooled: np.ndarray | None = None,
  ) -> None:
    """Writes logits; a row that is written twice is replaced.

    Raises:
      ValueError: logits that are not finite, in 16 bits.
    """
    position = self._position(slot, index)
    self._table[position] = self.rows.encode(
      logits, position, pooled, checked=False
    )

  def close(self) -> None:
    """Does nothing: the table stays as it is."""

  def _position(self, slot: np.ndarray | int, index: np.ndarray) -> np.ndarray:
    return np.asarray(slot, np.int64) * self.header.examples + index
