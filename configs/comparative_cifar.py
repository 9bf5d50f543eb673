"""Comparative knowledge distillation on CIFAR-100.

Paper: Wilf et al., WACV 2025, https://arxiv.org/abs/2311.02253. Differences
between examples are taught, by the teacher's logits and by one-hot labels.
There is no cross-entropy.

Command:

  jaxkd train comparative_cifar --workdir=runs/comparative
  jaxkd train comparative_cifar:vgg13,vgg8 --workdir=runs/comparative_vgg

Deviation: all pairs of a batch are compared, with the benchmark's settings.
Triples are method.objective.positives=2, and likewise for labels.

The paper is about few images, 2,000 to 6,000: data.few_shot=20 keeps 2,000 of
them.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: not run to its end here.

Expected: no figure, since the settings are the benchmark's.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(name='comparative', positives=1, negatives=1),
    label_objective=dict(name='comparative', positives=1, negatives=1),
    label_weight=1.0,
    guide_weight=1.0,
  )
  return config
