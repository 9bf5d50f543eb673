"""Image folders and host-side views, with images made on the spot."""

import numpy as np
import PIL.Image
import pytest
from data_files import pixels, write_folder, write_image

from jaxkd import data
from jaxkd.data import images

SIZES = {'train': {'cat': 6, 'ant': 5, 'bee': 10}, 'test': {'ant': 2, 'cat': 3}}


def load(root, **settings):
  return data.load(f'folder:{root}', **settings)


def test_classes_are_sorted_and_pixels_exact(tmp_path):
  write_folder(tmp_path, SIZES)
  got = load(tmp_path)
  assert got.class_names == ('ant', 'bee', 'cat')
  assert np.bincount(got.train.label).tolist() == [5, 10, 6]
  assert np.bincount(got.test.label).tolist() == [2, 0, 3]
  want = pixels(6, 8, seed=len('traincat'))
  np.testing.assert_array_equal(got.train.image[got.train.label == 2], want)
  assert got.notes == () and (got.view.pad, got.view.flip) == (1, True)


def test_normalisation_comes_from_the_training_images(tmp_path):
  write_folder(tmp_path, SIZES)
  got = load(tmp_path)
  image = got.train.image / 255
  np.testing.assert_allclose(got.view.mean, image.mean((0, 1, 2)), atol=1e-4)
  np.testing.assert_allclose(got.view.std, image.std((0, 1, 2)), atol=1e-4)


def test_one_colour_does_not_divide_by_zero(tmp_path):
  for i in range(5):
    write_image(tmp_path / f'train/a/{i}.png', np.full((8, 8, 3), 7, np.uint8))
  assert load(tmp_path).view.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize('name', ['val', 'validation'])
def test_other_names_of_the_test_folder(tmp_path, name):
  write_folder(tmp_path, {'train': {'a': 3}, name: {'a': 2}})
  got = load(tmp_path)
  assert (len(got.train), len(got.test), got.notes) == (3, 2, ())


def test_without_a_test_folder_a_fifth_is_held_out(tmp_path):
  write_folder(tmp_path, {'train': {'a': 10, 'bb': 3, 'ccc': 25}})
  got = load(tmp_path)
  assert np.bincount(got.test.label).tolist() == [2, 1, 5]
  assert np.bincount(got.train.label).tolist() == [8, 2, 20]
  assert '8 of its 38 training images, a fixed fifth' in got.notes[0]
  both = [*got.train.image, *got.test.image]
  assert len({image.tobytes() for image in both}) == 38
  assert load(tmp_path).fingerprint == got.fingerprint


def test_nested_folders_upper_case_and_other_files(tmp_path):
  write_folder(tmp_path, {'train': {'a': 1, 'b': 1}, 'test': {'a': 1}})
  write_image(tmp_path / 'train/b/images/x.JPEG', pixels(1)[0])
  (tmp_path / 'train/b/boxes.txt').write_text('0 0 8 8')
  (tmp_path / 'train/b/._x.png').write_bytes(b'resource fork')
  assert np.bincount(load(tmp_path).train.label).tolist() == [1, 2]


@pytest.mark.parametrize(
  'shapes, size',
  [
    ([(8, 8), (8, 8)], 8),
    ([(64, 64), (64, 64)], 64),
    ([(8, 8), (9, 9)], 224),
    ([(8, 9), (8, 9)], 224),
    ([(65, 65), (65, 65)], 224),
  ],
)
def test_natural_size(tmp_path, shapes, size):
  for i, (h, w) in enumerate(shapes):
    image = np.zeros((h, w, 3), np.uint8)
    write_image(tmp_path / f'train/a/{i}.png', image)
    write_image(tmp_path / f'test/a/{i}.png', image)
  got = load(tmp_path)
  assert got.image_shape == (size, size, 3)
  assert (got.view.mean == (0.485, 0.456, 0.406)) == (size == 224)
  assert load(tmp_path, image_size=12).image_shape == (12, 12, 3)


