"""Hinton distillation on CIFAR-100: resnet32x4 teaches resnet8x4.

Paper: Hinton, Vinyals, Dean, 2015, https://arxiv.org/abs/1503.02531, with the
weights and the settings of the CIFAR-100 distillation benchmark (Tian,
Krishnan, Isola, 2020, https://arxiv.org/abs/1910.10699).

Command:

  jaxkd train kd_cifar --workdir=runs/kd

Any pair by jaxkd train kd_cifar:TEACHER,STUDENT, which also sets the
benchmark's learning rate for the student; the student without a teacher in the
same run by baseline=True. The benchmark's batch statistics are those of one
device; here they are those of the whole batch, for any number of devices.

Cost: 240 epochs of the default pair have not been run; on 2 CPU cores a step
takes 1.3 s, an epoch 17 minutes (resnet20 -> resnet8: about 2 minutes). Use an
accelerator for full runs.

Expected (published, last epoch): resnet32x4 79.42 % -> resnet8x4 73.33 %
(72.50 % without a teacher); resnet56 72.34 % -> resnet20 70.66 % (69.06 %).
Measured by this code: docs/results.md.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='kd', temperature=4.0, label_weight=0.1, guide_weight=0.9
  )
  return config
