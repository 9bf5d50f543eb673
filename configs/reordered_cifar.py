"""Sorted logits, SortKD, on CIFAR-100.

Paper: Limantoro, IEEE Signal Processing Letters 2025,
https://arxiv.org/abs/2508.16544. Weights and temperature are those of KD.

Command:

  jaxkd train reordered_cifar --workdir=runs/reordered
  jaxkd train reordered_cifar:vgg13,vgg8 --workdir=runs/reordered_vgg

Around another objective: method.objective="{'name': 'reordered', 'objective':
'dkd'}" method.label_weight=1 method.guide_weight=1.

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
    objective=dict(
      name='reordered', objective=dict(name='kd', temperature=4.0)
    ),
    label_weight=0.1,
    guide_weight=0.9,
  )
  return config
