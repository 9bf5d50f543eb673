"""Densely guided distillation on CIFAR-100: resnet110 to resnet8 by steps.

Paper: Son et al., ICCV 2021, https://arxiv.org/abs/2009.08825. Each network is
taught by the teacher and by all assistants before it, of which one, chosen at
random, is dropped on each batch.

Command:

  jaxkd train dgkd_cifar --workdir=runs/dgkd
  jaxkd train dgkd_cifar:resnet56,resnet14 \
    "method.assistants=('resnet32','resnet20')" --workdir=runs/dgkd_2

With method.dropped=0 no guide is dropped. Controls: takd_cifar.py with the same
assistants; kd_cifar.py without any.

T = 5 and the guides alone, without labels, are the released code's defaults.
Deviation: there the divergences are also averaged over the 100 classes, and the
training has 160 epochs in batches of 128; the settings here are the
benchmark's. The losses of several guides add up: if the loss diverges, lower
method.guide_weight.

Cost: the sum of the trainings, and in each the forward passes of all networks
before it. Not run to its end here.

Expected: no figure, since the settings differ from the paper's.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet110,resnet8'):
  """A pair TEACHER,STUDENT of the benchmark, and two assistants."""
  config = benchmark(pair)
  config.method = dict(
    name='dgkd',
    assistants=('resnet32', 'resnet14'),
    objective=dict(name='kd', temperature=5.0),
    label_weight=0.0,
    guide_weight=1.0,
    dropped=1,
  )
  return config
