"""From sums over batches to means over a split."""

from collections.abc import Iterable

from jaxkd.types import Metrics


def means(sums: Iterable[Metrics], size: int) -> dict[str, float]:
  """Adds up what each batch has counted and divides by the split's size.

  Args:
    sums: for each batch, scalars that add up, and 'seen', the examples.
    size: of the split.

  Returns:
    The mean over the split of each entry but 'seen'.

  Raises:
    RuntimeError: not every example was counted exactly once.
  """
  total: dict[str, float] = {}
  for batch in list(sums):  # dispatch all batches before waiting for the first
    for name, value in batch.items():
      total[name] = total.get(name, 0.0) + float(value)
  seen = total.pop('seen', 0.0)
  if seen != size:
    raise RuntimeError(f'evaluated {seen:g} of {size} examples')
  return {name: value / size for name, value in total.items()}
