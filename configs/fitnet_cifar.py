"""FitNets on CIFAR-100: a hint from the middle of the teacher.

Paper: Romero et al., ICLR 2015, https://arxiv.org/abs/1412.6550. Regressor, tap
and weight are those of the CIFAR-100 distillation benchmark (Tian, Krishnan,
Isola, 2020, https://arxiv.org/abs/1910.10699), the same for all pairs.

Command:

  jaxkd train fitnet_cifar --workdir=runs/fitnet
  jaxkd train fitnet_cifar:vgg13,vgg8 --workdir=runs/fitnet_vgg

As in the benchmark, the hint is learned together with the labels. In the paper
it comes first, and then KD, which is dict(name='pretrained',
objective='fitnet', training_objective={'kd': 0.9}, label_weight=0.1) as the
method in a config of your own.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
73.50 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 69.21 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='fitnet', stage='stage2', guide_stage=''),
    label_weight=1.0,
    guide_weight=100.0,
  )
  return config
