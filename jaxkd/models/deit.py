"""DeiT with a distillation token (Touvron et al., ICML 2021).

https://arxiv.org/abs/2012.12877. A second learned token, behind the class one,
has a classifier of its own, which in the paper learns from the teacher's
decisions, while the first one learns from the labels.
"""

from typing import ClassVar

from jaxkd.models.vit import ViT
from jaxkd.types import Array, Outputs


class DistilledViT(ViT):
  """A ViT with two tokens, two classifiers, and the mean of their logits.

  The logits are the mean of those of both classifiers, 'head' and 'head_dist',
  in eval mode and in train mode, so that every objective of logits trains both.
  The taps 'head_class' and 'head_dist' [B, K] are the logits of each of them,
  for objectives that train them separately, as the paper does. 'pooled' is the
  class token after the last LayerNorm, 'pooled_dist' the distillation token.
  """

  TOKENS: ClassVar[tuple[str, ...]] = ('class_token', 'distillation_token')

  def classified(self, x: Array, taps: dict[str, Array]) -> Outputs:
    """Returns logits [B, K] and taps of the learned tokens [B, 2, D]."""
    taps['pooled'], taps['pooled_dist'] = x[:, 0], x[:, 1]
    by_class = taps['head_class'] = self.head('head')(x[:, 0])
    by_teacher = taps['head_dist'] = self.head('head_dist')(x[:, 1])
    return Outputs((by_class + by_teacher) / 2, taps)
