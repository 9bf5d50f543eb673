"""What is installed, what is missing, and where jaxkd looks for things."""

import dataclasses
import importlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Iterator

from jaxkd import __version__, disk, text

# Libraries whose versions are shown, by the names of their modules.
LIBRARIES = {
  'jax': 'jax',
  'jaxlib': 'jaxlib',
  'flax': 'flax',
  'optax': 'optax',
  'orbax-checkpoint': 'orbax.checkpoint',
  'ml-collections': 'ml_collections',
  'numpy': 'numpy',
}
COMPILED = 'JAX_COMPILATION_CACHE_DIR'
SWITCH = 'JAXKD_COMPILATION_CACHE'


@dataclasses.dataclass
class Report:
  """The report of `examine`.

  sections: title -> its lines.
  broken: what is required and does not work, each with its remedy.
  """

  sections: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  broken: list[str] = dataclasses.field(default_factory=list)

  def __str__(self) -> str:
    parts = [
      '\n'.join([title, *(f'  {line}' for line in lines)])
      for title, lines in self.sections.items()
    ]
    end = 'Everything that jaxkd requires works.'
    if self.broken:
      end = '\n'.join(['To be mended:', *(f'  {x}' for x in self.broken)])
    return '\n\n'.join([*parts, end])


def examine() -> Report:
  """Looks at the libraries, the devices and the folders that jaxkd uses."""
  report = Report()
  report.sections['Versions'] = _aligned(_versions(report))
  report.sections['Devices'] = _aligned(_devices(report))
  report.sections['Caches'] = _aligned(_caches(report))
  report.sections['Data'] = _aligned(_data(report))
  report.sections['Extras'] = _aligned(_extras())
  return report


def _aligned(rows: Iterator[tuple[str, str]]) -> list[str]:
  return text.table(list(rows)).splitlines()


def _versions(report: Report) -> Iterator[tuple[str, str]]:
  """Yields versions; what cannot be imported, or is too old, is broken."""
  yield 'Python', f'{platform.python_version()} ({sys.executable})'
  yield 'jaxkd', f'{__version__} ({pathlib.Path(__file__).parents[1]})'
  for name, module in LIBRARIES.items():
    try:
      importlib.import_module(module)
      yield name, importlib.metadata.version(name)
    except Exception as error:  # a library may raise anything while it loads
      yield name, f'cannot be imported: {_line(error)}'
      report.broken.append(
        f"{name} cannot be imported: pip install --upgrade 'jaxkd'"
      )
  for line in unmet('jaxkd', ''):
    yield 'required', line
    report.broken.append(f"{line}: pip install --upgrade 'jaxkd'")


def unmet(package: str, extra: str) -> list[str]:
  """Returns a line for each requirement of a package that is not met.

  Args:
    package: name of an installed package.
    extra: one of its extras, whose own requirements are looked at; '': the
      requirements without any extra.
  """
  from packaging.requirements import Requirement

  try:
    texts = importlib.metadata.requires(package) or []
  except importlib.metadata.PackageNotFoundError:
    return [f'{package} is not installed']
  lines = []
  for each in map(Requirement, texts):
    always = each.marker is None or each.marker.evaluate({'extra': ''})
    chosen = each.marker is None or each.marker.evaluate({'extra': extra})
    if not chosen or always == bool(extra):
      continue
    try:
      version = importlib.metadata.version(each.name)
    except importlib.metadata.PackageNotFoundError:
      lines.append(f'{each.name} is not installed')
      continue
    if not each.specifier.contains(version, prereleases=True):
      lines.append(f'{each.name} {version} does not fit {each.specifier}')
    for further in sorted(each.extras):
      lines += unmet(each.name, further)
  return lines


def _devices(report: Report) -> Iterator[tuple[str, str]]:
  """Yields the devices and cores; to have no device is broken."""
  try:
    import jax

    devices = jax.devices()
    kinds = [f'{x.platform} ({x.device_kind})' for x in devices]
    for kind in sorted(set(kinds)):
      yield kind, f'{kinds.count(kind)}'
    if devices[0].platform == 'cpu':
      yield '', 'a run makes a device of each core, 4 at most'
  except Exception as error:  # of the backend, or because jax is missing
    yield 'none', _line(error)
    report.broken.append(
      'JAX finds no device: set JAX_PLATFORMS=cpu, or install what the'
      " accelerator needs: pip install 'jaxkd[cuda]' or 'jaxkd[tpu]'"
    )
  usable = (
    len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 0
  )
  yield 'CPU cores', f'{os.cpu_count()}, {usable or "all"} of them usable'
  for name in ('JAX_PLATFORMS', 'JAX_NUM_CPU_DEVICES', 'XLA_FLAGS'):
    if name in os.environ:
      yield name, os.environ[name]


