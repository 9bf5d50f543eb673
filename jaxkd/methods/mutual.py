"""Deep mutual learning (Zhang et al., CVPR 2018).

https://arxiv.org/abs/1706.00384. Untrained networks teach each other while they
learn from labels; there is no teacher that is ahead of them.
"""

from collections.abc import Sequence

from jaxkd.catalog import lookup
from jaxkd.graph import Graph, Learner, Phase
from jaxkd.methods import networks, weights
from jaxkd.methods.arrows import Spec, arrows, chosen, labelled


def dml(
  peers: Sequence[networks.Spec] = ('student',),
  objective: Spec | None = None,
  label_weight: weights.Spec = 1.0,
  guide_weight: weights.Spec = 1.0,
  order: str = 'batch',
  objectives: Spec | None = None,
) -> tuple[Phase, ...]:
  """Peers that teach each other.

  With K networks, the loss of network i is
    l CE + g / (K - 1) sum over j != i of D(network j)
  with D = KL(p_j || p_i) at T = 1, and gradients in network i only.

  Args:
    peers: architectures of the student's peers, each as `networks.node` takes
      it; ('student',) is one more network of the student's own.
    objective: D.
    label_weight: l; a number or a schedule, see `jaxkd.methods.weights.make`.
    guide_weight: g, likewise.
    order: 'batch' updates the networks one after another on each batch, so that
      each is taught by what those before it have just become, as in the paper
      (algorithm 1); 'parallel' updates all at once, in less time.
    objectives: several in the place of `objective`.

  Raises:
    KeyError: no such order.
    ValueError: no peers.
  """
  lookup('order', ORDERS, order)
  if not peers or isinstance(peers, str):
    raise ValueError(
      f"dml has peers={peers!r}: give one model or more, like ('student',)"
    )
  spec = chosen(objective, objectives, {'name': 'kd', 'temperature': 1.0})
  learners = {
    **{f'peer{n}': networks.node(Learner, x) for n, x in enumerate(peers)},
    'student': Learner(),
  }
  share = weights.times(weights.make(guide_weight), 1 / len(peers))
  transfers = [labelled(name, label_weight) for name in learners]
  transfers += [
    arrow
    for learner in learners
    for guide in learners
    if guide != learner
    for arrow in arrows(guide, learner, spec, share)
  ]
  turns = ORDERS[order](tuple(learners))
  return (Phase('mutual', Graph(learners, tuple(transfers), turns)),)


ORDERS = {
  'batch': lambda names: tuple((name,) for name in names),
  'parallel': lambda names: (),
}
