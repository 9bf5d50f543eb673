"""The walker: what is skipped, which links are followed, what is counted."""

import os

import pytest

from jaxkd.data.walk import Walker, is_skipped

SUFFIXES = ('.jpg', '.png')


def touch(*paths):
  for path in paths:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'x')


def listed(root, walker=None):
  walker = walker or Walker(SUFFIXES)
  paths = walker.images(root)
  return [os.path.relpath(path, root) for path in paths]


@pytest.mark.parametrize(
  'name',
  [
    '.ipynb_checkpoints',
    '.DS_Store',
    '._cat.png',
    '.Trash-1000',
    '__MACOSX',
    'Icon\r',
    'Thumbs.db',
    'thumbs.db',
    'Desktop.ini',
    '$RECYCLE.BIN',
    '$Recycle.Bin',
    'System Volume Information',
    'FOUND.000',
    'lost+found',
    '@eaDir',
    'cat.jpg@SynoEAStream',
    '#recycle',
    '@Recycle',
    '~snapshot',
    '__pycache__',
  ],
)
def test_what_systems_leave_is_skipped_at_any_depth(tmp_path, name):
  assert is_skipped(name)
  touch(tmp_path / 'cat/1.png', tmp_path / 'cat/a/b' / name / '2.png')
  touch(tmp_path / name / '3.png', tmp_path / 'cat/c' / name)
  walker = Walker(SUFFIXES)
  assert walker.folders(tmp_path) == ['cat']
  assert listed(tmp_path / 'cat', walker) == ['1.png']
  assert walker.skipped == {name: 3}
  (note,) = walker.notes()
  assert note.startswith('Skipped 3 hidden files and folders')


@pytest.mark.parametrize(
  'name',
  ['recycled', 'CVS', 'thumbs', 'icon', 'found', 'snapshot', '_', '@', 'x.db'],
)
def test_names_that_a_class_may_have_are_not_skipped(name):
  assert not is_skipped(name)


def test_paths_are_sorted_by_their_parts(tmp_path):
  """As pathlib sorts them: 'a/b' precedes 'a.b' although '.' precedes '/'."""
  names = ['a/2.png', 'a.b/1.png', 'a-b/3.png', 'B/0.JPG', 'a/10.png', 'c.png']
  touch(*(tmp_path / name for name in names))
  want = sorted(tmp_path / name for name in names)
  assert [tmp_path / name for name in listed(tmp_path)] == want


def test_other_suffixes_are_counted(tmp_path):
  touch(*(tmp_path / f'cat/{x}' for x in ('1.png', 'a.txt', 'b.TXT', 'c.mp4')))
  touch(tmp_path / 'cat/deep/LICENSE', tmp_path / 'labels.csv')
  walker = Walker(SUFFIXES)
  walker.folders(tmp_path)
  assert listed(tmp_path / 'cat', walker) == ['1.png']
  assert walker.notes() == (
    'Left out 4 files without the suffix of an image: .txt (2), no suffix (1),'
    ' .mp4 (1).',
    'Left out 1 file beside the class folders.',
  )


def test_links_to_folders_are_followed_at_every_level(tmp_path):
  touch(tmp_path / 'pool/a/1.png', tmp_path / 'pool/2.png')
  touch(tmp_path / 'cat/deep/3.png')
  (tmp_path / 'cat/deep/link').symlink_to(tmp_path / 'pool')
  (tmp_path / 'class').symlink_to('cat')
  (tmp_path / 'cat/file.png').symlink_to(tmp_path / 'pool/2.png')
  want = ['deep/3.png', 'deep/link/2.png', 'deep/link/a/1.png', 'file.png']
  walker = Walker(SUFFIXES)
  assert walker.folders(tmp_path) == ['cat', 'class', 'pool']
  assert listed(tmp_path / 'cat', walker) == want and walker.notes() == ()
  assert listed(tmp_path / 'class') == want


@pytest.mark.parametrize('target', ['.', '..', '../..', '../deep', '../../dog'])
def test_cycles_end(tmp_path, target):
  touch(tmp_path / 'cat/deep/1.png')
  (tmp_path / 'cat/deep/loop').symlink_to(target)
  (tmp_path / 'dog').symlink_to('cat')
  walker = Walker(SUFFIXES)
  assert listed(tmp_path / 'cat', walker) == ['deep/1.png']
  assert walker.repeated == 1 and 'Left out 1 link to' in walker.notes()[0]


def test_a_folder_behind_two_links_is_read_once(tmp_path):
  """At its own place if it has one in the class, else by the first name."""
  touch(tmp_path / 'pool/1.png', tmp_path / 'cat/z/2.png')
  (tmp_path / 'cat/b').symlink_to(tmp_path / 'pool')
  (tmp_path / 'cat/a').symlink_to(tmp_path / 'pool')
  (tmp_path / 'cat/c').symlink_to('z')
  walker = Walker(SUFFIXES)
  assert listed(tmp_path / 'cat', walker) == ['a/1.png', 'z/2.png']
  assert walker.repeated == 2


def test_a_folder_in_two_classes_is_noted(tmp_path):
  touch(tmp_path / 'pool/1.png')
  for name in ('cat', 'dog'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'link').symlink_to(tmp_path / 'pool')
  walker = Walker(SUFFIXES)
  assert listed(tmp_path / 'cat', walker) == ['link/1.png']
  assert listed(tmp_path / 'dog', walker) == ['link/1.png']
  assert 'lead to the same folder' in walker.notes()[0]


def test_broken_links_and_special_files_are_counted(tmp_path):
  touch(tmp_path / 'cat/1.png')
  (tmp_path / 'cat/gone.png').symlink_to('nowhere.png')
  (tmp_path / 'cat/self').symlink_to('self')
  (tmp_path / 'dog').symlink_to('nowhere')
  os.mkfifo(tmp_path / 'cat/pipe.png')  # which blocks whoever opens it
  walker = Walker(SUFFIXES)
  assert walker.folders(tmp_path) == ['cat']
  assert listed(tmp_path / 'cat', walker) == ['1.png']
  assert (walker.broken, walker.others) == (3, {'.png': 1})
