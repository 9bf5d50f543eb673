"""TFDS data sets in array_record files, written and read without TensorFlow."""

import subprocess
import sys
import types

import numpy as np
import pytest
from data_files import write_tfds

from jaxkd import data
from jaxkd.data import tfds_source

TRAIN, TEST = [0, 1, 2, 2, 1, 0, 2], [1, 1, 0]


def load(root, name='shapes', **settings):
  return data.load(f'tfds:{name}', dir=str(root), **settings)


@pytest.mark.parametrize('channels', [1, 3])
def test_reads_images_labels_and_names(tmp_path, channels):
  splits = {'train': TRAIN, 'test': TEST}
  images = write_tfds(tmp_path, 'shapes', splits, 8, channels)
  got = load(tmp_path)
  np.testing.assert_array_equal(got.train.image, images['train'])
  np.testing.assert_array_equal(got.test.image, images['test'])
  assert got.train.label.tolist() == TRAIN and got.test.label.tolist() == TEST
  assert got.class_names == ('a', 'b', 'c')
  assert got.image_shape == (8, 8, channels)
  assert len(got.view.mean) == channels and got.view.pad == 1
  assert got.fingerprint == load(tmp_path).fingerprint


def test_large_data_sets_are_decoded_on_request(tmp_path):
  write_tfds(tmp_path, 'shapes', {'train': TRAIN, 'test': TEST}, 8)
  lazy = load(tmp_path, memory=0, image_size=6)
  assert lazy.train.image is None and lazy.train.label.tolist() == TRAIN
  index = np.array([6, 0, 3], np.int32)
  views = lazy.train.load(index, data.example_seeds(0, 0, index))
  assert views.shape == (3, 6, 6, 3)
  batches = list(data.prefetch(lazy.test, [np.arange(3)] * 20, 0, None))
  for batch in batches:
    np.testing.assert_array_equal(batch['image'], batches[0]['image'])
    assert batch['label'].tolist() == TEST
  assert lazy.fingerprint != load(tmp_path, memory=0).fingerprint


@pytest.mark.parametrize('hidden', [{}, {'test': [-1, -1]}])
def test_validation_replaces_a_test_split_without_labels(tmp_path, hidden):
  splits = {'train': TRAIN, 'validation': TEST, **hidden}
  write_tfds(tmp_path, 'shapes', splits, 8)
  assert load(tmp_path).test.label.tolist() == TEST


def test_records_are_read_in_chunks(tmp_path, monkeypatch):
  write_tfds(tmp_path, 'shapes', {'train': TRAIN, 'test': TEST}, 8)
  monkeypatch.setattr(tfds_source, 'CHUNK', 3)
  assert load(tmp_path).train.label.tolist() == TRAIN


def test_large_images_get_the_usual_size(tmp_path):
  write_tfds(tmp_path, 'shapes', {'train': TRAIN, 'test': TEST}, 70)
  assert load(tmp_path).image_shape == (224, 224, 3)


def test_the_message_for_unprepared_data_explains_how(tmp_path):
  message = (
    rf'tfds:nonesuch is not prepared in {tmp_path} .*jaxkd\[prepare\](.|\n)*'
    r"builder\('nonesuch'.*file_format='array_record'\).download_and_prepare"
    r'(.|\n)*tfds build nonesuch .*--config.data.dir'
  )
  with pytest.raises(FileNotFoundError, match=message):
    load(tmp_path, 'nonesuch')


def test_a_known_data_set_that_is_not_prepared(monkeypatch, tmp_path):
  """TFDS returns no split of it, without an error."""
  import tensorflow_datasets

  monkeypatch.setattr(tensorflow_datasets, 'data_source', lambda *_, **__: {})
  with pytest.raises(FileNotFoundError, match='nonesuch is not prepared in'):
    load(tmp_path, 'nonesuch')


def test_a_split_is_missing(tmp_path):
  write_tfds(tmp_path, 'shapes', {'train': TRAIN}, 8)
  with pytest.raises(ValueError, match='no test .*only train: choose'):
    load(tmp_path)
  write_tfds(tmp_path, 'others', {'test': TRAIN}, 8)
  with pytest.raises(ValueError, match='no train split, only test: choose'):
    load(tmp_path, 'others')


def test_a_data_set_without_labels(tmp_path, monkeypatch):
  info = types.SimpleNamespace(features={'image': None, 'depth': None})
  split = types.SimpleNamespace(dataset_info=info)
  monkeypatch.setattr(
    'tensorflow_datasets.data_source', lambda *_, **__: {'train': split}
  )
  with pytest.raises(ValueError, match='features image, depth, but not both'):
    load(tmp_path)


def test_heavy_libraries_wait_until_they_are_needed():
  program = 'import sys, jaxkd.data; print(*sys.modules)'
  run = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=True
  )
  modules = set(run.stdout.split())
  heavy = {'tensorflow_datasets', 'tensorflow', 'sklearn', 'PIL.Image'}
  assert not heavy & modules
