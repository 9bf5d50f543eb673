"""Born-again networks (Furlanello et al., ICML 2018).

https://arxiv.org/abs/1805.04770. A student of the teacher's own architecture,
initialised at random, is distilled from the teacher; then the next generation
is distilled from it, and so on.
"""

from jaxkd.catalog import check_whole
from jaxkd.graph import Learner, Phase
from jaxkd.methods import weights
from jaxkd.methods.chain import chain, last_before
from jaxkd.methods.transfers import ObjectiveSpec

KD_1 = {'name': 'kd', 'temperature': 1.0}


def ban(
  generations: int = 3,
  objective: ObjectiveSpec = KD_1,
  label_weight: weights.Spec = 0.0,
  guide_weight: weights.Spec = 1.0,
) -> tuple[Phase, ...]:
  """Generations of students, each the next one's teacher.

  The loss of each is l CE + g D(the generation before), D = KL at T = 1. The
  architectures of teacher and student are the config's: the paper's are equal,
  or differ in depth or width. Its variant CWTM, in which the teacher only
  weights the labels, is the objective {'name': 'weighted', 'objective':
  'cross_entropy', 'score': 'confidence', 'normalise': True}; DKPP, in which
  its other probabilities change places, is 'permuted'.

  Args:
    generations: how many; the last is the `student`, those before it
      `generation1`, `generation2`, ...
    objective: D; one or several, see
      `jaxkd.methods.transfers.weighted_objectives`.
    label_weight: l: 0, or 1 for the variant with labels (BAN+L); a number or a
      schedule, see `jaxkd.methods.weights.make`.
    guide_weight: g, likewise.

  Raises:
    ValueError: `generations` is not a whole number of at least 1.
  """
  check_whole('ban', 'generations', generations)
  links = {
    f'generation{n}': Learner(like='student') for n in range(1, generations)
  }
  links['student'] = Learner()
  return chain(links, last_before, objective, label_weight, guide_weight)
