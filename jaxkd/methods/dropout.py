"""Guide dropout: on each batch, some guides of a learner are left out.

Son et al., ICCV 2021, https://arxiv.org/abs/2009.08825, section 3.2.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxkd.types import Array


@dataclasses.dataclass(frozen=True)
class GuideDropout:
  """The random factor of one guide's transfers.

  On each batch the factor of `dropped` guides is 0, chosen at random without
  replacement, and that of the others is 1.

  index: of this guide among the learner's guides, from 0.
  guides: how many guides the learner has.
  dropped: how many of them are left out on each batch.

  >>> str(GuideDropout(0, guides=3, dropped=1))
  '1 of 3 dropped'
  """

  index: int
  guides: int
  dropped: int

  def __call__(self, key: Array) -> Array:
    """Returns 0 or 1, float32; `key` is the same for all guides."""
    order = jax.random.permutation(key, self.guides)
    return jnp.float32(order[self.index] >= self.dropped)

  def __str__(self) -> str:
    return f'{self.dropped} of {self.guides} dropped'
