"""Normalised knowledge distillation on CIFAR-100.

Paper: Yang et al., ICCV 2023, https://arxiv.org/abs/2303.13005. Weights and
temperature are the published code's on CIFAR-100
(https://github.com/yzd-v/cls_KD), for resnet34 -> resnet18; those of the
benchmark's pairs are unpublished.

Command:

  jaxkd train nkd_cifar --workdir=runs/nkd
  jaxkd train nkd_cifar:vgg13,vgg8 --workdir=runs/nkd_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected: no published figure of the benchmark's pairs.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='nkd', gamma=3.5, temperature=3.0),
    label_weight=1.0,
    guide_weight=1.0,
  )
  return config
