"""Shared by objectives that compare the relations of consecutive stages."""

from collections.abc import Callable, Sequence

from jaxkd.objectives import regressors, taps
from jaxkd.objectives.base import Objective
from jaxkd.types import Array, Outputs

# (the learner's maps and the guide's, from shallow to deep) -> loss.
Compare = Callable[[list[Array], list[Array]], Array]


def connected(
  name: str,
  compare: Compare,
  stages: Sequence[str],
  guide_stages: Sequence[str],
  connect: bool,
  *,
  stem: bool = False,
  remedy: str = '',
  **settings: object,
) -> Objective:
  """Returns an objective of all maps of two networks together.

  Args:
    name: see `Objective`.
    compare: two or more maps of each network.
    stages: taps of the learner; see `taps.pairs`.
    guide_stages: taps of the guide.
    connect: whether regressors map the learner's channels to as many as the
      guide's.
    stem: whether the stem is among the taps, where none are named.
    remedy: an alternative to `connect` where the numbers of channels differ;
      '' if `compare` takes any.
    **settings: further hyper-parameters in `compare`, for printing.
  """

  def ends(
    learner: Outputs, guide: Outputs | None
  ) -> tuple[regressors.Connectors, list[Array], list[Array]]:
    pairs = taps.pairs(learner, guide, stages, guide_stages, stem=stem)
    if len(pairs) < 2:
      raise ValueError(
        f'{name} compares consecutive stages, and got {len(pairs)} tap of each'
        ' network: name two or more, as stages and guide_stages'
      )
    if remedy and not connect:
      taps.check_channels(
        name, pairs, f'set connect to True, for learned connectors, or {remedy}'
      )
    own, others = (list(maps) for maps in zip(*pairs, strict=True))
    targets = [
      (*s.shape[1:3], (t if connect else s).shape[3]) for s, t in pairs
    ]
    return regressors.Connectors(tuple(targets)), own, others

  def init(key, *, learner, guide, **_):
    connectors, own, _ = ends(learner, guide)
    return regressors.init(connectors, key, *own), {}

  def loss(params, memory, *, learner, guide, **_):
    connectors, own, others = ends(learner, guide)
    own = regressors.apply(connectors, params, *own)
    return compare(own, others), memory

  own_settings: dict[str, object] = dict(
    stages=stages, guide_stages=guide_stages, connect=connect
  )
  return Objective(name, {**settings, **own_settings}, init, loss)
