"""DIST on CIFAR-100: correlations of classes in place of a divergence.

Paper: Huang et al., NeurIPS 2022, https://arxiv.org/abs/2205.10536. Weights and
temperature are the published code's (https://github.com/hunto/DIST_KD), the
same for all pairs.

Command:

  jaxkd train dist_cifar --workdir=runs/dist
  jaxkd train dist_cifar:vgg13,vgg8 --workdir=runs/dist_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected: no published figure with these settings.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='dist', beta=1.0, gamma=1.0, temperature=4.0),
    label_weight=1.0,
    guide_weight=2.0,
  )
  return config
