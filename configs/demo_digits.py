"""Few-shot digits: labels alone, KD and GPD compared over twenty seeds.

Papers: KD, Hinton, Vinyals, Dean, 2015, https://arxiv.org/abs/1503.02531; GPD,
Guo et al., ICLR 2025, https://arxiv.org/abs/2410.04140.

Command:

  jaxkd train demo_digits --workdir=runs/demo_digits

Ten training images of each digit, about 1,000 test images. Each seed has its
own split, teacher and start; all seeds of a recipe are trained in one program.
The student is a perceptron of two times 12 units, the teacher one of 256. Each
method has its best learning rate of 0.005, 0.01, 0.02 and 0.04 on seeds 0 to 4
(GPD's student moves several times as far in a step, on shared parameters).

Cost: a minute of CPU time.
Measured: README.
"""

from jaxkd.config import default

KD = dict(name='kd', temperature=4.0)


def get_config():
  """An MLP of two hidden layers, without and with a teacher."""
  config = default()
  config.epochs = 150
  config.batch_size = 20
  config.data.name = 'digits'
  config.data.few_shot = 10
  config.data.hold_out = 0.7  # of the training images, in place of the test set
  config.teacher.name = config.student.name = 'mlp'
  config.teacher.settings = dict(features=(256, 256))
  config.student.settings = dict(features=(12, 12))
  config.teacher.learning_rate = config.optimizer.learning_rate = 0.02
  config.optimizer.clip_norm = 5.0
  config.schedule.name = 'cosine'
  gpd = dict(
    name='gpd',
    static=KD,
    dynamic=dict(name='soft_cross_entropy', smoothing=0.1),
    weight=3.0,
    ratio=2.0,
    label_weight=0.1,
    static_weight=0.9,
  )
  config.study.seeds = tuple(range(10, 30))
  config.study.vary = ('seed', 'teacher.seed', 'data.hold_out_seed')
  config.study.recipes = {
    'plain': dict(method=dict(name='plain')),
    'KD': dict(method={**KD, 'label_weight': 0.1, 'guide_weight': 0.9}),
    'GPD': dict(method=gpd, optimizer=dict(learning_rate=0.01)),
  }
  config.study.baseline = 'plain'
  config.study.columns = ('student/top1', 'student/nll', 'student/ece')
  config.study.together = True
  return config
