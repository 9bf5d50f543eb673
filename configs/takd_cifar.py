"""A chain of teacher assistants on CIFAR-100: resnet110, resnet20, resnet8.

Paper: Mirzadeh et al., AAAI 2020, https://arxiv.org/abs/1902.03393. Networks of
sizes between the teacher's and the student's are trained one after another,
each by KD from the one before it.

Command:

  jaxkd train takd_cifar --workdir=runs/takd
  jaxkd train takd_cifar:resnet56,resnet8 \
    "method.assistants=('resnet32','resnet14')" --workdir=runs/takd_2

Assistants are named from large to small; they have the student's learning rate.
The control is KD without them: kd_cifar.py with the same pair.

Deviation: schedule, weights and temperature are those of the CIFAR-100
benchmark. The paper searches weight and temperature for each network, trains
for 200 epochs at weight decay 1e-4, and keeps the best epoch on the test set.

Cost: the sum of the trainings. Not run to its end here.

Expected: no figure, since the settings differ from the paper's.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet110,resnet8'):
  """A pair TEACHER,STUDENT of the benchmark, and one assistant."""
  config = benchmark(pair)
  config.method = dict(
    name='takd',
    assistants=('resnet20',),
    label_weight=0.1,
    guide_weight=0.9,
  )
  return config
