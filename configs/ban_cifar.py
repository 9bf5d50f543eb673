"""Born-again networks on CIFAR-100: three generations of wrn_40_2.

Paper: Furlanello et al., ICML 2018, https://arxiv.org/abs/1805.04770. A student
of the teacher's own architecture is distilled from the teacher, then teaches
the next one.

Command:

  jaxkd train ban_cifar --workdir=runs/ban
  jaxkd train ban_cifar:resnet56 method.generations=5 --workdir=runs/ban_56

With labels (BAN+L): method.label_weight=1. The last generation is `student`,
those before it are `generation1`, `generation2`, ... Their ensemble:

  jaxkd eval runs/ban --network=generation1,generation2,student

Deviation: the settings are the benchmark's, and so are the networks; the
paper's are larger.

Cost: a teacher's training, and for each generation one more with the forward
pass of the generation before it. Not run to its end here.

Expected: no figure, since the settings differ from the paper's.
"""

from jaxkd.config import benchmark


def get_config(model: str = 'wrn_40_2'):
  """Generations of one model."""
  config = benchmark(f'{model},{model}')
  config.method = dict(
    name='ban',
    generations=3,
    objective=dict(name='kd', temperature=1.0),
    label_weight=0.0,
    guide_weight=1.0,
  )
  return config
