"""Deep mutual learning on CIFAR-100: two resnet32 teach each other.

Paper: Zhang et al., CVPR 2018, https://arxiv.org/abs/1706.00384. There is no
teacher: both networks are initialised at random, and each learns from the
labels and from the other's outputs.

Command:

  jaxkd train dml_cifar --workdir=runs/dml
  jaxkd train dml_cifar "method.peers=('resnet56','wrn_16_2')" \
    --workdir=runs/dml_3

Peers are models, or 'student' for one more of the student's. Updates of a batch
take turns, as in the paper; method.order=parallel makes them at once, which
runs each network once instead of once for each turn. The control is the student
alone: plain_cifar.py with student.name=resnet32 and the other settings of this
file.

The settings are the paper's as we remember them: 200 epochs, Nesterov momentum,
the rate 0.1 divided by 10 every 60 epochs. The weight decay is the benchmark's,
since the paper's was not available.

Cost: not run to its end here.

Expected: the table of the paper for this pair; no figure was verified here.
"""

from jaxkd.config import default


def get_config():
  """Two networks of the student's architecture."""
  config = default()
  config.student.name = 'resnet32'
  config.epochs = 200
  config.optimizer.learning_rate = 0.1
  config.optimizer.nesterov = True
  config.schedule.milestones = (0.3, 0.6, 0.9)  # 60, 120, 180 epochs
  config.method = dict(
    name='dml',
    peers=('student',),
    label_weight=1.0,
    guide_weight=1.0,
    order='batch',
  )
  return config
