"""Pro-KD on CIFAR-100: resnet8x4 follows resnet32x4 along its training.

Paper: Rezagholizadeh et al., 2021, https://arxiv.org/abs/2110.08532. In the
first phase the student is taught by the teacher as it is at that step, without
labels and at a temperature that falls to 1; in the second it is tuned on
labels.

Command:

  jaxkd train prokd_cifar --workdir=runs/prokd
  jaxkd train prokd_cifar:resnet56,resnet20 --workdir=runs/prokd_56

Deviation: teacher and student are trained in the same steps; see
jaxkd/methods/pro_kd.py for why. Choice: the temperature falls from 4 to 1, and
the second phase takes 30 epochs at a tenth of the learning rate; the paper's
values are not in print. epochs=N is the first phase's length, which the
temperature follows. Checkpoints of a teacher's training are followed by the
method's argument `checkpoints`.

Cost: in each step of the first phase, a training step of both networks. Not run
to its end here.

Expected: no figure, since the settings are the benchmark's.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='pro_kd',
    objective=dict(name='annealed', start=4.0, epochs=config.get_ref('epochs')),
    tune_epochs=30,
    tune_learning_rate=0.1 * config.optimizer.learning_rate,
  )
  return config
