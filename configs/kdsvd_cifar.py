"""Distillation by singular value decomposition on CIFAR-100.

Paper: Lee, Kim, Song, ECCV 2018, https://arxiv.org/abs/1807.06819. Taps and
weight are those of mdistiller (https://github.com/megvii-research/mdistiller),
as is the reading of a map as a matrix, the same for all pairs.

Command:

  jaxkd train kdsvd_cifar --workdir=runs/kdsvd
  jaxkd train kdsvd_cifar:resnet56,resnet20 --workdir=runs/kdsvd_resnet20

RepDistiller's reading is method.objective.reading=channels, for which no weight
is published. It needs equal numbers of channels (resnet56,resnet20), or
method.objective.connect=True.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected: no figure, since neither of the benchmark's two codes has published
one.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='kdsvd', reading='rows', connect=False),
    label_weight=1.0,
    guide_weight=1.0,
  )
  return config
