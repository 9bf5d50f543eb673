"""Decoupled knowledge distillation on CIFAR-100.

Paper: Zhao et al., CVPR 2022, https://arxiv.org/abs/2203.08679. Weights,
temperature and warm-up are those of the authors' code for each pair
(https://github.com/megvii-research/mdistiller).

Command:

  jaxkd train dkd_cifar --workdir=runs/dkd
  jaxkd train dkd_cifar:vgg13,vgg8 --workdir=runs/dkd_vgg

A beta of 8 is published for all students of resnet32x4, for
resnet50,mobilenet_v2 and wrn_40_2,shufflenet_v1. For further pairs it is the
default.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by the authors, epoch not stated): resnet32x4 -> resnet8x4
76.32 % (73.33 % by KD); resnet56 -> resnet20 71.97 % (70.66 %); vgg13 -> vgg8
74.68 % (72.98 %).
"""

from jaxkd.config import benchmark

# Weights of the other classes' part. Of other pairs: 8.
BETAS = {
  'resnet110,resnet32': 2.0,
  'resnet56,resnet20': 2.0,
  'vgg13,mobilenet_v2': 6.0,
  'vgg13,vgg8': 6.0,
  'wrn_40_2,wrn_16_2': 6.0,
  'wrn_40_2,wrn_40_1': 6.0,
}


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(
      name='dkd', alpha=1.0, beta=BETAS.get(pair, 8.0), temperature=4.0
    ),
    label_weight=1.0,
    guide_weight=1.0,
    warmup_epochs=20,
  )
  return config
