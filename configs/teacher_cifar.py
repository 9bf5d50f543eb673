"""A teacher for CIFAR-100, trained by cross-entropy.

Settings: the CIFAR-100 distillation benchmark's (Tian, Krishnan, Isola, 2020,
https://arxiv.org/abs/1910.10699): 240 epochs of SGD at 0.05, a tenth of it
after 150, 180 and 210; weight decay 5e-4 on everything.

Command:

  jaxkd train teacher_cifar --workdir=runs/teacher

Any network by teacher.name=NAME; a shorter run by epochs=N keeps the shape of
the schedule. Later runs find the teacher in the cache, or by
teacher.checkpoint=runs/teacher.

Cost: not run to its end; on 2 CPU cores resnet20 takes 2 to 5 minutes an epoch.
Larger networks want an accelerator.

Expected (published, last epoch, batch statistics of one device): resnet32x4
79.42 %, resnet56 72.34 %, resnet110 74.31 %, wrn_40_2 75.61 %, vgg13 74.64 %.
Measured by this code: docs/results.md.
"""

from jaxkd.config import default


def get_config():
  """resnet32x4 from labels."""
  config = default()
  config.method = dict(name='teacher')
  return config
