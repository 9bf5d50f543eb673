"""Gap preserving distillation on CIFAR-100, with a static teacher.

Paper: Guo et al., ICLR 2025, https://arxiv.org/abs/2410.04140.

Command:

  jaxkd train gpd_cifar --workdir=runs/gpd

The method's settings are those of the authors' code: r = 2, lambda = 3 on a
soft cross-entropy of smoothing 0.1 and temperature 1, six branches, noise 1e-6,
one SGD for all, clipping at 5, moving average at 0.99996. The paper has no
result on CIFAR-100, so the rest (schedule, rate, batch, weight decay) is the
CIFAR-100 distillation benchmark's, and the static objective is its plain KD
with its weights (0.1 on the labels, 0.9 at temperature 4). DKD instead:

  method.static.name=dkd method.label_weight=1 \
    method.static_weight=1

The authors' own setting is DKD with alpha = 1, T = 1, weights of 1, and beta =
0.5 or 2: configs/gpd_imagenet.py. The student moves r^2 times as far as its
gradient alone would move it, since its kernels are r times a block of the
dynamic teacher's.

Cost: 240 epochs of the default pair have not been run. A step costs as much as
its parts: a plain step of the dynamic teacher (four times the student's
arithmetic), one of the student, and the static teacher's forward pass.
Expected: unknown for 240 epochs. Measured: docs/results.md.
"""

from jaxkd.config import default


def get_config():
  """resnet32x4 and a dynamic teacher teach resnet8x4."""
  config = default()
  config.student.branches = 6
  config.optimizer.clip_norm = 5.0
  config.optimizer.ema = 0.99996
  config.method = dict(
    name='gpd',
    static=dict(name='kd', temperature=4.0),
    dynamic=dict(name='soft_cross_entropy', smoothing=0.1),
    weight=3.0,
    ratio=2.0,
    label_weight=0.1,
    static_weight=0.9,
    guide_dynamic=True,
    sharing=True,
    noise=1e-6,
    relative_noise=False,
    scaling='copy',
  )
  return config
