"""CIFAR from tiny files in its layouts, and from hostile or corrupt ones."""

import pickle
import shutil

import numpy as np
import pytest
from data_files import (
  cifar10_files,
  cifar100_files,
  python2_pickle,
  write_archive,
  write_pickles,
)

from jaxkd import data
from jaxkd.data import cifar_files, pickles

FOLDER = 'cifar-100-python'


@pytest.fixture
def folder(tmp_path):
  write_pickles(tmp_path / FOLDER, cifar100_files())
  return tmp_path / FOLDER


def image_by_hand(rows):
  """Rows of channels, rows, columns to [N, H, W, C], element by element."""
  image = np.zeros((len(rows), 32, 32, 3), np.uint8)
  for c in range(3):
    for y in range(32):
      for x in range(32):
        image[:, y, x, c] = rows[:, c * 1024 + y * 32 + x]
  return image


def check_cifar100(got):
  files = cifar100_files()
  for split, name in ((got.train, 'train'), (got.test, 'test')):
    np.testing.assert_array_equal(
      split.image, image_by_hand(files[name]['data'])
    )
    np.testing.assert_array_equal(split.label, files[name]['fine_labels'])
    assert split.label.dtype == np.int32 and split.image.flags.c_contiguous
  assert got.class_names == tuple(f'thing{k}' for k in range(100))
  assert got.image_shape == (32, 32, 3)


def test_the_folder_its_parent_and_the_environment(folder, monkeypatch):
  check_cifar100(data.load('cifar100', dir=str(folder)))
  check_cifar100(data.load('cifar100', dir=str(folder.parent)))
  monkeypatch.setenv('JAXKD_DATA', str(folder.parent))
  check_cifar100(data.load('cifar100'))


def test_the_archive_and_its_parent(tmp_path):
  archive = tmp_path / 'cifar-100-python.tar.gz'
  write_archive(archive, FOLDER, cifar100_files())
  check_cifar100(data.load('cifar100', dir=str(archive)))
  check_cifar100(data.load('cifar100', dir=str(tmp_path)))
  assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_cifar10_joins_its_batches_and_reads_keys_in_bytes(tmp_path):
  files = cifar10_files()
  write_pickles(tmp_path, files)
  got = data.load('cifar10', dir=str(tmp_path))
  rows = np.concatenate(
    [files[f'data_batch_{i}'][b'data'] for i in range(1, 6)]
  )
  np.testing.assert_array_equal(got.train.image, image_by_hand(rows))
  assert got.train.label.tolist() == [0, 1, 2, 3] * 5
  assert got.test.label.tolist() == [0, 1, 2]
  assert got.class_names[9] == 'thing9' and got.num_classes == 10
  assert (got.view.pad, got.view.flip) == (4, True)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol(folder, protocol):
  write_pickles(folder, cifar100_files(), protocol)
  check_cifar100(data.load('cifar100', dir=str(folder)))


def test_pickles_of_python_2():
  rows = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
  content = pickles.read(python2_pickle(rows.tobytes(), 7), 'old')
  np.testing.assert_array_equal(content['data'], rows)
  assert content['data'].dtype == np.uint8


def test_labels_may_be_arrays_or_numpy_scalars(folder):
  files = cifar100_files()
  files['train']['fine_labels'] = np.array(files['train']['fine_labels'])
  files['test']['fine_labels'] = list(np.array(files['test']['fine_labels']))
  write_pickles(folder, files)
  check_cifar100(data.load('cifar100', dir=str(folder)))


def test_a_note_tells_whether_the_files_are_official(folder, monkeypatch):
  (note,) = data.load('cifar100', dir=str(folder)).notes
  assert (
    'not the official distribution: the md5 differs for train, test, ' in note
  )

  class Known:
    def __init__(self, content, usedforsecurity):
      self.content = content

    def hexdigest(self):
      rows = len(pickle.loads(self.content).get('data', ()))
      layout = cifar_files.CIFAR100
      files = {12: layout.train, 5: layout.test, 0: layout.meta}[rows]
      return next(iter(files.values()))

  monkeypatch.setattr('hashlib.md5', Known)
  (note,) = data.load('cifar100', dir=str(folder)).notes
  assert 'is the official distribution' in note


def test_fingerprint_is_of_pixels_and_labels(folder):
  def fingerprint():
    return data.load('cifar100', dir=str(folder)).fingerprint

  first = fingerprint()
  write_pickles(folder, cifar100_files(), protocol=5)
  assert fingerprint() == first
  for key in ('data', 'fine_labels'):
    files = cifar100_files()
    files['test'][key][0] = 1
    write_pickles(folder, files)
    assert fingerprint() != first


def change(key, value):
  """A change of the training file's content."""

  def apply(folder):
    files = cifar100_files()
    files['train'][key] = value
    write_pickles(folder, files)

  return apply


def remove_key(folder):
  files = cifar100_files()
  del files['train']['fine_labels']
  write_pickles(folder, files)


def cut(name):
  def apply(folder):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])

  return apply


def write(content):
  return lambda folder: (folder / 'train').write_bytes(content)


class Foreign:
  """Pickles as a call, which a plain `pickle.load` would run."""

  def __init__(self, function, argument):
    self.call = function, (argument,)

  def __reduce__(self):
    return self.call


ROWS = np.zeros((12, 3072), np.uint8)
LABELS = [0] * 12


