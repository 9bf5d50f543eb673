"""Gap preserving distillation on CIFAR-100 from scratch: no static teacher.

Paper: Guo et al., ICLR 2025, https://arxiv.org/abs/2410.04140 (GPD*).

Command:

  jaxkd train gpd_scratch_cifar --workdir=runs/gpd_scratch

The student and its dynamic teacher learn from the labels (weight 1), and the
student from the dynamic teacher (lambda = 3). Settings as in
configs/gpd_cifar.py. To compare with: plain training (baseline=True).

Cost: a plain step of the dynamic teacher and one of the student.
Expected: unknown for 240 epochs. Measured: docs/results.md.
"""

from jaxkd.config import default


def get_config():
  """resnet8x4 and the dynamic teacher that is grown out of it."""
  config = default()
  config.student.branches = 6
  config.optimizer.clip_norm = 5.0
  config.optimizer.ema = 0.99996
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
