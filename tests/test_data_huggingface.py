"""Folders that Hugging Face's library `datasets` has written."""

import io

import numpy as np
import PIL.Image
import pytest
from data_files import pixels

from jaxkd import data

datasets = pytest.importorskip('datasets')

NAMES = ['ant', 'bee', 'cat']
IMAGES = pixels(9)
LABELS = [k % 3 for k in range(9)]


def png(image):
  content = io.BytesIO()
  PIL.Image.fromarray(image).save(content, 'PNG')
  return {'bytes': content.getvalue(), 'path': None}


def part(index, label='label', kind=None, labels=LABELS, image='image'):
  features = datasets.Features(
    {
      image: datasets.Image(),
      label: kind or datasets.ClassLabel(names=NAMES),
    }
  )
  rows = {image: [png(IMAGES[i]) for i in index]}
  rows[label] = [labels[i] for i in index]
  return datasets.Dataset.from_dict(rows, features=features)


def load(folder, saved, **settings):
  saved.save_to_disk(str(folder))
  return data.load(f'huggingface:{folder}', **settings)


@pytest.mark.parametrize('memory', [0, 10**9])
def test_a_dict_has_a_part_for_each_split(tmp_path, memory):
  saved = datasets.DatasetDict(
    {'validation': part([7, 8]), 'train': part(range(7))}
  )
  got = load(tmp_path, saved, memory=memory, image_size=8)
  assert got.class_names == tuple(NAMES)
  np.testing.assert_array_equal(got.train.label, LABELS[:7])
  np.testing.assert_array_equal(got.test.label, LABELS[7:])
  if memory:
    np.testing.assert_array_equal(got.train.image, IMAGES[:7])
    np.testing.assert_array_equal(got.test.image, IMAGES[7:])
  else:
    assert got.train.load(np.array([3]), None).shape == (1, 8, 8, 3)


def test_a_single_set_is_divided(tmp_path):
  saved = part(range(9), label='fine', image='img')
  got = load(tmp_path, saved, hold_out=1, hold_out_seed=3)
  assert (len(got.train), len(got.test)) == (6, 3)
  assert sorted(got.test.label) == [0, 1, 2]


def test_a_selection_keeps_its_own_rows(tmp_path):
  saved = part(range(9)).select([8, 2, 1, 4, 0, 3]).shuffle(seed=0)
  got = load(tmp_path, saved, hold_out=0.5)
  seen = {x.tobytes() for x in [*got.train.image, *got.test.image]}
  assert seen == {IMAGES[i].tobytes() for i in (8, 2, 1, 4, 0, 3)}


def test_strings_and_lists_are_labels(tmp_path):
  texts = [NAMES[k] for k in LABELS]
  kind = datasets.Value('string')
  got = load(tmp_path / 'a', part(range(9), kind=kind, labels=texts))
  assert got.class_names == tuple(NAMES)
  lists = [[], [0], [0, 1]] * 3
  kind = datasets.Sequence(datasets.ClassLabel(names=NAMES))
  saved = part(range(9), kind=kind, labels=lists)
  got = load(tmp_path / 'b', saved, problem='multi_label')
  assert got.train.label.shape == (len(got.train), 3)
  assert got.train.label.sum() + got.test.label.sum() == 9
  with pytest.raises(ValueError, match='row 1: .*is a list.*multi_label'):
    data.load(f'huggingface:{tmp_path / "b"}')


def test_hidden_labels_of_another_split_do_not_matter(tmp_path):
  saved = datasets.DatasetDict(
    {
      'train': part(range(6)),
      'validation': part([6, 7]),
      'test': part([8], labels=[-1] * 9),
    }
  )
  got = load(tmp_path, saved, test='validation')
  assert (len(got.train), len(got.test)) == (6, 2)
  with pytest.raises(ValueError, match='test, row 1: no label'):
    data.load(f'huggingface:{tmp_path}')


def test_a_row_without_an_image_is_unreadable(tmp_path):
  features = datasets.Features(
    {'image': datasets.Image(), 'label': datasets.ClassLabel(names=NAMES)}
  )
  images = [png(IMAGES[i]) for i in range(6)] + [None]
  rows = {'image': images, 'label': LABELS[:7]}
  saved = datasets.Dataset.from_dict(rows, features=features)
  with pytest.raises(ValueError, match='train, row 7 .*0 bytes'):
    load(tmp_path, saved)
  got = data.load(f'huggingface:{tmp_path}', skip_unreadable=True)
  assert len(got.train) + len(got.test) == 6


def test_mistakes_are_explained(tmp_path):
  saved = part(range(9), labels=[*LABELS[:8], -1])
  with pytest.raises(ValueError, match="train, row 9: no label in .*'label'"):
    load(tmp_path / 'a', saved)
  with pytest.raises(
    ValueError, match="no column 'kind', but image .Image., la"
  ):
    data.load(f'huggingface:{tmp_path / "a"}', label='kind')
  for setting in ('image', 'label'):
    with pytest.raises(ValueError, match='has no (images|labels), but'):
      other = {'image': 'label', 'label': 'image'}[setting]
      data.load(f'huggingface:{tmp_path / "a"}', **{setting: other})
  (tmp_path / 'b').mkdir()
  with pytest.raises(FileNotFoundError, match='save_to_disk of the library'):
    data.load(f'huggingface:{tmp_path / "b"}')
  with pytest.raises(FileNotFoundError, match='there is no folder'):
    data.load(f'huggingface:{tmp_path / "c"}')
