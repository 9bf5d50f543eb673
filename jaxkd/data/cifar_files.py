"""Where the files of CIFAR-10 and CIFAR-100 are, and what they should be.

https://www.cs.toronto.edu/~kriz/cifar.html. A folder, or the .tar.gz as it was
downloaded: members of the archive are read in memory, never extracted.
"""

import pathlib
import tarfile
import zlib
from typing import NamedTuple

from jaxkd import disk


class Layout(NamedTuple):
  """How one of the two is distributed; every file comes with its md5."""

  name: str
  folder: str
  archive_md5: str
  train: dict[str, str]
  test: dict[str, str]
  meta: dict[str, str]
  label_key: str
  names_key: str
  num_classes: int

  @property
  def archive(self) -> str:
    """Name of the file to download."""
    stem = self.folder.removesuffix('-batches-py').removesuffix('-python')
    return f'{stem}-python.tar.gz'

  @property
  def md5(self) -> dict[str, str]:
    """Of every file that is read."""
    return self.train | self.test | self.meta


CIFAR10 = Layout(
  name='cifar10',
  folder='cifar-10-batches-py',
  archive_md5='c58f30108f718f92721af3b95e74349a',
  train={
    'data_batch_1': 'c99cafc152244af753f735de768cd75f',
    'data_batch_2': 'd4bba439e000b95fd0a9bffe97cbabec',
    'data_batch_3': '54ebc095f3ab1f0389bbae665268c751',
    'data_batch_4': '634d18415352ddfa80567beed471001a',
    'data_batch_5': '482c414d41f54cd18b22e5b47cb7c3cb',
  },
  test={'test_batch': '40351d587109b95175f43aff81a1287e'},
  meta={'batches.meta': '5ff9c542aee3614f3951f8cda6e48888'},
  label_key='labels',
  names_key='label_names',
  num_classes=10,
)
CIFAR100 = Layout(
  name='cifar100',
  folder='cifar-100-python',
  archive_md5='eb9058c3a382ffc7106e4002c42a8d85',
  train={'train': '16019d7e3df5f24257cddd939b257f8d'},
  test={'test': 'f0ef6b0ae62326f3e7ffdfab6717acfc'},
  meta={'meta': '7973b15100ade9c7d40fb424638fde48'},
  label_key='fine_labels',
  names_key='fine_label_names',
  num_classes=100,
)


def read_files(
  layout: Layout, dir: str | None
) -> tuple[pathlib.Path, dict[str, bytes]]:
  """Finds the files and reads them.

  Args:
    layout: of the data set.
    dir: the folder itself, the archive, or a folder that contains one of them.
      By default $JAXKD_DATA, else ~/.cache/jaxkd/data.

  Returns:
    The folder or archive, and the content of every file in `layout.md5`.

  Raises:
    FileNotFoundError: there is no data set in `dir`, or a file is missing.
    ValueError: the archive is truncated, or not an archive.
  """
  root = disk.folder_of(
    dir or '', 'JAXKD_DATA', '~/.cache/jaxkd/data', 'data.dir'
  )
  archives = [root, root / layout.archive]
  folders = [root, root / layout.folder]
  for folder in folders:
    if any((folder / name).is_file() for name in layout.md5):
      return folder, _complete(layout, folder, _read_folder(layout, folder))
  for archive in archives:
    if archive.is_file():
      return archive, _complete(layout, archive, _read_archive(layout, archive))
  raise FileNotFoundError(
    f'{layout.name} is not in {root}: download {layout.archive} (md5 '
    f'{layout.archive_md5}) from https://www.cs.toronto.edu/~kriz/cifar.html '
    f'into {root}, or set --config.data.dir to the folder that contains it'
  )


def _read_folder(layout: Layout, folder: pathlib.Path) -> dict[str, bytes]:
  return {
    name: (folder / name).read_bytes()
    for name in layout.md5
    if (folder / name).is_file()
  }


def _read_archive(layout: Layout, archive: pathlib.Path) -> dict[str, bytes]:
  files = {}
  try:
    with tarfile.open(archive, 'r:*') as tar:
      for member in tar:
        name = pathlib.PurePosixPath(member.name).name
        if member.isfile() and name in layout.md5:
          content = tar.extractfile(member)
          assert content is not None, 'a regular file has content'
          files[name] = content.read()
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise ValueError(
      f'{archive} ({archive.stat().st_size} bytes) is truncated, or not a '
      f'tar archive ({error}): download {layout.archive} again (md5 '
      f'{layout.archive_md5})'
    ) from error
  return files


def _complete(
  layout: Layout, where: pathlib.Path, files: dict[str, bytes]
) -> dict[str, bytes]:
  """Returns `files` if none is missing."""
  if missing := [name for name in layout.md5 if name not in files]:
    raise FileNotFoundError(
      f'{where} lacks {", ".join(missing)}, which {layout.name} needs: '
      f'download {layout.archive} again (md5 {layout.archive_md5})'
    )
  return files
