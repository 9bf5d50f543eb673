"""Activation boundaries on CIFAR-100: features first, then labels.

Paper: Heo et al., AAAI 2019, https://arxiv.org/abs/1811.03233. Connectors,
scale and the first phase, 30 epochs at the student's learning rate, are those
of the CIFAR-100 distillation benchmark (Tian, Krishnan, Isola, 2020,
https://arxiv.org/abs/1910.10699), the same for all pairs.

Command:

  jaxkd train ab_cifar --workdir=runs/ab
  jaxkd train ab_cifar:vgg13,mobilenet_v2 --workdir=runs/ab_mobilenet

After its first phase the student learns from labels alone.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: 270 epochs. Not run to their end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
73.17 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 69.47 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='pretrained',
    objective=dict(name='ab', margin=1.0, scale=3e-3),
    pretraining_epochs=30,
    label_weight=1.0,
  )
  return config
