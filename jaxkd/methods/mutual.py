"""Deep mutual learning (Zhang et al., CVPR 2018).

https://arxiv.org/abs/1706.00384. Untrained networks teach each other while they
learn from labels; there is no teacher that is ahead of them.
"""

from collections.abc import Sequence

from jaxkd.catalog import lookup
from jaxkd.graph import Graph, Learner, Phase
from jaxkd.methods import weights
from jaxkd.methods.network_specs import NetworkSpec, network
from jaxkd.methods.transfers import ObjectiveSpec, from_guide, from_labels

KD_1 = {'name': 'kd', 'temperature': 1.0}


def dml(
  peers: Sequence[NetworkSpec] = ('student',),
  objective: ObjectiveSpec = KD_1,
  label_weight: weights.Spec = 1.0,
  guide_weight: weights.Spec = 1.0,
  order: str = 'batch',
) -> tuple[Phase, ...]:
  """Peers that teach each other.

  With K networks, the loss of network i is
    l CE + g / (K - 1) sum over j != i of D(network j)
  with D = KL(p_j || p_i) at T = 1, and gradients in network i only.

  Args:
    peers: architectures of the student's peers, each as
      `network_specs.network` takes it; ('student',) is one more network of the
      student's own.
    objective: D; one or several, see
      `jaxkd.methods.transfers.weighted_objectives`.
    label_weight: l; a number or a schedule, see `jaxkd.methods.weights.make`.
    guide_weight: g, likewise.
    order: 'batch' updates the networks one after another on each batch, so that
      each is taught by those before it as they are after their update, as in
      the paper (algorithm 1); 'parallel' updates all at once, in less time.

  Raises:
    KeyError: no such order.
    ValueError: no peers.
  """
  lookup('order', ORDERS, order)
  if not peers or isinstance(peers, str):
    raise ValueError(
      f'peers of dml must be one model or more, got {peers!r}: give a tuple'
      " like ('student',)"
    )
  learners = {
    **{f'peer{n}': network(Learner, x) for n, x in enumerate(peers)},
    'student': Learner(),
  }
  share = weights.times(weights.make(guide_weight), 1 / len(peers))
  transfers = [from_labels(name, label_weight) for name in learners]
  transfers += [
    transfer
    for learner in learners
    for guide in learners
    if guide != learner
    for transfer in from_guide(guide, learner, objective, share)
  ]
  turns = ORDERS[order](tuple(learners))
  return (Phase('mutual', Graph(learners, tuple(transfers), turns)),)


ORDERS = {
  'batch': lambda names: tuple((name,) for name in names),
  'parallel': lambda names: (),
}
