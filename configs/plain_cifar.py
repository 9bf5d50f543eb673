"""Plain training of a student on CIFAR-100, to compare with.

Settings: the CIFAR-100 distillation benchmark's (Tian, Krishnan, Isola, 2020,
https://arxiv.org/abs/1910.10699).

Command:

  jaxkd train plain_cifar --workdir=runs/plain

Cost: on 2 CPU cores resnet8 takes a minute an epoch; larger networks want an
accelerator.

Expected (published, last epoch): resnet8x4 72.50 %, resnet20 69.06 %.
Measured by this code: docs/results.md.
"""

from jaxkd.config import default


def get_config():
  """resnet8x4 from labels."""
  config = default()
  config.method = dict(name='plain')
  return config
