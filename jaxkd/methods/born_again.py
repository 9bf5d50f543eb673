"""Born-again networks (Furlanello et al., ICML 2018).

https://arxiv.org/abs/1805.04770. A student of the teacher's own architecture,
from new random values, learns what the teacher says; then the next generation
learns from it, and so on.
"""

from jaxkd.catalog import check_whole
from jaxkd.graph import Learner, Phase
from jaxkd.methods import weights
from jaxkd.methods.arrows import Spec, chosen
from jaxkd.methods.chain import chain, previous


def ban(
  generations: int = 3,
  objective: Spec | None = None,
  label_weight: weights.Spec = 0.0,
  guide_weight: weights.Spec = 1.0,
  objectives: Spec | None = None,
) -> tuple[Phase, ...]:
  """Generations of students, each the next one's teacher.

  The loss of each is l CE + g D(the generation before), D = KL at T = 1. The
  architectures of teacher and student are the config's: the paper's are equal,
  or differ in depth or width. Its variant CWTM, in which the teacher only says
  how much each label counts, is the objective {'name': 'weighted', 'objective':
  'cross_entropy', 'score': 'confidence', 'normalise': True}; DKPP, in which
  its other probabilities change places, is 'permuted'.

  Args:
    generations: how many; the last is the `student`, those before it
      `generation1`, `generation2`, ...
    objective: D.
    label_weight: l: 0, or 1 for the variant with labels (BAN+L); a number or a
      schedule, see `jaxkd.methods.weights.make`.
    guide_weight: g, likewise.
    objectives: several in the place of `objective`.

  Raises:
    ValueError: no whole number of generations, or less than one.
  """
  check_whole('ban', 'generations', generations)
  spec = chosen(objective, objectives, {'name': 'kd', 'temperature': 1.0})
  links = {
    f'generation{n}': Learner(like='student') for n in range(1, generations)
  }
  links['student'] = Learner()
  return chain(links, previous, spec, label_weight, guide_weight)
