"""Finds the image files below a folder, and counts what it passes over."""

import collections
import dataclasses
import heapq
import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

# What systems leave in folders, besides names that begin with a dot. A name is
# here only if nobody would give it to a class: `recycled` and `CVS` are classes
# of waste and of brands.
SYSTEM_NAMES = frozenset(
  (
    # macOS, and its archives and network drives
    '__macosx',
    'icon\r',
    'network trash folder',
    'temporary items',
    'thevolumesettingsfolder',
    # Windows
    '$recycle.bin',
    'desktop.ini',
    'ehthumbs.db',
    'ehthumbs_vista.db',
    'system volume information',
    'thumbs.db',
    # network storage: Synology, QNAP, NetApp
    '#recycle',
    '#snapshot',
    '@eadir',
    '@recently-snapshot',
    '@recycle',
    '@sharebin',
    '@tmp',
    '~snapshot',
    # file systems and Python
    'lost+found',
    '__pycache__',
  )
)
# Recovered clusters of Windows, metadata of Synology beside each file.
SYSTEM_PATTERN = re.compile(r'found\.\d{3}|.*@syno(eastream|resource)')
SHOWN = 5  # names or suffixes in a note

Identity = tuple[int, int]  # device and inode of a folder


class _Entry(NamedTuple):
  """A file or folder. `kind` is 'folder', 'file', 'broken' or 'special'."""

  name: str
  path: str
  kind: str
  is_link: bool


def is_skipped(name: str) -> bool:
  """Returns whether a file or folder is none of the user's own."""
  folded = name.casefold()
  return (
    name.startswith('.')
    or folded in SYSTEM_NAMES
    or SYSTEM_PATTERN.fullmatch(folded) is not None
  )


@dataclasses.dataclass
class Walker:
  """Lists class folders and their images; remembers what it passed over.

  Attributes:
    suffixes: of the files to list, in lower case.
    skipped: how often each name that `is_skipped` was met.
    others: how many files have each other suffix.
    beside: how many files lie beside class folders.
    broken: links that lead nowhere.
    repeated: links to folders whose images are listed already.
    owners: the class folder in which each real folder was listed first.
    shared: pairs of class folders that have a real folder in common.
  """

  suffixes: tuple[str, ...]
  skipped: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  others: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  beside: int = 0
  broken: int = 0
  repeated: int = 0
  owners: dict[Identity, str] = dataclasses.field(default_factory=dict)
  shared: set[tuple[str, str]] = dataclasses.field(default_factory=set)

  def folders(self, root: str | os.PathLike[str]) -> list[str]:
    """Returns the names of the folders in `root`, sorted."""
    names = []
    for entry in self._entries(root):
      if entry.kind == 'folder':
        names.append(entry.name)
      elif entry.kind == 'broken':
        self.broken += 1
      else:
        self.beside += 1
    return sorted(names)

  def images(self, root: str | os.PathLike[str]) -> list[str]:
    """Returns the paths of the images at any depth below `root`.

    Links to folders are followed, but not to one that contains `root`. A folder
    that is reached twice, through a cycle or through two links, is read once:
    at its own place if that is below `root`, else through the first link.
    Sorted by the parts of the path.
    """
    root = os.fspath(root)
    files, visited = [], _parents(root)
    real, links = [root], []
    while real or links:
      is_link = not real
      folder = heapq.heappop(links) if is_link else real.pop()
      identity = _identity(folder)
      if identity in visited:
        self.repeated += 1
        continue
      visited.add(identity)
      self._remember(identity, root)
      for entry in self._entries(folder):
        if entry.kind == 'folder' and entry.is_link:
          heapq.heappush(links, entry.path)
        elif entry.kind == 'folder':
          real.append(entry.path)
        elif entry.kind == 'broken':
          self.broken += 1
        else:
          suffix = os.path.splitext(entry.name)[1].lower()
          if entry.kind == 'file' and suffix in self.suffixes:
            files.append(entry.path)
          else:
            self.others[suffix] += 1
    return sorted(files, key=lambda path: path.split(os.sep))

  def notes(self) -> tuple[str, ...]:
    """Returns a sentence for each kind of thing that was passed over."""
    notes = []
    if n := self.skipped.total():
      notes.append(
        f'Skipped {n} hidden files and folders and those of systems:'
        f' {_listed(self.skipped)}.'
      )
    if n := self.others.total():
      notes.append(
        f'Left out {_count(n, "file")} without the suffix of an image:'
        f' {_listed(self.others)}.'
      )
    if self.beside:
      notes.append(
        f'Left out {_count(self.beside, "file")} beside the class folders.'
      )
    if self.broken:
      notes.append(f'Left out {_count(self.broken, "broken link")}.')
    if self.repeated:
      notes.append(
        f'Left out {_count(self.repeated, "link")} to folders that are read'
        ' already or contain the class.'
      )
    for first, second in sorted(self.shared)[:SHOWN]:
      notes.append(
        f'{first} and {second} lead to the same folder: its images are in both.'
      )
    return tuple(notes)

  def _entries(self, folder: str | os.PathLike[str]) -> list[_Entry]:
    """Returns what is in a folder; counts the names that are skipped."""
    entries = []
    with os.scandir(folder) as scan:
      for entry in scan:
        if is_skipped(entry.name):
          self.skipped[entry.name] += 1
          continue
        kind, is_link = _kind(entry), entry.is_symlink()
        entries.append(_Entry(entry.name, entry.path, kind, is_link))
    return entries

  def _remember(self, identity: Identity, root: str) -> None:
    """Notices a folder that another class folder has as well."""
    owner = self.owners.setdefault(identity, root)
    if owner != root:
      self.shared.add((owner, root))


def _identity(folder: str | os.PathLike[str]) -> Identity:
  status = os.stat(folder)
  return status.st_dev, status.st_ino


def _parents(folder: str) -> set[Identity]:
  """Returns the folders that contain a folder, by its path or in truth."""
  paths = pathlib.Path(os.path.abspath(folder)), pathlib.Path(folder).resolve()
  return {_identity(parent) for path in paths for parent in path.parents}


def _kind(entry: os.DirEntry[str]) -> str:
  try:
    if entry.is_dir():
      return 'folder'
    if entry.is_file():
      return 'file'
  except OSError:  # a link to itself
    return 'broken'
  return 'broken' if entry.is_symlink() else 'special'


def _count(n: int, thing: str) -> str:
  return f'{n} {thing}' if n == 1 else f'{n} {thing}s'


def _listed(counts: Mapping[str, int]) -> str:
  """Returns the most frequent names with their counts."""
  ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
  shown = [
    f'{ascii(name)[1:-1] or "no suffix"} ({n})' for name, n in ranked[:SHOWN]
  ]
  return ', '.join(shown) + (', ...' if len(ranked) > SHOWN else '')
