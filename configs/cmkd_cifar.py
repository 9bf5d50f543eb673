"""Correlation matching on CIFAR-100: values and ranks of the logits.

Paper: Niu et al., 2024, https://arxiv.org/abs/2410.06561. Its equations and
constants were not available. Choices: Spearman's correlation counts for hard
examples, both weights are those of DIST, and so is the temperature; see
jaxkd/losses/ranks.py.

Command:

  jaxkd train cmkd_cifar --workdir=runs/cmkd
  jaxkd train cmkd_cifar:vgg13,vgg8 --workdir=runs/cmkd_vgg

Control: method.objective.hard=pearson, and dist_cifar.py.

Cost: not run to its end here.

Expected: no figure, since the settings are not the paper's.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='distil',
    objective=dict(
      name='cmkd', hard='spearman', alpha=1.0, beta=2.0, temperature=4.0
    ),
    label_weight=1.0,
    guide_weight=1.0,
  )
  return config
