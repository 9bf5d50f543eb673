"""Image folders as people have them: splits, channels, broken files."""

import io
import pathlib
import unicodedata

import numpy as np
import PIL.Image
import pytest
from data_files import pixels, write_folder, write_image

from jaxkd import config, data
from jaxkd.data import folder, read
from jaxkd.runs import artifacts
from jaxkd.runs.experiment import Source


def load(root, **settings):
  return data.load(f'folder:{root}', **settings)


def labels(split):
  return np.bincount(split.label).tolist()


def same(one, two):
  return one.fingerprint == two.fingerprint


@pytest.mark.parametrize('train', ['train', 'Train', 'TRAINING', 'training'])
@pytest.mark.parametrize('test', folder.TEST_NAMES)
def test_names_of_splits_in_any_case(tmp_path, train, test):
  for name in (test, test.title(), test.upper()):
    root = tmp_path / name
    write_folder(root, {train: {'a': 3}, name: {'a': 2}})
    got = load(root)
    assert (len(got.train), len(got.test)) == (3, 2)
    usual = name in ('test', 'val', 'validation')
    text = ' '.join(got.notes)
    assert ('The test split is' in text) == (not usual)
    assert ('The training split is' in text) == (train != 'train')


def test_of_several_test_folders_the_first_is_used_and_a_note_says_so(tmp_path):
  sizes = {'train': 4, 'dev': 1, 'val': 2, 'Test': 3}
  write_folder(tmp_path, {name: {'a': n} for name, n in sizes.items()})
  got = load(tmp_path)
  assert len(got.test) == 3 and got.validation is None
  (note,) = got.notes
  assert (
    f'The test split is {tmp_path}/Test. {tmp_path}/val is not used.' in note
  )
  assert f'{tmp_path}/dev is not used. data.test=NAME' in note


def test_of_names_in_two_cases_the_lower_one_is_used(tmp_path):
  write_folder(
    tmp_path, {'train': {'a': 5}, 'TEST': {'a': 1}, 'test': {'a': 2}}
  )
  got = load(tmp_path)
  assert len(got.test) == 2 and 'TEST is not used' in got.notes[0]
  assert len(load(tmp_path, test='TEST').test) == 1
  with pytest.raises(ValueError, match="data.test='Test'"):
    load(tmp_path, test='Test')


def test_data_test_names_the_test_folder(tmp_path):
  sizes = {'train': 6, 'val': 2, 'test': 3, 'holdout': 1}
  write_folder(tmp_path, {name: {'a': n} for name, n in sizes.items()})
  for name in ('val', 'test', 'holdout', 'Holdout'):
    got = load(tmp_path, test=name)
    assert (len(got.train), len(got.test)) == (6, sizes[name.lower()])
    assert got.notes == ()
  with pytest.raises(ValueError, match=r"data.test='vla'.*holdout, test, val"):
    load(tmp_path, test='vla')
  with pytest.raises(ValueError, match="data.test='train' is not a test"):
    load(tmp_path, test='train')


def test_without_a_train_folder_the_folders_are_the_classes(tmp_path):
  """The same split as that of the same folders in train."""
  classes = {'cat': 10, 'dog': 5}
  write_folder(tmp_path / 'in', {'train': classes})
  (tmp_path / 'in/train').rename(tmp_path / 'flat')
  (tmp_path / 'in').mkdir(exist_ok=True)
  (tmp_path / 'flat/README.md').write_text('x')
  flat = load(tmp_path / 'flat')
  assert flat.class_names == ('cat', 'dog') and labels(flat.test) == [2, 1]
  assert 'its 2 folders are classes' in flat.notes[0]
  assert '3 of its 15 training images' in flat.notes[1]
  (tmp_path / 'flat').rename(tmp_path / 'in/train')
  assert same(load(tmp_path / 'in'), flat)


def test_a_path_above_the_data_set_is_explained(tmp_path):
  write_folder(tmp_path / 'archive', {'Train': {'a': 5}})
  with pytest.raises(FileNotFoundError, match='data.name=folder:.*/archive'):
    load(tmp_path)
  write_folder(tmp_path / 'b', {'test': {'a': 5}, 'images': {'a': 5}})
  with pytest.raises(
    FileNotFoundError, match='no folder train, only images, t'
  ):
    load(tmp_path / 'b')


def test_a_test_folder_without_labels_is_explained(tmp_path):
  write_folder(tmp_path, {'train': {'a': 5}, 'val': {'a': 2}})
  write_image(tmp_path / 'test/1.png', pixels(1)[0])
  with pytest.raises(FileNotFoundError, match='1 files, but none.*data.test'):
    load(tmp_path)
  assert len(load(tmp_path, test='val').test) == 2


