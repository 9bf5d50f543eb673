"""Evidential knowledge distillation on CIFAR-100.

Paper: Xiang et al., ICCV 2025. Weights, prior and warm-up are those of this
pair's config in the published code (https://github.com/lyxiang-casia/EKD),
whose loss is still being changed.

Command:

  jaxkd train ekd_cifar --workdir=runs/ekd
  jaxkd train ekd_cifar:vgg13,vgg8 --workdir=runs/ekd_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected: no figure is recorded here.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective={
      'kd': dict(weight=4.5, temperature=1.0),
      'ekd': dict(weight=4.5, warmup_epochs=30),
    },
    label_weight=1.0,
  )
  return config
