"""A teacher for CIFAR-100, trained by the Brier score (an MSE teacher).

Paper: Hamidi et al., ECCV 2024, https://arxiv.org/abs/2407.18041: a teacher
whose loss is the squared error between its probabilities and the one-hot label
estimates the Bayes posterior better, and teaches better for it. The other
settings are those of teacher_cifar.py.

Command:

  jaxkd train mse_teacher_cifar --workdir=runs/mse

Deviation: squared errors are summed over the classes; the released toy code
averages them, which at 100 classes makes steps 100 times smaller
(teacher.reduction=mean, with teacher.scale to make up).

Other readings of the paper: teacher.loss=square_logits (of the raw outputs,
which are then read by clipping); teacher.start=RUN, from a teacher by
cross-entropy; teacher.cross_entropy_epochs=30 with teacher.blend_epochs=30,
from cross-entropy to squared errors.

Controls: bounded gradients also over-fit less in an epoch, so compare with
teachers by cross-entropy that are stopped early (teacher_cifar.py with
teacher.stop=N) or learn at a lower teacher.learning_rate.

Cost: as teacher_cifar.py.

Expected: no figure of the paper can be reproduced from its released code, which
trains by cross-entropy. Not run to its end here.
"""

from jaxkd.config import default


def get_config():
  """resnet32x4 from labels, by the Brier score."""
  config = default()
  config.teacher.loss = 'brier'
  config.teacher.reduction = 'sum'
  config.method = dict(name='teacher')
  return config
