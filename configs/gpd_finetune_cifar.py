"""Gap preserving distillation on CIFAR-100: fine-tuning a trained student.

Paper: Guo et al., ICLR 2025, https://arxiv.org/abs/2410.04140 (fine-tuning).

Command, with the workdir of an earlier run that has trained the student:

  jaxkd train gpd_finetune_cifar --workdir=runs/gpd_finetune \
    student.checkpoint=runs/plain

The student gets branches that do not change its function, the dynamic teacher
is expanded from it and starts as accurate as it, and both are trained from
there. As in the authors' code for CNNs, half the epochs at a tenth of the rate,
which falls once more after 0.6 of them (30 of 50), without warm-up; the rest as
in configs/gpd_scratch_cifar.py. To compare with: as long a training of the same
student without a dynamic teacher (baseline=True).

Cost: a plain step of the dynamic teacher and one of the student.
Expected: unknown for 120 epochs. Measured: docs/results.md.
"""

from jaxkd.config import REQUIRED, default


def get_config():
  """A trained resnet8x4 and the dynamic teacher that is expanded from it."""
  config = default()
  config.epochs = 120
  config.student.branches = 6
  config.student.checkpoint = REQUIRED
  config.optimizer.learning_rate = 0.005
  config.optimizer.clip_norm = 5.0
  config.optimizer.ema = 0.99996
  config.schedule.milestones = (0.6,)
  config.method = dict(
    name='gpd',
    static=dict(name='kd', temperature=4.0),  # has no weight
    dynamic=dict(name='soft_cross_entropy', smoothing=0.1),
    weight=3.0,
    ratio=2.0,
    label_weight=1.0,
    static_weight=0.0,  # no static teacher
  )
  return config
