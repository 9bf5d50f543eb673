"""The description of a run or a study, before anything is trained."""

from jaxkd.config import Config
from jaxkd.runs.experiment import build
from jaxkd.runs.study import describe, is_study


def run(config: Config) -> str:
  """Returns phases, networks and transfers as text.

  Args:
    config: checked.
  """
  return describe(config) if is_study(config) else build(config).describe()
