"""Curriculum temperature on CIFAR-100: KD that learns to be harder.

Paper: Li et al., AAAI 2023, https://arxiv.org/abs/2211.16231. Weights, range
and curriculum are the published code's (https://github.com/zhengli97/CTKD),
with one temperature for all examples, the same for all pairs.

Command:

  jaxkd train ctkd_cifar --workdir=runs/ctkd
  jaxkd train ctkd_cifar:vgg13,vgg8 --workdir=runs/ctkd_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by the authors of logit standardisation,
https://github.com/sunshangquan/logit-standardization-KD, epoch not stated):
resnet32x4 -> resnet8x4 73.39 % (73.33 % by KD); resnet56 -> resnet20 71.19 %
(70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  base = dict(name='kd', temperature=1.0)
  config.method = dict(
    name='distil',
    objective=dict(
      name='ctkd', objective=base, lowest=1.0, span=20.0, epochs=10
    ),
    label_weight=0.1,
    guide_weight=0.9,
  )
  return config
