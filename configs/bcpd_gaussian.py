"""Which teacher is near the Bayes posterior, on data whose posterior is known.

Paper: Hamidi et al., ECCV 2024, https://arxiv.org/abs/2407.18041: a student is
as good as its teacher's probabilities are near p*(y|x) in squared distance, and
teachers trained by squared error are nearer than those trained by
cross-entropy. Gaussian classes in 30 dimensions, networks and optimizer are
those of the released toy: MLP 30-128-128-K, SGD at 5e-4, momentum 0.9, batches
of 32, 100 epochs on 5,000 examples; the student learns from softmax(teacher) at
temperature 1 alone.

Command:

  jaxkd train bcpd_gaussian --workdir=runs/bcpd

prints the tables below and writes a picture. Every recipe is a tree of settings
that differ, so any teacher can be judged by adding a recipe.

  K=3, K=10        teachers; those stopped early or trained at a low rate are
                   the controls that a comparison of losses calls for
  noisy targets    K=10, the student learns from eta one-hot + (1 - eta) p*

Columns: 'target' are the student's targets (the teacher's probabilities, or the
noisy ones), 'train_frobenius' their distance from p* over the training split,
the paper's L2; 'posterior_square' is the teacher's mean squared distance on the
test split; 'student_best' is the student at its best epoch on the validation
split, as in the released code, 'student' that of the last epoch.

The data are those of seeds 0 to 5; the released code does not seed its means.

Cost: ten minutes of CPU time, which 2 cores share.
Measured: docs/results.md.
"""

from jaxkd.config import default

STOPPED = dict(teacher=dict(stop=20))
MEAN = dict(teacher=dict(loss='brier', reduction='mean'))
SUM = dict(teacher=dict(loss='brier', reduction='sum'))
TEACHERS = {
  'CE': {},
  'MSE mean': MEAN,
  'MSE sum': SUM,
  'CE, 20 epochs': STOPPED,
}
MORE = {
  'CE, 40 epochs': dict(teacher=dict(stop=40)),
  'CE, rate 1e-4': dict(teacher=dict(learning_rate=1e-4)),
  'MSE sum, rate 3e-4': dict(
    teacher=dict(loss='brier', reduction='sum', learning_rate=3e-4)
  ),
  'MSE sum, rate 5e-3': dict(
    teacher=dict(loss='brier', reduction='sum', learning_rate=5e-3)
  ),
  'logits, softmax': dict(
    teacher=dict(loss='square_logits', read_out='softmax')
  ),
  'logits, clip': dict(teacher=dict(loss='square_logits', read_out='clip')),
}
PER_CENT = (0, 10, 25, 40, 50, 60, 75, 90, 100)  # eta


def noisy(eta):
  """The student learns from the posterior itself, mixed with the labels."""
  return dict(
    teacher=dict(name='linear', checkpoint='bayes'),
    method=dict(label_weight=eta, guide_weight=1 - eta),
  )


def with_classes(number, recipe):
  """A recipe on data of so many classes."""
  return {**recipe, 'data': dict(settings=dict(num_classes=number))}


def get_config():
  """Two tables of teachers and one of noisy targets, over six seeds."""
  config = default()
  config.epochs = 100
  config.batch_size = 32
  config.data.name = 'gaussian_mixture'
  config.student.name = config.teacher.name = 'mlp128'
  config.optimizer.learning_rate = 5e-4
  config.optimizer.weight_decay = 0.0
  config.schedule.name = 'constant'
  config.method = dict(
    name='kd', temperature=1.0, label_weight=0.0, guide_weight=1.0
  )
  three = {f'K=3/{k}': with_classes(3, v) for k, v in TEACHERS.items()}
  ten = {
    f'K=10/{k}': with_classes(10, v) for k, v in {**TEACHERS, **MORE}.items()
  }
  targets = {
    f'noisy targets/eta {n:3d} %': with_classes(10, noisy(n / 100))
    for n in PER_CENT
  }
  config.study.seeds = tuple(range(6))
  config.study.vary = ('seed', 'teacher.seed', 'data.settings.seed')
  config.study.recipes = {**three, **ten, **targets}
  config.study.together = True
  config.study.columns = (
    'target/train_frobenius',
    'teacher/posterior_square',
    'teacher/top1',
    'student_best/top1',
    'student/top1',
  )
  config.study.against = 'target/train_frobenius'
  return config
