"""Inputs of the golden values, equal to those of the benchmark's code.

They are waves c sin(a i + b), with i in the order of that code's [B, C, H, W],
transposed to [B, H, W, C].
"""

import numpy as np
from test_losses import wave


def signed(shape, a: float, b: float, c: float) -> np.ndarray:
  """Returns a map [B, H, W, C]; the shape is [B, C, H, W]."""
  return wave(a, b, c, shape).transpose(0, 2, 3, 1)


def rectified(shape, a: float, b: float, c: float) -> np.ndarray:
  return np.maximum(signed(shape, a, b, c), 0)


S1 = rectified((4, 6, 8, 8), 0.13, 0.2, 1)
T1 = rectified((4, 8, 8, 8), 0.17, 0.4, 1.5)
S2 = rectified((4, 12, 4, 4), 0.23, 0.1, 1)
T2 = rectified((4, 16, 8, 8), 0.19, 0.6, 1.2)
T2_SMALL = T2.reshape(4, 4, 2, 4, 2, 16).mean(axis=(2, 4))
S_VECTORS = wave(0.9, 0.2, 1, (4, 12))
T_VECTORS = wave(0.37, 0.8, 2, (4, 16))
T_EMBEDDINGS = wave(0.37, 0.8, 2, (4, 12))
SOURCE = signed((4, 2, 3, 3), 0.31, 0.2, 2)
TARGET = signed((4, 2, 3, 3), 0.47, 0.9, 2)
U1 = signed((4, 6, 8, 8), 0.29, 0.7, 1)
U2 = signed((4, 12, 4, 4), 0.29, 0.7, 1)
U3 = signed((4, 12, 1, 1), 0.29, 0.7, 1)
U4 = signed((4, 12, 4, 4), 0.41, 0.7, 1)
