"""Modules that wrap a network and have its attributes."""

from typing import Any

import jax.numpy as jnp


class Wrapper:
  """Forwards `width`, `branches` and `dtype` to the network that is wrapped.

  A mixin for Linen modules. A network that was not written for jaxkd may lack
  the attributes: then it has width 1, 1 branch and float32.
  """

  @property
  def wrapped(self) -> Any:
    """The network whose attributes are forwarded."""
    raise NotImplementedError

  @property
  def width(self) -> float:
    """Channel multiplier of the network."""
    return getattr(self.wrapped, 'width', 1)

  @property
  def branches(self) -> int:
    """Number of branches of the network's convolutions."""
    return getattr(self.wrapped, 'branches', 1)

  @property
  def dtype(self) -> Any:
    """Compute type of the network."""
    return getattr(self.wrapped, 'dtype', None) or jnp.float32


class NetworkWrapper(Wrapper):
  """Forwards `num_classes`, too."""

  @property
  def num_classes(self) -> int:
    """K of the network."""
    return self.wrapped.num_classes
