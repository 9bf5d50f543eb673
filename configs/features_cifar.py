"""Distillation from features on CIFAR-100: resnet32x4 teaches resnet8x4.

Papers: each objective's docstring (jaxkd/objectives) names its own. Weights,
stages before the training, and the recipe are those of the CIFAR-100
distillation benchmark (Tian, Krishnan, Isola, 2020,
https://arxiv.org/abs/1910.10699) and, for what came later, of its authors.

Command:

  python -m jaxkd.main --config=configs/features_cifar.py:at --workdir=runs/at
  python -m jaxkd.main --workdir=runs/vid \
    --config=configs/features_cifar.py:vid,vgg13,mobilenet_v2

The objective is a key of `jaxkd.objectives.WEIGHTS`. ab and fsp have a stage of
30 epochs before the training on labels, and ft one for its paraphraser. Its
learning rate is the benchmark's for students that are ResNets or wide ones; for
others it has the student's: --config.method.pretraining_rate. Between networks
of other channels, fsp and kdsvd are not defined, unless
--config.method.objective.connect=True.

Cost: not run to its end here.

Expected (published by RepDistiller, last epoch, with its own teachers): of
resnet32x4 -> resnet8x4 (72.50 % without a teacher) and of resnet56 -> resnet20
(69.06 %),

  objective  resnet8x4  resnet20     objective  resnet8x4  resnet20
  at           73.44      70.55      nst          73.30      69.60
  sp           72.94      69.67      pkt          73.64      70.34
  vid          73.09      70.38      rkd          71.90      69.61
  cc           72.97      69.63      fitnet       73.50      69.21
  ab           73.17      69.47      ft           72.86      69.84
  fsp          72.62      69.95      crd          75.51      71.16
"""

from jaxkd.catalog import lookup
from jaxkd.config import benchmark
from jaxkd.objectives import WEIGHTS

# What is not one stage with weight 1 of the cross-entropy from the beginning.
METHODS = {
  'ab': dict(name='pretrained', objective=dict(name='ab')),
  'dkd': dict(warmup_epochs=20),
  'fsp': dict(name='pretrained', objective=dict(name='fsp')),
  'ft': dict(name='ft', guide_weight=WEIGHTS['ft'], pretraining_rate=0.01),
  'kd': dict(label_weight=0.1),
  'reviewkd': dict(warmup_epochs=20),
}


def get_config(arguments: str = 'at,resnet32x4,resnet8x4'):
  """OBJECTIVE or OBJECTIVE,TEACHER,STUDENT, a pair of the benchmark."""
  name, _, pair = arguments.partition(',')
  weight = lookup("objective of the benchmark's", WEIGHTS, name)
  config = benchmark(pair or 'resnet32x4,resnet8x4')
  method = METHODS.get(name, {})
  if 'name' not in method:
    method = dict(
      name='distil', objective=dict(name=name), guide_weight=weight, **method
    )
  config.method = method
  return config
