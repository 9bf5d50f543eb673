"""KD of standardised logits on CIFAR-100.

Paper: Sun et al., CVPR 2024, https://arxiv.org/abs/2403.01427. Weights and
temperature are the published ones
(https://github.com/sunshangquan/logit-standardization-KD).

Command:

  jaxkd train standardised_cifar --workdir=runs/standardised
  jaxkd train standardised_cifar:vgg13,vgg8 --workdir=runs/standardised_vgg

Any objective of logits can replace KD, by method.objective.objective.name. The
temperatures are those in the names of the published logs. (By its configuration
vgg13,vgg8 has 2; that of resnet50,mobilenet_v2 has a weight of 9, its log one
of 1.)

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by the authors, epoch not stated): resnet32x4 -> resnet8x4
76.62 % (73.33 % by KD); resnet56 -> resnet20 71.43 % (70.66 %); vgg13 -> vgg8
74.36 % (72.98 %).
"""

from jaxkd.config import benchmark

# Of other pairs: 2.
TEMPERATURES = {
  'resnet50,mobilenet_v2': 3.0,
  'vgg13,mobilenet_v2': 3.0,
  'vgg13,vgg8': 3.0,
}


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  base = dict(name='kd', temperature=TEMPERATURES.get(pair, 2.0))
  config.method = dict(
    name='distil',
    objective=dict(name='standardised', objective=base),
    label_weight=0.1,
    guide_weight=9.0,
  )
  return config