def test_classes_match_in_another_unicode_form(tmp_path):
  nfc, nfd = (unicodedata.normalize(form, 'café') for form in ('NFC', 'NFD'))
  assert nfc != nfd
  write_folder(tmp_path, {'train': {nfd: 4, 'a': 3}, 'test': {nfc: 2}})
  got = load(tmp_path)
  assert got.class_names == ('a', nfd) and labels(got.test) == [0, 2]
  assert got.notes == ()
  write_folder(tmp_path, {'train': {nfc: 1}})
  with pytest.raises(ValueError, match="two folders with the name 'café'"):
    load(tmp_path)


def test_classes_match_in_another_case_with_a_note(tmp_path):
  write_folder(tmp_path, {'train': {'Cat': 4, 'dog': 3}, 'test': {'cat': 2}})
  got = load(tmp_path)
  assert got.class_names == ('Cat', 'dog') and labels(got.test) == [2]
  assert 'test/cat is taken as the class Cat of' in got.notes[0]
  # Both: they are two classes, one of which has no training images.
  write_folder(tmp_path, {'test': {'Cat': 1}})
  with pytest.raises(ValueError, match='classes that .*train lacks: cat'):
    load(tmp_path)


def test_a_name_that_is_not_utf8_is_explained_or_read(tmp_path):
  write_folder(tmp_path, {'train': {'a': 5}})
  broken = pathlib.Path(str(tmp_path / 'train/a/') + '/\udcff.png')
  write_image(broken, pixels(1)[0])
  assert len(load(tmp_path, memory=0).train) == 5
  broken.unlink()
  write_image(tmp_path / 'train/\udcff/1.png', pixels(1)[0])
  with pytest.raises(ValueError, match=r"'\\udcff', which is not UTF-8"):
    load(tmp_path)


def write_grey(root, n=5, size=8):
  for i, image in enumerate(pixels(n, size, 1)):
    write_image(root / f'train/a/{i}.png', image)
  return pixels(n, size, 1)


def test_channels_follow_the_images_or_the_setting(tmp_path):
  image = write_grey(tmp_path)
  grey = load(tmp_path)
  assert grey.image_shape == (8, 8, 1)
  assert 'data.channels=3 makes them RGB' in grey.notes[-1]
  every = np.concatenate([grey.train.image, grey.test.image])
  assert {x.tobytes() for x in every} == {x.tobytes() for x in image}
  mean = grey.train.image.mean() / 255
  np.testing.assert_allclose(grey.view.mean, [mean], atol=1e-4)
  three, one = load(tmp_path, channels=3), load(tmp_path, channels=1)
  np.testing.assert_array_equal(three.train.image[..., 1:2], one.train.image)
  assert three.image_shape == (8, 8, 3) and same(one, grey)
  write_image(tmp_path / 'train/a/5.png', pixels(1)[0])
  assert load(tmp_path).image_shape == (8, 8, 3)
  assert load(tmp_path, channels=1).image_shape == (8, 8, 1)


def test_grey_photographs_are_normalised_by_their_own_statistics(tmp_path):
  write_grey(tmp_path, size=80)
  for memory in (0, 10**9):
    got = load(tmp_path, image_size=80, memory=memory)
    assert got.image_shape == (80, 80, 1) and len(got.view.mean) == 1
    assert got.view.std[0] < 0.4


def test_lazy_fingerprints_depend_on_what_changes_pixels(tmp_path):
  write_folder(tmp_path, {'train': {'a': 5}})
  changes = [{}, {'channels': 1}, {'exif': False}, {'white': 9}]
  changes += [{'background': 'white'}, {'test': ''}, {'max_pixels': 10**6}]
  found = [load(tmp_path, memory=0, **change).fingerprint for change in changes]
  assert len(set(found[:5])) == 5 and found[0] == found[5] == found[6]


