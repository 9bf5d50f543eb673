"""Contrastive representation distillation on CIFAR-100.

Paper: Tian, Krishnan, Isola, ICLR 2020, https://arxiv.org/abs/1910.10699. Tap,
memory and weight are the published code's, the same for all pairs.

Command:

  jaxkd train crd_cifar --workdir=runs/crd
  jaxkd train crd_cifar:vgg13,vgg8 --workdir=runs/crd_vgg

Deviation: negatives are drawn with replacement, see jaxkd/objectives/crd.py.
With KD beside it, as published with a weight of 1:
method.objective="{'crd': 0.8, 'kd': 1.0}".

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: 51 MB of memory on the device. Not run to its end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
75.51 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 71.16 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='crd', dim=128, negatives=16384, temperature=0.07),
    label_weight=1.0,
    guide_weight=0.8,
  )
  return config
