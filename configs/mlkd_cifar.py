"""Multi-level logit distillation on CIFAR-100.

Paper: Jin, Wang and Lin, CVPR 2023,
https://doi.org/10.1109/CVPR52729.2023.02325. Weights and temperatures are the
published code's (https://github.com/Jin-Ying/Multi-Level-Logit-Distillation),
the same for all pairs.

Command:

  jaxkd train mlkd_cifar --workdir=runs/mlkd
  jaxkd train mlkd_cifar:vgg13,vgg8 --workdir=runs/mlkd_vgg

Deviation: the benchmark's 240 epochs and one view of each image,
where the published code has 480 epochs and two views.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by the authors of logit standardisation,
https://github.com/sunshangquan/logit-standardization-KD, epoch not stated):
resnet32x4 -> resnet8x4 77.08 % (73.33 % by KD); resnet56 -> resnet20 72.19 %
(70.66 %). That is with twice the epochs and two views of each image.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='mlkd', temperatures=(2.0, 3.0, 4.0, 5.0, 6.0)),
    label_weight=0.1,
    guide_weight=0.9,
  )
  return config
