"""Self-learning teachers on CIFAR-100.

Paper: https://arxiv.org/abs/2304.11923, tables 1 and 2.

Command:

  jaxkd train slkd_cifar --workdir=runs/slkd
  jaxkd train slkd_cifar:wrn_40_2,wrn_40_1 --workdir=runs/slkd_wrn

The pair follows the colon, TEACHER,STUDENT. With it comes the learning rate,
which is the student's and its SL-Ts': 0.01 for mobilenet_v2, shufflenet_v1 and
shufflenet_v2, 0.05 for the others. (A student named by student.name leaves the
rate as it is.) The weights and the temperature are the released code's.
Variants of the paper:

  one SL-T                                   method.members=1
  table 7: SL-Ts, but no teacher             method.use_teacher=False
  tables 8 and 9: SL-Ts before the student   method.order=batch
  the same, but trained to their end         method.order=phase
  the student pulls the SL-Ts (released)     method.detach=False
  over DKD                                   method.objective.name=dkd \
    method.label_weight=1 method.guide_weight=1 method.warmup_epochs=20

The student's loss has more weight than KD's, which acts like a higher learning
rate. The control is KD of the same total weight:

  jaxkd train kd_cifar --workdir=runs/kd_heavy method.label_weight=1.1 \
    method.guide_weight=1.9

Cost: 240 epochs have not been run. A step costs as much as its parts: a
training step of each SL-T and of the student, and the teacher's forward pass.

Expected (published, 240 epochs, epoch not stated), KD and SLKD:
  resnet32x4,resnet8x4      73.33, 76.85 %   resnet56,resnet8       60.17, 62.05
  wrn_40_2,wrn_40_1         73.54, 74.91     wrn_40_2,wrn_16_2      74.92, 76.31
  vgg13,vgg11               74.54, 75.46     vgg13,vgg8             72.98, 75.01
  resnet32x4,shufflenet_v2  74.45, 77.26     resnet32x4,shufflenet_v1
  resnet50,mobilenet_v2     67.35, 70.43                            74.07, 76.17
  vgg13,mobilenet_v2        67.37, 69.94     wrn_40_2,shufflenet_v1 74.83, 76.72
Measured by this code: docs/results.md.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """Two SL-Ts, for a pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='slkd',
    objective=dict(name='kd', temperature=4.0),
    members=2,
    label_weight=0.1,
    guide_weight=0.9,
    process_label_weight=1.0,
    process_guide_weight=1.0,
    process_weight=1.0,
    fusion=(),
    use_teacher=True,
    detach=True,
    order='parallel',
    warmup_epochs=0,
  )
  return config
