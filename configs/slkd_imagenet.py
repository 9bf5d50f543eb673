"""Self-learning teachers on ImageNet, by the released code's settings.

Paper: https://arxiv.org/abs/2304.11923, tables 3 and 4.

Command:

  jaxkd train slkd_imagenet:STUDENT --workdir=runs/slkd_imagenet \
    data.name=folder:IMAGENET teacher.checkpoint=TEACHER

STUDENT is resnet18 (teacher imagenet_resnet34) or mobilenet_v1 (teacher
imagenet_resnet50; the released code has no settings for this pair, so it has
those of the first). Without a checkpoint the teacher is trained first. IMAGENET
is a folder with train/ and val/; a prepared TFDS set is tfds:imagenet2012.

Temperature 1, weights of 0.5 on the labels and on the teacher, of 1 on both
parts of the SL-Ts' branch; SGD 0.9 at 0.2, batch 512, weight decay 1e-4, 100
epochs with a tenth of the rate from 30, 60 and 90 on.

Cost: not run. Forward MACs of an image, with those of the backward passes: 31.1
G for resnet18 (KD 9.1 G), 30.3 G for mobilenet_v1 (KD 5.8 G).
Expected: the paper's figures are not available. KD by these settings 71.03 %
for resnet18, 70.50 % for mobilenet_v1 (published, mdistiller).
"""

from jaxkd.config import default

PAIRS = {
  'mobilenet_v1': ('imagenet_mobilenet_v1', 'imagenet_resnet50'),
  'resnet18': ('imagenet_resnet18', 'imagenet_resnet34'),
}


def get_config(student: str = 'resnet18'):
  """Two SL-Ts for one of the students."""
  if student not in PAIRS:
    raise ValueError(f'{student!r} is not one of {sorted(PAIRS)}')
  config = default()
  config.student.name, config.teacher.name = PAIRS[student]
  config.data.name = 'tfds:imagenet2012'
  config.data.image_size = 224
  config.epochs = 100
  config.batch_size = 512
  config.optimizer.learning_rate = 0.2
  config.optimizer.weight_decay = 1e-4
  config.schedule.milestones = (30, 60, 90)
  config.method = dict(
    name='slkd',
    objective=dict(name='kd', temperature=1.0),
    members=2,
    label_weight=0.5,
    guide_weight=0.5,
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
