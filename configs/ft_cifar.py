"""Factor transfer on CIFAR-100: the teacher is paraphrased first.

Paper: Kim, Park and Kwak, NeurIPS 2018, https://arxiv.org/abs/1802.04977. Tap,
weight and the first phase, 30 epochs of the paraphraser, are those of the
CIFAR-100 distillation benchmark (Tian, Krishnan, Isola, 2020,
https://arxiv.org/abs/1910.10699). The learning rate of the first phase is 0.01
for ResNets and wide ResNets as students; others have the student's.

Command:

  jaxkd train ft_cifar --workdir=runs/ft
  jaxkd train ft_cifar:vgg13,vgg8 --workdir=runs/ft_vgg

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: 30 epochs of the paraphraser, and 240. Not run to their end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
72.86 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 69.84 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  residual = config.student.name.startswith(('resnet', 'wrn'))
  config.method = dict(
    name='ft',
    label_weight=1.0,
    guide_weight=200.0,
    pretraining_epochs=30,
    pretraining_rate=0.01 if residual else config.optimizer.learning_rate,
  )
  return config
