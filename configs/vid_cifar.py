"""Variational information distillation on CIFAR-100.

Paper: Ahn et al., CVPR 2019, https://arxiv.org/abs/1904.05835. Regressors, taps
and weight are those of the CIFAR-100 distillation benchmark (Tian, Krishnan,
Isola, 2020, https://arxiv.org/abs/1910.10699), the same for all pairs.

Command:

  jaxkd train vid_cifar --workdir=runs/vid
  jaxkd train vid_cifar:vgg13,mobilenet_v2 --workdir=runs/vid_mobilenet

Variances are learned, as in the paper and in RepDistiller. (In mdistiller they
stay at 5.)

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
73.09 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 70.38 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='vid', variance=5.0),
    label_weight=1.0,
    guide_weight=1.0,
  )
  return config