def test_large_data_sets_are_decoded_on_request(tmp_path):
  write_folder(tmp_path, SIZES, size=16)
  whole = load(tmp_path)
  lazy = load(tmp_path, memory=26 * 16 * 16 * 3 - 1)
  assert whole.train.load is None and lazy.train.image is None
  assert load(tmp_path, memory=26 * 16 * 16 * 3).train.load is None
  np.testing.assert_array_equal(lazy.train.label, whole.train.label)
  assert lazy.image_shape == whole.image_shape
  assert (lazy.view.pad, lazy.view.flip) == (0, True)
  assert 'decoded batch by batch' in lazy.notes[0]
  index, seeds = np.array([3, 20, 7]), np.array([9, 9, 4], np.uint64)
  views = lazy.train.load(index, seeds)
  assert views.shape == (3, 16, 16, 3) and views.dtype == np.uint8
  np.testing.assert_array_equal(
    lazy.train.load(index[1:], seeds[1:]), views[1:]
  )
  assert not np.array_equal(views, lazy.train.load(index, seeds + np.uint64(1)))


def test_a_lazy_fingerprint_depends_on_names_sizes_and_labels(tmp_path):
  write_folder(tmp_path, SIZES)
  first = load(tmp_path, memory=0).fingerprint
  assert load(tmp_path, memory=0).fingerprint == first
  (tmp_path / 'train/ant/0.png').rename(tmp_path / 'train/bee/0_.png')
  second = load(tmp_path, memory=0).fingerprint
  write_image(tmp_path / 'test/ant/0.png', np.zeros((8, 8, 3), np.uint8))
  third = load(tmp_path, memory=0).fingerprint
  assert len({first, second, third}) == 3


def test_prefetch_reads_a_lazy_folder(tmp_path):
  write_folder(tmp_path, SIZES)
  train = load(tmp_path, memory=0).train
  indices = [np.arange(8), np.arange(8, 16)]
  batches = list(data.prefetch(train, indices, 0, 1, workers=2))
  seeds = data.example_seeds(0, 1, indices[1])
  np.testing.assert_array_equal(
    batches[1]['image'], train.load(indices[1], seeds)
  )


def test_modes_are_converted(tmp_path):
  grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
  rgb = np.stack([grey] * 3, axis=-1)
  deep = PIL.Image.fromarray(grey.astype(np.uint16) * 256 + 99)
  palette = PIL.Image.fromarray(rgb).quantize(64)
  palette.info['transparency'] = bytes([255] * 64)
  opaque = PIL.Image.fromarray(rgb).convert('RGBA')
  for name, image in {
    'grey': PIL.Image.fromarray(grey),
    'deep': deep,
    'palette': palette,
    'opaque': opaque,
  }.items():
    path = tmp_path / f'{name}.png'
    image.save(path)
    got = images.decode((name, path))
    assert got.mode == 'RGB'
    np.testing.assert_array_equal(np.asarray(got), rgb, err_msg=name)
    got = images.decode((name, path), channels=1)
    np.testing.assert_array_equal(np.asarray(got), grey, err_msg=name)


def test_a_lazy_split_shows_the_test_view_without_seeds(tmp_path):
  write_folder(tmp_path, SIZES, size=16)
  test = load(tmp_path, memory=0).test
  for i, image in enumerate(pixels(2, 16, seed=len('testant'))):
    image = PIL.Image.fromarray(image)
    want = np.asarray(images.centre(image, 16, images.TEST_MARGIN))
    np.testing.assert_array_equal(test.load(np.array([i]), None)[0], want)


def test_centre_keeps_a_square_and_crops_the_longer_side():
  square = pixels(1, 16)[0]
  got = images.centre(PIL.Image.fromarray(square), 16)
  np.testing.assert_array_equal(np.asarray(got), square)
  wide = np.pad(square, ((0, 0), (5, 5), (0, 0)))
  got = images.centre(PIL.Image.fromarray(wide), 16)
  np.testing.assert_array_equal(np.asarray(got), square)


