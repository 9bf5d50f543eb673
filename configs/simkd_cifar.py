"""SimKD on CIFAR-100: resnet8x4 ends in the classifier of resnet32x4.

Paper: Chen et al., CVPR 2022, https://arxiv.org/abs/2203.14001. Only the
teacher learns from labels. The student learns to have the features that the
teacher's classifier reads, and is tested, saved and exported with it and with a
projector in between: for this pair 214,016 parameters and 13.6 million MACs, or
70,400 and 4.5 million by method.factor=4.

Command:

  jaxkd train simkd_cifar --workdir=runs/simkd
  jaxkd train simkd_cifar:vgg13,mobilenet_v2 --workdir=runs/simkd_mobilenet

Control: method.label_weight=1.0, which adds the labels.

Cost: a little above that of kd_cifar.py. Not run to its end here.

Expected: no figure, since none was measured here.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(name='simkd', factor=2)
  return config