def test_a_large_set_is_sampled_and_colour_is_never_lost(tmp_path, monkeypatch):
  monkeypatch.setattr(read, 'SAMPLE', 3)
  monkeypatch.setattr(read, 'PROBED', 1)
  write_grey(tmp_path, n=9)
  for i in range(3):
    write_image(tmp_path / f'test/a/{i}.png', pixels(1, 8, 1)[0])
  # The files whose headers are read are 0, 5 and 11; this one is file 10.
  write_image(tmp_path / 'test/a/1.png', pixels(1)[0])
  opened = []
  header = read.header
  monkeypatch.setattr(
    read, 'header', lambda *file: opened.append(file) or header(*file)
  )
  got = load(tmp_path, memory=0, image_size=8)
  assert got.image_shape == (8, 8, 1) and len(opened) == 3
  got.test.load(np.array([0]), None)
  with pytest.raises(ValueError, match=r'1.png has colour, .*channels=3'):
    got.test.load(np.array([1]), None)
  assert load(tmp_path, image_size=8).image_shape == (8, 8, 3)
  got = load(tmp_path, memory=0, image_size=8, channels=1)
  assert got.test.load(np.array([1]), None).shape == (1, 8, 8, 1)


def test_a_large_set_of_colour_opens_one_file(tmp_path, monkeypatch):
  write_folder(tmp_path, {'train': {'a': 20}}, size=80)
  opened = []
  header = read.header
  monkeypatch.setattr(
    read, 'header', lambda *file: opened.append(file) or header(*file)
  )
  assert load(tmp_path, memory=0).image_shape == (224, 224, 3)
  assert len(opened) == 1


def test_data_sets_of_fixed_channels_refuse_others():
  assert data.load('digits', channels=1).image_shape == (8, 8, 1)
  with pytest.raises(
    ValueError, match='channels=3 does not fit digits, .* always 1'
  ):
    data.load('digits', channels=3)
  with pytest.raises(ValueError, match="'digits' takes no setting 'test'"):
    data.load('digits', test='val')
  section = config.default().data
  section.channels = 1
  with pytest.raises(ValueError, match='channels=1 does not fit cifar100'):
    _ = Source(section).image_shape
  section.name = 'tfds:imagenet2012'
  assert Source(section).image_shape == (224, 224, 1)


def test_networks_of_older_runs_on_grey_folders_are_evaluated_in_rgb(tmp_path):
  write_grey(tmp_path)
  settings = {'name': f'folder:{tmp_path}', 'settings': {}}
  assert artifacts.load_data(settings).image_shape == (8, 8, 3)
  section = config.default().data.to_dict() | settings
  assert artifacts.load_data(section).image_shape == (8, 8, 1)


@pytest.mark.parametrize('channels', [2, 4, -1])
def test_other_numbers_of_channels_are_refused(tmp_path, channels):
  write_folder(tmp_path, {'train': {'a': 5}})
  with pytest.raises(ValueError, match='channels must be'):
    load(tmp_path, channels=channels)


def test_every_unreadable_file_is_named_at_once(tmp_path):
  write_folder(tmp_path, {'train': {'a': 9, 'b': 9}, 'test': {'a': 3}})
  broken = ['train/a/0.png', 'train/b/4.png', 'test/a/1.png']
  for name in broken:
    (tmp_path / name).write_bytes(b'<html>')
  with pytest.raises(ValueError, match='^3 images cannot be read') as error:
    load(tmp_path)
  for name in (*broken, 'an HTML page', 'skip_unreadable=True'):
    assert name in str(error.value)


def test_a_sample_of_a_large_set_is_decoded_beforehand(tmp_path, monkeypatch):
  monkeypatch.setattr(read, 'PROBED', 3)
  write_folder(tmp_path, {'train': {'a': 9}, 'test': {'a': 1}})
  clear = PIL.Image.fromarray(pixels(1)[0]).convert('RGBA')
  clear.putalpha(9)
  clear.save(tmp_path / 'train/a/4.png')
  (note, _) = load(tmp_path, memory=0, image_size=80).notes
  assert note.startswith('In a sample of 4 images: Images with transparent')
  (tmp_path / 'train/a/3.png').write_bytes(b'<html>')
  load(tmp_path, memory=0, image_size=80)
  (tmp_path / 'train/a/8.png').write_bytes(b'<html>')
  with pytest.raises(ValueError, match='8.png cannot be .* HTML page'):
    load(tmp_path, memory=0, image_size=80)


