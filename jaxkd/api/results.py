"""A finished run, as Python sees it."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxkd import disk, reports
from jaxkd.api.networks import Network
from jaxkd.catalog import UnknownNameError, suggestion
from jaxkd.checkpoints.load import RESULTS
from jaxkd.commands import export
from jaxkd.data.base import Dataset
from jaxkd.runs import folder, layout, results
from jaxkd.training import log


class Result:
  """The result of a run: its networks, its metrics, and its folder."""

  def __init__(
    self, workdir: str | os.PathLike[str], dataset: Dataset | None = None
  ):
    """Opens the folder of a finished run; see `load`.

    Args:
      workdir: of the run.
      dataset: its data, if they are in memory only.

    Raises:
      FileNotFoundError: there is no finished run.
    """
    self.workdir = disk.expanded(workdir)
    self._dataset = dataset
    self._read: dict[str, Network] = {}
    summary = folder.read_summary(self.workdir)
    if summary is None:
      raise FileNotFoundError(
        f'no finished run in {self.workdir}: {layout.SUMMARY} is missing'
      )
    self.summary: dict[str, Any] = summary

  @property
  def config(self) -> ConfigDict:
    """The config of the run, which the command line would take."""
    return ConfigDict(folder.read_config(self.workdir / layout.CONFIG))

  @property
  def networks(self) -> dict[str, Network]:
    """The networks that the run has trained, by name."""
    names = [
      name
      for name in self.summary['networks']
      if layout.network(self.workdir, name).exists()
    ]
    return {name: self[name] for name in names}

  def __getitem__(self, name: str) -> Network:
    """Returns a network that the run has trained.

    Raises:
      KeyError: no such network, with suggestions; or it was not trained here,
        as a teacher from a checkpoint.
    """
    path = layout.network(self.workdir, name)
    if not path.exists():
      trained = [path.name for path in path.parent.glob('*')]
      raise UnknownNameError(
        f'{self.workdir} has trained no network {name!r}.'
        f' {suggestion(name, trained)}'
      )
    if name not in self._read:  # whose arrays are read once
      metrics = self.summary['networks'].get(name)
      self._read[name] = Network(path, _metrics(metrics), self._dataset)
    return self._read[name]

  @property
  def student(self) -> Network:
    """The student."""
    return self['student']

  @property
  def teacher(self) -> Network:
    """The teacher, if the run has trained it or taken it from the cache."""
    return self['teacher']

  @property
  def network(self) -> Network:
    """The network that the run is for: the student, or else the teacher."""
    names = self.summary['networks']
    return self[next((name for name in RESULTS if name in names), RESULTS[0])]

  @property
  def metrics(self) -> list[dict[str, Any]]:
    """One mapping for each epoch of each phase, as in metrics.jsonl."""
    return log.read(self.workdir / 'metrics.jsonl')

  def table(self) -> str:
    """Returns the networks and their test results as a table."""
    return results.result_table(self.summary)

  def save(
    self, path: str | os.PathLike[str], network: str = ''
  ) -> export.Exported:
    """Writes a network without the parts that only training needs.

    Args:
      path: the file, whose suffix is its format: .npz, .safetensors, .pth,
        .stablehlo or .onnx.
      network: its name; '' takes the student, or else the teacher.

    Raises:
      ImportError: the format needs a library that is absent.
      KeyError: no such format.
      ValueError: read back, the file does not give the same logits.
    """
    return export.export(
      self.workdir, disk.expanded(path), network, self._dataset
    )

  def report(
    self, output: str | os.PathLike[str] | None = None
  ) -> pathlib.Path:
    """Writes the report of the run, a page in one file, and returns its path.

    Args:
      output: the file; by default report.html in the folder of the run.

    Raises:
      OSError: the file cannot be written.
    """
    path = None if output is None else disk.expanded(output)
    return reports.write(self.workdir, path)

  def __repr__(self) -> str:
    return f'<jaxkd result in {self.workdir}>\n{self.table()}'


def _metrics(entry: Mapping[str, Any] | None) -> dict[str, Any]:
  """Returns the numbers of a network's entry in the summary."""
  described = ('width', 'branches', 'params', 'macs')
  return {
    key: x
    for key, x in (entry or {}).items()
    if isinstance(x, int | float) and key not in described
  }


def load(workdir: str | os.PathLike[str]) -> Result:
  """Opens the folder of a finished run.

  Args:
    workdir: of a run. A single network is read by `load_network`.

  Raises:
    FileNotFoundError: there is no finished run.
  """
  return Result(workdir)
