"""Gap preserving distillation on ImageNet, by the authors' settings.

Paper: Guo et al., ICLR 2025, https://arxiv.org/abs/2410.04140.

Command:

  jaxkd train gpd_imagenet:STUDENT,SCENARIO --workdir=runs/gpd_imagenet \
    data.name=folder:IMAGENET teacher.checkpoint=TEACHER

STUDENT is resnet18 (teacher imagenet_resnet34), mobilenet_v1 (teacher
imagenet_resnet50) or rvt_tiny (teacher rvt_small); any other pair by
student.name and teacher.name. SCENARIO is teacher (a static, pre-trained one;
without a checkpoint it is trained first), scratch, or finetune (with
student.checkpoint=STUDENT's). IMAGENET is a folder with train/ and val/; a
prepared TFDS set is tfds:imagenet2012.

From the authors' code: r = 2, lambda = 3 on a soft cross-entropy of smoothing
0.1, DKD with alpha = 1, T = 1 and beta = 0.5 (MobileNet: 2), weights of 1,
noise 1e-6, moving average at 0.99996. CNNs: six branches; SGD 0.9 at 0.1, batch
512, weight decay 1e-4 on everything, clipping at 5, 100 epochs with a tenth of
the rate from 30, 60 and 90 on; fine-tuning: 0.01 and 50 epochs. RVT: no
branches; AdamW at 2e-3, batch 2048, weight decay 0.05 on kernels, cosine after
5 epochs of warm-up, 300 epochs, no clipping; fine-tuning: 2e-4 and 50 epochs.
Deviations: scaling is 'copy' (method.scaling=official has the authors' step
sizes). RVT's augmentation (RandAugment, mixup, CutMix, random erasing, repeated
augmentation, label smoothing) and its 10 epochs at the last rate are not
implemented, so its published accuracy is not to be expected.

Cost: not run. Forward MACs of an image: resnet18 1.8 G, its dynamic teacher
7.0 G, the static teacher 3.7 G.
Expected (published, DKD and GPD, top-1): resnet18 72.71 % (DKD alone 71.70),
mobilenet_v1 73.63 % (72.05), rvt_tiny 80.14 % (79.12); scratch 71.87, 73.07,
79.85 %; fine-tuning 71.12, 69.47, 78.84 %.
"""

from jaxkd.config import REQUIRED, default

PAIRS = {  # student: names of the models, and beta of DKD
  'mobilenet_v1': ('imagenet_mobilenet_v1', 'imagenet_resnet50', 2.0),
  'resnet18': ('imagenet_resnet18', 'imagenet_resnet34', 0.5),
  'rvt_tiny': ('rvt_tiny', 'rvt_small', 0.5),
}
SCENARIOS = ('finetune', 'scratch', 'teacher')


def get_config(variant: str = 'resnet18,teacher'):
  """Returns the settings of 'STUDENT,SCENARIO'."""
  student, _, scenario = variant.partition(',')
  scenario = scenario or 'teacher'
  if student not in PAIRS or scenario not in SCENARIOS:
    raise ValueError(
      f'{variant!r} is not STUDENT,SCENARIO with a student of'
      f' {sorted(PAIRS)} and a scenario of {SCENARIOS}'
    )
  config = default()
  config.student.name, config.teacher.name, beta = PAIRS[student]
  config.data.name = 'tfds:imagenet2012'
  config.data.image_size = 224
  config.optimizer.ema = 0.99996
  config.method = dict(
    name='gpd',
    static=dict(name='dkd', alpha=1.0, beta=beta, temperature=1.0),
    dynamic=dict(name='soft_cross_entropy', smoothing=0.1),
    weight=3.0,
    ratio=2.0,
    label_weight=1.0,
    static_weight=1.0,
    guide_dynamic=True,
    sharing=True,
    noise=1e-6,
    relative_noise=False,
    scaling='copy',
  )
  if student == 'rvt_tiny':
    _transformer(config)
  else:
    _convolutional(config)
  if scenario != 'teacher':
    config.method.static_weight = 0.0  # no static teacher
  if scenario == 'finetune':
    config.epochs = 50
    config.schedule.milestones = (30,)
    config.optimizer.learning_rate /= 10
    config.schedule.final *= 10  # ends at the same rate
    config.schedule.warmup_epochs = 0.0
    config.student.checkpoint = REQUIRED
  return config


def _convolutional(config):
  config.epochs = 100
  config.batch_size = 512
  config.student.branches = 6
  config.optimizer.learning_rate = 0.1
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 5.0
  config.schedule.milestones = (30, 60, 90)


def _transformer(config):
  config.epochs = 300
  config.batch_size = 2048
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.decay = 'kernels'
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 5.0
  config.schedule.final = 0.005  # 1e-5 at the authors' rate
