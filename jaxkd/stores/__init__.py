"""Stored logits: one file of a network's outputs, by view and example.

A store is a table of rows: slot v and example i have the logits that a frozen
network gave to view v of image i. Stores that `--mode=store` writes are
complete; the view cache is a store that training runs fill as they need it, or
a table in memory.
"""

from jaxkd.stores.memory import Memory
from jaxkd.stores.rows import DTYPES, Rows
from jaxkd.stores.store import Header, Store, check_space, create, differing

__all__ = [
  'DTYPES',
  'Header',
  'Memory',
  'Rows',
  'Store',
  'check_space',
  'create',
  'differing',
]
