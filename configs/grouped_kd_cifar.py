"""Grouped knowledge distillation on CIFAR-100.

Paper: Zhao et al., AAAI 2023, https://arxiv.org/abs/2304.04462. Weights,
temperature and warm-up are the published code's for faces; for CIFAR-100 none
are published.

Command:

  jaxkd train grouped_kd_cifar --workdir=runs/grouped_kd
  jaxkd train grouped_kd_cifar:vgg13,vgg8 --workdir=runs/grouped_kd_vgg

Control: dkd_cifar.py, whose primary class is the label alone.

Cost: not run to its end here.

Expected: no figure, since the paper has none of CIFAR-100.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(
      name='grouped_kd',
      binary_weight=1.0,
      primary_weight=8.0,
      secondary_weight=0.0,
      temperature=4.0,
      coverage=0.93,
    ),
    label_weight=1.0,
    guide_weight=1.0,
    warmup_epochs=10,
  )
  return config
