"""DOT on CIFAR-100: KD with a momentum of its own for the teacher's gradient.

Paper: Zhao et al., ICCV 2023, https://arxiv.org/abs/2307.08436.

Command:

  jaxkd train dot_cifar --workdir=runs/dot
  jaxkd train dot_cifar:vgg13,vgg8 --workdir=runs/dot_vgg

DOT is an optimizer, so it goes with any method, by optimizer.name=dot; its
delta is 0.075 on CIFAR-100 and Tiny ImageNet, 0.09 on ImageNet. The control is
kd_cifar.py, which optimizer.delta=0 is, up to rounding. The teacher has one
loss only, so it is trained by SGD and shared with other runs.

Cost: one forward pass and two backward passes of the student, where SGD has one
of each. Not run to its end here.

Expected (published, in the authors' README), KD and KD with DOT:
  resnet32x4,resnet8x4      73.33, 75.12 %
  vgg13,vgg8                72.98, 73.77
  resnet32x4,shufflenet_v2  74.45, 75.55
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.optimizer.name = 'dot'
  config.optimizer.delta = 0.075
  config.method = dict(
    name='kd', temperature=4.0, label_weight=0.1, guide_weight=0.9
  )
  return config
