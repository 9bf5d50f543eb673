"""Overhaul of feature distillation on CIFAR-100.

Paper: Heo et al., ICCV 2019, https://arxiv.org/abs/1904.01866. Connectors and
weights are those of mdistiller (https://github.com/megvii-research/mdistiller),
the same for all pairs. It has no MobileNetV2 or ShuffleNetV1 students; here
any pair is taught at the stages that both networks have.

Command:

  jaxkd train ofd_cifar --workdir=runs/ofd
  jaxkd train ofd_cifar:vgg13,vgg8 --workdir=runs/ofd_vgg

Deviation: the teacher stays in eval mode. A teacher without BatchNorm in front
of its activations needs method.objective.margins=features.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected (published in tables 1 and 2 of https://arxiv.org/abs/2304.11923, epoch
not stated): resnet32x4 -> resnet8x4 74.95 % (73.33 % by KD); vgg13 -> vgg8
73.95 % (72.98 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='ofd', margins='batch_norm'),
    label_weight=1.0,
    guide_weight=0.001,
  )
  return config