def _caches(report: Report) -> Iterator[tuple[str, str]]:
  """Yields what is kept between runs; a folder that is read-only is broken."""
  try:
    from jaxkd.runs.layout import cache_folder

    folder = cache_folder()
    yield 'jaxkd', f'{folder} ($JAXKD_CACHE), {_size(folder)}'
    for each in sorted(folder.glob('*/')):
      yield f'  {each.name}', _size(each)
    disk.check_writable(folder, 'the cache ($JAXKD_CACHE)')
    place = next(x for x in (folder, *folder.absolute().parents) if x.exists())
    yield '  free space', _bytes(shutil.disk_usage(place).free)
  except (ImportError, OSError, ValueError) as error:
    yield 'jaxkd', _line(error)
    report.broken.append(f'{_line(error)} (set JAXKD_CACHE)')
  compiled = os.environ.get(COMPILED, '')
  if compiled:
    size = _size(disk.expanded(compiled))
    yield 'compiled programs', f'{compiled} (${COMPILED}), {size}'
  elif os.environ.get(SWITCH, '').lower() == 'off':
    yield 'compiled programs', f'not kept (${SWITCH})'
  else:
    yield 'compiled programs', "in jaxkd's cache"


def _data(report: Report) -> Iterator[tuple[str, str]]:
  """Yields where data sets are looked for, and which of them are there."""
  try:
    folder = disk.folder_of('', 'JAXKD_DATA', '~/.cache/jaxkd/data', 'data.dir')
  except ValueError as error:
    yield 'folder', _line(error)
    report.broken.append(_line(error))
    return
  yield 'folder', f'{folder} ($JAXKD_DATA, or the setting data.dir)'
  try:
    from jaxkd.data.cifar_files import CIFAR10, CIFAR100
  except Exception:  # what is missing has been reported
    return
  for layout in (CIFAR10, CIFAR100):
    names = (layout.folder, layout.archive)
    there = [name for name in names if (folder / name).exists()]
    yield (
      layout.name,
      ', '.join(there)
      or f'not there: download {layout.archive} into this folder from'
      ' https://www.cs.toronto.edu/~kriz/cifar.html',
    )
  yield 'digits', 'comes with scikit-learn: nothing to download'
  tfds = os.environ.get('TFDS_DATA_DIR', '') or '~/tensorflow_datasets'
  there = 'exists' if pathlib.Path(tfds).expanduser().is_dir() else 'not there'
  yield 'tfds:NAME', f'{tfds} ($TFDS_DATA_DIR), {there}'


def _extras() -> Iterator[tuple[str, str]]:
  """Yields each extra, and what of it is missing."""
  try:
    extras = importlib.metadata.metadata('jaxkd').get_all('Provides-Extra')
  except importlib.metadata.PackageNotFoundError:
    extras = None
  for extra in extras or ():
    lines = unmet('jaxkd', extra)
    remedy = f"{'; '.join(lines)}: pip install 'jaxkd[{extra}]'"
    yield extra, remedy if lines else 'installed'
  if not extras:
    yield 'unknown', 'jaxkd is not installed here: pip install -e .'


def _size(folder: pathlib.Path) -> str:
  """Returns the size of a folder's files as text."""
  if not folder.is_dir():
    return 'not there yet'
  total = 0
  for place, _, files in os.walk(folder):
    for name in files:
      try:
        total += os.lstat(os.path.join(place, name)).st_size
      except OSError:  # removed meanwhile
        continue
  return _bytes(total)


def _bytes(number: float) -> str:
  for unit in ('bytes', 'kB', 'MB'):
    if number < 1000:
      return f'{number:.0f} {unit}'
    number /= 1000
  return f'{number:,.1f} GB'


def _line(error: BaseException) -> str:
  return (str(error) or type(error).__name__).splitlines()[0][:200]


def run() -> int:
  """Prints the report; returns 1 if something that is required is broken."""
  report = examine()
  print(report)
  return int(bool(report.broken))