@pytest.mark.parametrize(
  'corrupt, message',
  [
    (cut('train'), r'train is truncated: it ends after \d+ bytes'),
    (cut('meta'), r'meta is truncated: it ends after \d+ bytes'),
    (write(b''), 'train is truncated: it ends after 0 bytes'),
    (write(b'<html>404</html>'), 'train is corrupt, or not a pickle'),
    (write(b'\x80\x02h\x00.'), 'train is corrupt, or not a pickle'),
    (write(pickle.dumps([1])), 'train holds a list, not a dict'),
    (change('data', ROWS[:, :1024]), r'\(12, 1024\).* has 3072 columns'),
    (change('data', ROWS.ravel()), r'\(36864,\).* has 3072 columns'),
    (change('data', ROWS / 255), 'data in train is float64, not uint8'),
    (change('data', 'pixels'), 'data in train is str, not uint8'),
    (change('fine_labels', LABELS[1:]), '12 images, but 11 labels'),
    (change('fine_labels', [*LABELS[1:], 100]), r'label 100, .*0\.\.99'),
    (change('fine_labels', [*LABELS[1:], -1]), r'label -1, .*0\.\.99'),
    (change('fine_labels', [0.5] * 12), r'label float64, .*0\.\.99'),
    (remove_key, "train has no 'fine_labels', only coarse_labels, data"),
  ],
)
def test_corrupt_files_are_explained(folder, corrupt, message):
  corrupt(folder)
  with pytest.raises(ValueError, match=message):
    data.load('cifar100', dir=str(folder))


@pytest.mark.parametrize('protocol', [0, 2, 4])
@pytest.mark.parametrize(
  'function, name',
  [
    (eval, r'(__builtin__|builtins)\.eval'),
    (shutil.rmtree, r'shutil\.rmtree'),
    (np.load, r'numpy\.load'),
  ],
)
def test_foreign_pickles_are_refused_and_not_run(
  folder, tmp_path, function, name, protocol
):
  marker = tmp_path / 'marker'
  marker.mkdir()
  argument = '1 / 0' if function is eval else str(marker)
  change('data', Foreign(function, argument))(folder)
  write_pickles(
    folder, {'train': {'data': Foreign(function, argument)}}, protocol
  )
  with pytest.raises(ValueError, match=f'train refers to {name}, .*trust'):
    data.load('cifar100', dir=str(folder))
  assert marker.is_dir()


def test_dotted_names_do_not_get_around_the_list():
  content = b'\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.'
  with pytest.raises(ValueError, match=r'refers to numpy\.ndarray\.tofile'):
    pickles.read(content, 'f')


def test_other_codecs_are_refused():
  content = b'\x80\x02c_codecs\nencode\n\x8c\x01a\x8c\x03hex\x86R.'
  with pytest.raises(ValueError, match="may not ask for the codec 'hex'"):
    pickles.read(content, 'f')


def test_arrays_of_objects_go_through_the_same_gate(folder):
  objects = np.array([Foreign(eval, '1 / 0')], dtype=object)
  write_pickles(folder, {'train': {'data': objects}})
  with pytest.raises(ValueError, match=r'refers to \w+\.eval'):
    data.load('cifar100', dir=str(folder))


def test_the_message_for_missing_data_names_the_download(tmp_path):
  message = (
    rf'cifar100 is not in {tmp_path}: download cifar-100-python.tar.gz \(md5 '
    rf'eb9058c3a382ffc7106e4002c42a8d85\).*into {tmp_path}.*--config.data.dir'
  )
  with pytest.raises(FileNotFoundError, match=message):
    data.load('cifar100', dir=str(tmp_path))
  with pytest.raises(
    FileNotFoundError, match='download cifar-10-python.tar.gz'
  ):
    data.load('cifar10', dir=str(tmp_path / 'nowhere'))


def test_a_missing_file_is_named(folder):
  (folder / 'test').unlink()
  with pytest.raises(
    FileNotFoundError, match='lacks test, which cifar100 need'
  ):
    data.load('cifar100', dir=str(folder))


def test_an_archive_of_something_else(tmp_path):
  archive = tmp_path / 'other.tar.gz'
  write_archive(archive, 'other', {'train': {}})
  with pytest.raises(FileNotFoundError, match='other.tar.gz lacks test, meta'):
    data.load('cifar100', dir=str(archive))


@pytest.mark.parametrize('keep', [0, 100, -2000])
def test_a_truncated_archive(tmp_path, keep):
  archive = tmp_path / 'cifar-100-python.tar.gz'
  write_archive(archive, FOLDER, cifar100_files())
  archive.write_bytes(archive.read_bytes()[:keep])
  with pytest.raises(ValueError, match=r'bytes\) is truncated, or not a tar'):
    data.load('cifar100', dir=str(tmp_path))


def test_the_wrong_number_of_classes(folder):
  write_pickles(folder, {'meta': {'fine_label_names': ['a', 'b']}})
  with pytest.raises(ValueError, match='names 2 classes, but cifar100 has 100'):
    data.load('cifar100', dir=str(folder))


def test_layouts_name_archives_and_files():
  """What the distribution's page and torchvision state."""
  ten, hundred = cifar_files.CIFAR10, cifar_files.CIFAR100
  assert ten.archive == 'cifar-10-python.tar.gz'
  assert hundred.archive == 'cifar-100-python.tar.gz'
  assert len(ten.md5) == 7 and len(hundred.md5) == 3
  sums = [*ten.md5.values(), *hundred.md5.values()]
  assert all(len(md5) == 32 for md5 in sums) and len(set(sums)) == 10