@pytest.mark.parametrize('memory', [0, 10**9])
def test_unreadable_files_can_be_skipped(tmp_path, memory):
  """Nothing else changes: the others keep their order and labels."""
  write_folder(tmp_path, {'train': {'a': 9, 'b': 9}, 'test': {'a': 3}})
  options = {'memory': memory, 'image_size': 8}
  whole = load(tmp_path, skip_unreadable=True, **options)
  assert same(whole, load(tmp_path, **options)) and len(whole.train) == 18
  (tmp_path / 'train/a/0.png').write_bytes(b'<html>')
  (tmp_path / 'test/a/1.png').write_bytes(b'')
  got = load(tmp_path, skip_unreadable=True, **options)
  assert labels(got.train) == [8, 9] and labels(got.test) == [2]
  assert 'Left out unreadable images: 2. ' in got.notes[0]
  (tmp_path / 'train/a/0.png').unlink()
  (tmp_path / 'test/a/1.png').unlink()
  clean = load(tmp_path, **options)
  if memory:
    assert same(got, clean)
  index = np.array([0, 5, 16])
  for split, wanted in ((got.train, clean.train), (got.test, clean.test)):
    i = index[index < len(wanted)]
    images = [
      x.image[i] if memory else x.load(i, i.astype(np.uint64))
      for x in (split, wanted)
    ]
    np.testing.assert_array_equal(*images)


def test_a_lazy_fingerprint_depends_on_which_files_are_skipped(tmp_path):
  write_folder(tmp_path, {'train': {'a': 4, 'b': 4}, 'test': {'a': 1}})
  found = []
  for broken in range(2):
    for i in range(2):
      content = b'<html>' if i == broken else png(i)
      (tmp_path / f'train/a/{i}.png').write_bytes(content.ljust(300))
    found.append(load(tmp_path, memory=0, skip_unreadable=True).fingerprint)
  assert found[0] != found[1]


def png(seed):
  """A PNG file; what follows its end is ignored."""
  content = io.BytesIO()
  PIL.Image.fromarray(pixels(1, 8, 3, seed)[0]).save(content, 'PNG')
  return content.getvalue()


@pytest.mark.parametrize(
  'names, message',
  [
    (['train/a/0.png', 'train/a/1.png'], "no training image of class 'a'"),
    (['test/b/0.png'], 'no test image can be decoded'),
  ],
)
def test_a_class_that_is_skipped_as_a_whole_is_refused(
  tmp_path, names, message
):
  write_folder(tmp_path, {'train': {'a': 2, 'b': 2}, 'test': {'b': 1}})
  for name in names:
    (tmp_path / name).write_bytes(b'<html>')
  with pytest.raises(ValueError, match=message):
    load(tmp_path, skip_unreadable=True)


def test_suffixes_can_be_chosen(tmp_path):
  write_folder(tmp_path, {'train': {'a': 5}, 'test': {'a': 1}})
  for suffix in ('tiff', 'pgm', 'jfif', 'bmp'):
    image = PIL.Image.fromarray(pixels(1)[0])
    format = {'jfif': 'JPEG', 'pgm': 'PPM'}.get(suffix)
    image.save(tmp_path / f'train/a/x.{suffix}', format)
  assert len(load(tmp_path).train) == 9
  got = load(tmp_path, suffixes=('PNG', '.bmp'))
  assert len(got.train) == 6
  assert '.jfif (1), .pgm (1), .tiff (1)' in got.notes[0]


def test_a_class_without_readable_images_says_what_it_has(tmp_path):
  write_folder(tmp_path, {'train': {'a': 5}})
  (tmp_path / 'train/b').mkdir()
  (tmp_path / 'train/b/1.heic').write_bytes(b'x')
  with pytest.raises(FileNotFoundError, match='train/b has .*only files .heic'):
    load(tmp_path)


def test_tables_have_the_same_settings(tmp_path):
  """Channels, EXIF, and unreadable files, whose weights leave with them."""
  write_grey(tmp_path)
  exif = PIL.Image.Exif()
  exif[0x0112] = 3
  image = PIL.Image.fromarray(pixels(1, 8, 1)[0, ..., 0])
  image.save(tmp_path / 'train/a/4.png', exif=exif)
  rows = ['path,label,split,weight', 'train/a/4.png,a,test,1']
  rows += [f'train/a/{i}.png,a,train,{i + 1}' for i in range(4)]
  (tmp_path / 'table.csv').write_text('\n'.join(rows))
  name = f'table:{tmp_path}/table.csv'
  upright = data.load(name)
  assert upright.image_shape == (8, 8, 1)
  stored = data.load(name, exif=False)
  np.testing.assert_array_equal(
    stored.test.image[:, ::-1, ::-1], upright.test.image
  )
  (tmp_path / 'train/a/3.png').write_bytes(b'<html>')
  with pytest.raises(ValueError, match='3.png cannot be .* HTML'):
    data.load(name)
  for memory in (0, 10**9):
    got = data.load(name, skip_unreadable=True, memory=memory, image_size=8)
    np.testing.assert_allclose(got.train.weight, [0.5, 1, 1.5])
