"""Refined logit distillation on CIFAR-100.

Paper: Sun et al., ICCV 2025, https://arxiv.org/abs/2408.07703. Weights,
temperatures and warm-up are the published code's for all pairs of CIFAR-100
(https://github.com/zju-SWJ/RLD).

Command:

  jaxkd train rld_cifar --workdir=runs/rld
  jaxkd train rld_cifar:vgg13,vgg8 --workdir=runs/rld_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected: the paper has a table of the benchmark's pairs, not recorded here.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='rld', alpha=1.0, beta=8.0, temperature=4.0),
    label_weight=1.0,
    guide_weight=1.0,
    warmup_epochs=20,
  )
  return config
