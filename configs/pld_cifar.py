"""Plackett-Luce distillation on CIFAR-100.

Paper: Bassam, Zhu and Bian, https://arxiv.org/abs/2506.12542, section 5.1. It
replaces the labels' cross-entropy. The paper trains by a recipe of its own:

  epochs=250 batch_size=128 schedule.name=cosine optimizer.name=adamw \
    optimizer.learning_rate=0.001 optimizer.weight_decay=0.5

Command:

  jaxkd train pld_cifar --workdir=runs/pld
  jaxkd train pld_cifar:vgg13,vgg8 --workdir=runs/pld_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected, by the paper's recipe: 73.97 +- 0.05 % for the default pair, 70.28 +-
0.21 for resnet56,resnet20, 73.50 +- 0.30 for wrn_40_2,wrn_40_1 and 68.16 +-
0.38 for resnet50,mobilenet_v2 (published, 3 seeds; KD in the same recipe:
72.11, 69.45, 72.44, 66.61).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='pld', temperature=4.0),
    label_weight=0.0,
    guide_weight=1.0,
  )
  return config
