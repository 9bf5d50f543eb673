"""Knowledge review on CIFAR-100: all stages teach each stage.

Paper: Chen et al., CVPR 2021, https://arxiv.org/abs/2104.09044. The weights are
those of the authors' script for each pair
(https://github.com/dvlab-research/ReviewKD; not verified for pairs of vgg13 and
of resnet50), the warm-up is that of mdistiller.

Command:

  jaxkd train reviewkd_cifar --workdir=runs/reviewkd
  jaxkd train reviewkd_cifar:resnet56,resnet20 \
    --workdir=runs/reviewkd_resnet20

Pairs that are not below have the weight of the default pair.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published in tables 1 and 2 of https://arxiv.org/abs/2304.11923, epoch
not stated): resnet32x4 -> resnet8x4 75.63 % (73.33 % by KD); vgg13 -> vgg8
74.84 % (72.98 %).
"""

from jaxkd.config import benchmark

# Of other pairs: 5.
WEIGHTS = {
  'resnet110,resnet32': 1.0,
  'resnet32x4,shufflenet_v2': 8.0,
  'resnet50,mobilenet_v2': 8.0,
  'resnet56,resnet20': 0.6,
  'vgg13,mobilenet_v2': 8.0,
}


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='reviewkd', before_activation=False),
    label_weight=1.0,
    guide_weight=WEIGHTS.get(pair, 5.0),
    warmup_epochs=20,
  )
  return config