def test_the_test_view_is_a_resize_then_a_centre_crop():
  """Against Pillow's two steps, on an image smooth enough for both."""
  y, x = np.mgrid[0:300, 0:400]
  image = np.stack([y * 255 / 300, x * 255 / 400, 0 * x], -1).astype(np.uint8)
  image = PIL.Image.fromarray(image)
  got = np.asarray(images.centre(image, 224, images.TEST_MARGIN), int)
  resized = image.resize((341, 256), PIL.Image.Resampling.BILINEAR)
  want = np.asarray(resized.crop((58, 16, 58 + 224, 16 + 224)), int)
  assert np.abs(got - want).max() <= 2


def test_random_crops_have_the_recipes_areas_and_ratios():
  """Reads the crop's box off an image whose pixels are their coordinates."""
  y, x = np.mgrid[0:200, 0:200]
  image = PIL.Image.fromarray(np.stack([y, x, 0 * x], -1).astype(np.uint8))
  areas, ratios = [], []
  for seed in range(400):
    view = np.asarray(images.random_crop(image, 64, seed), float)
    height = (view[-1, 0, 0] - view[0, 0, 0]) * 64 / 63
    width = (view[0, -1, 1] - view[0, 0, 1]) * 64 / 63
    areas.append(height * width / 200**2)
    ratios.append(width / height)
  assert 0.07 < min(areas) < 0.15 and 0.9 < max(areas) < 1.03
  assert 0.7 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.4
  assert 0.4 < np.mean(areas) < 0.55


def test_random_crop_of_a_strip_falls_back_to_its_centre():
  x = np.arange(250, dtype=np.uint8)
  strip = PIL.Image.fromarray(np.stack([np.tile(x, (4, 1))] * 3, -1))
  views = np.stack(
    [np.asarray(images.random_crop(strip, 8, seed), int) for seed in range(30)]
  )
  middle = (views[:, :, 0] < 125) & (views[:, :, -1] > 124)
  assert middle.all((1, 2)).any()


def small_class(root):
  write_folder(root, {'train': {'a': 5, 'b': 1}})


def unreadable(root):
  write_folder(root, SIZES)
  (root / 'train/ant/broken.png').write_bytes(b'not an image')


def cut(root):
  write_folder(root, SIZES)
  path = root / 'train/bee/3.png'
  path.write_bytes(path.read_bytes()[:120])


def extra_class(root):
  write_folder(root, {'train': {'a': 2}, 'test': {'a': 1, 'dog': 1, 'emu': 1}})


def empty_class(root):
  write_folder(root, SIZES)
  (root / 'train/fox').mkdir()


@pytest.mark.parametrize(
  'make, error, message',
  [
    (lambda root: root.rmdir(), FileNotFoundError, 'root is not a folder'),
    (lambda root: None, FileNotFoundError, r'no folder train: .*train/CLASS/'),
    (
      lambda root: (root / 'train').mkdir(),
      FileNotFoundError,
      'train has no images: put them into',
    ),
    (empty_class, FileNotFoundError, 'train/fox has no images that'),
    (unreadable, ValueError, r'train/ant/broken.png cannot be decoded'),
    (cut, ValueError, r'train/bee/3.png cannot be decoded'),
    (extra_class, ValueError, r'test has classes that .*train lacks: dog, emu'),
    (small_class, ValueError, 'class b has 1 training image'),
  ],
)
def test_mistakes_are_explained(tmp_path, make, error, message):
  root = tmp_path / 'root'
  root.mkdir()
  make(root)
  with pytest.raises(error, match=message):
    load(root)


def test_an_undecodable_image_of_a_lazy_split_is_named(tmp_path):
  write_folder(tmp_path, SIZES)
  train = load(tmp_path, memory=0, image_size=8).train
  (tmp_path / 'train/bee/0.png').write_bytes(b'gone')
  with pytest.raises(ValueError, match='bee/0.png cannot be decoded'):
    list(data.prefetch(train, [np.arange(5), np.arange(5, 8)], 0, 0))
