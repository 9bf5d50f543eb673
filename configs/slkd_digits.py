"""Self-learning teachers on the embedded digits: the whole path in minutes.

Paper: https://arxiv.org/abs/2304.11923.

Command:

  jaxkd train slkd_digits --workdir=runs/slkd

Trains a teacher, the student's twin by plain KD from it, and then two
self-learning teachers and the student together. The weights are those of the
released code on CIFAR-100.

Cost: two minutes of CPU time on 2 cores, most of it compilation.
Expected: all networks above 95 % of the 360 test images, of which one is
0.28 %; that is too few to rank them.
"""

from jaxkd.config import default


def get_config():
  """resnet14 and two of its kind teach a resnet8 of half its width."""
  config = default()
  config.epochs = 15
  config.batch_size = 32
  config.kd_baseline = True
  config.data.name = 'digits'
  config.teacher.name = 'resnet14'
  config.student.name = 'resnet8'
  config.student.width = 0.5
  config.method = dict(
    name='slkd',
    objective=dict(name='kd', temperature=4.0),
    members=2,
    label_weight=0.1,
    guide_weight=0.9,
    process_label_weight=1.0,
    process_guide_weight=1.0,
    process_weight=1.0,
  )
  return config
