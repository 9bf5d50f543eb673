"""Neuron selectivity transfer on CIFAR-100.

Paper: Huang and Wang, 2017, https://arxiv.org/abs/1707.01219. Taps and weight
are those of the CIFAR-100 distillation benchmark (Tian, Krishnan, Isola, 2020,
https://arxiv.org/abs/1910.10699), the same for all pairs.

Command:

  jaxkd train nst_cifar --workdir=runs/nst
  jaxkd train nst_cifar:vgg13,vgg8 --workdir=runs/nst_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
73.30 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 69.60 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='nst'),
    label_weight=1.0,
    guide_weight=50.0,
  )
  return config
