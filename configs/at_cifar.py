"""Attention transfer on CIFAR-100: where the maps have their energy.

Paper: Zagoruyko and Komodakis, ICLR 2017, https://arxiv.org/abs/1612.03928.
Taps and weight are those of the CIFAR-100 distillation benchmark (Tian,
Krishnan, Isola, 2020, https://arxiv.org/abs/1910.10699), the same for all
pairs.

Command:

  jaxkd train at_cifar --workdir=runs/at
  jaxkd train at_cifar:vgg13,vgg8 --workdir=runs/at_vgg

Other taps by method.objective.stages="('stage3',)", the student's, and
guide_stages likewise, the teacher's.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
73.44 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 70.55 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='at'),
    label_weight=1.0,
    guide_weight=1000.0,
  )
  return config
