"""Long-tailed knowledge distillation on CIFAR-100.

Paper: Kim, CVPR 2026, https://arxiv.org/abs/2506.18496. Its weights and
temperature were not available. Choices: weights of 1, the temperature of the
benchmark.

Command:

  jaxkd train ltkd_cifar --workdir=runs/ltkd
  jaxkd train ltkd_cifar:vgg13,vgg8 --workdir=runs/ltkd_vgg

Deviation: CIFAR-100 is balanced, so that head, medium and tail are thirds of
its classes by their number. Data of your own, whose classes differ:
data.name=folder:PATH with method.objective.class_counts="(900,300,20)", the
training images of each class in the order of their names.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected: no figure, since the data are not the paper's.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(
      name='ltkd',
      class_counts=(500,) * 100,
      alpha=1.0,
      beta=1.0,
      temperature=4.0,
    ),
    label_weight=1.0,
    guide_weight=1.0,
  )
  return config
