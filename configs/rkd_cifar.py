"""Relational knowledge distillation on CIFAR-100.

Paper: Park et al., CVPR 2019, https://arxiv.org/abs/1904.05068. Tap and weights
are those of the CIFAR-100 distillation benchmark (Tian, Krishnan, Isola, 2020,
https://arxiv.org/abs/1910.10699), the same for all pairs.

Command:

  jaxkd train rkd_cifar --workdir=runs/rkd
  jaxkd train rkd_cifar:vgg13,vgg8 --workdir=runs/rkd_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
71.90 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 69.61 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='rkd', distance=25.0, angle=50.0),
    label_weight=1.0,
    guide_weight=1.0,
  )
  return config
