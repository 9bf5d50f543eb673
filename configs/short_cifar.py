"""Ten methods on all of CIFAR-100 in twelve epochs, over three seeds.

Command:

  jaxkd train short_cifar --workdir=runs/short teacher.checkpoint=FILE

A protocol that two CPU cores can run: resnet20 teaches resnet8 for 12 epochs,
with the benchmark's batch size, rate and weight decay, and its milestones in
proportion (7.5, 9 and 10.5 epochs). Warm-ups of 20 epochs become one. All
recipes share the teacher, and a seed's runs share their initial values, order
and views, so that differences are paired. Weights are those of the configs of
each method (docs/cifar.md); where those depend on the pair, they are stated
below.

'kd heavy' is KD with the total weight of SLKD (1.1 on the labels, 1.9 on the
teacher), the control of slkd_cifar.py; 'gpd, one branch' is GPD without
channel-branch reparameterisation.

Parts of it by study.only="('plain','kd')"; a part that is run later needs the
same command with more names.

Expected: unpublished. Measured by this code: docs/results.md.
"""

from jaxkd.config import REQUIRED, benchmark


def distil(objective: str, guide_weight: float, warmup_epochs=0, **settings):
  """A recipe of one objective beside the labels' cross-entropy."""
  return dict(
    method=dict(
      name='distil',
      objective=dict(name=objective, **settings),
      label_weight=1.0,
      guide_weight=guide_weight,
      warmup_epochs=warmup_epochs,
    )
  )


def kd(label_weight: float, guide_weight: float):
  """A recipe of plain KD."""
  return dict(
    method=dict(
      name='kd',
      temperature=4.0,
      label_weight=label_weight,
      guide_weight=guide_weight,
    )
  )


def gpd(branches: int):
  """A recipe of GPD over KD, with the settings of gpd_cifar.py."""
  return dict(
    student=dict(branches=branches),
    optimizer=dict(clip_norm=5.0),
    method=dict(
      name='gpd',
      static=dict(name='kd', temperature=4.0),
      dynamic=dict(name='soft_cross_entropy', smoothing=0.1),
      weight=3.0,
      ratio=2.0,
      label_weight=0.1,
      static_weight=0.9,
      noise=1e-6,
    ),
  )


def get_config(pair: str = 'resnet20,resnet8'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.epochs = 12
  config.teacher.checkpoint = REQUIRED
  config.study.seeds = (0, 1, 2)
  config.study.recipes = {
    'plain': dict(method=dict(name='plain')),
    'kd': kd(0.1, 0.9),
    'kd heavy': kd(1.1, 1.9),
    'dkd': distil('dkd', 1.0, warmup_epochs=1, beta=2.0),
    'slkd': dict(
      method=dict(
        name='slkd', objective=dict(name='kd', temperature=4.0), members=2
      )
    ),
    'gpd': gpd(branches=6),
    'gpd, one branch': gpd(branches=1),
    'at': distil('at', 1000.0),
    'crd': distil('crd', 0.8),
    'reviewkd': distil('reviewkd', 5.0, warmup_epochs=1),
    'dist': distil('dist', 2.0, beta=1.0, gamma=1.0, temperature=4.0),
  }
  config.study.baseline = 'plain'
  return config
