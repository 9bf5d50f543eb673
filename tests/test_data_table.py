"""Tables of images: formats, labels, splits, weights, and every mistake."""

import json
import sys

import numpy as np
import pytest
from data_files import pixels, write_image

from jaxkd import data

LABELS = ['cat', 'ant', 'cat', 'bee', 'ant', 'cat', 'bee', 'ant', 'cat', 'bee']
SPLITS = ['train'] * 7 + ['test'] * 3
IMAGES = pixels(10)


@pytest.fixture
def folder(tmp_path):
  """Images 0.png, ..., 9.png, and a table to be written beside them."""
  for i, image in enumerate(IMAGES):
    write_image(tmp_path / f'images/{i}.png', image)
  return tmp_path


def rows(**columns):
  """Returns ten rows: a path, a label and further columns."""
  columns = {
    'path': [f'images/{i}.png' for i in range(10)],
    'label': LABELS,
    **columns,
  }
  return [
    dict(zip(columns, x, strict=True))
    for x in zip(*columns.values(), strict=True)
  ]


def write(path, rows, delimiter=',', encoding='utf-8'):
  """Writes rows in the format of the suffix, by formulas of our own."""
  if path.suffix == '.parquet':
    pyarrow = pytest.importorskip('pyarrow')
    pytest.importorskip('pyarrow.parquet')
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  elif path.suffix == '.jsonl':
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  else:
    lines = [delimiter.join(rows[0])]
    lines += [delimiter.join(map(str, row.values())) for row in rows]
    path.write_text('\n'.join(lines), encoding=encoding)
  return f'table:{path}'


def load(folder, text, name='labels.csv', **settings):
  (folder / name).write_text(text)
  return data.load(f'table:{folder / name}', **settings)


@pytest.mark.parametrize(
  ('name', 'delimiter', 'encoding'),
  [
    ('labels.csv', ',', 'utf-8'),
    ('labels.CSV', ',', 'utf-8-sig'),
    ('labels.tsv', '\t', 'utf-8'),
    ('labels.jsonl', '', ''),
    ('labels.parquet', '', ''),
  ],
)
def test_every_format_holds_the_same_data(folder, name, delimiter, encoding):
  table = rows(split=SPLITS, weight=np.arange(10.0).tolist())
  got = data.load(write(folder / name, table, delimiter, encoding))
  assert got.class_names == ('ant', 'bee', 'cat')
  label = [got.class_names.index(name) for name in LABELS]
  np.testing.assert_array_equal(got.train.label, label[:7])
  np.testing.assert_array_equal(got.test.label, label[7:])
  np.testing.assert_array_equal(got.train.image, IMAGES[:7])
  np.testing.assert_array_equal(got.test.image, IMAGES[7:])
  np.testing.assert_allclose(got.train.weight, np.arange(7) / 3)
  assert got.test.weight is None and got.problem == 'classification'


def test_a_table_equals_a_folder(folder, tmp_path):
  for split, label, image in zip(SPLITS, LABELS, IMAGES, strict=True):
    name = f'{image.sum()}.png'
    write_image(tmp_path / 'sorted' / split / label / name, image)
  paths = sorted((tmp_path / 'sorted').rglob('*.png'))
  lines = [f'{x},{x.parent.name},{x.parent.parent.name}' for x in paths]
  table = load(folder, '\n'.join(['path,label,split', *lines]))
  other = data.load(f'folder:{tmp_path / "sorted"}')
  assert table.fingerprint == other.fingerprint and table.view == other.view
  assert table.class_names == other.class_names


def test_columns_paths_and_classes_can_be_named(folder, tmp_path):
  table = [
    {'file': f'{i}.png', 'kind': LABELS[i], 'fold': SPLITS[i]}
    for i in range(10)
  ]
  got = data.load(
    write(tmp_path / 'my.csv', table, ';'),
    dir=str(folder / 'images'),
    path='file',
    label='kind',
    split='fold',
    delimiter=';',
    classes=['cat', 'bee', 'ant'],
  )
  assert got.class_names == ('cat', 'bee', 'ant')
  np.testing.assert_array_equal(got.train.label[:4], [0, 2, 0, 1])


def test_optional_columns_can_be_ignored(folder):
  table = rows(split=['a'] * 10, weight=['heavy'] * 10)
  place = write(folder / 'labels.csv', table)
  got = data.load(place, split='', weight='')
  assert got.train.weight is None
  assert len(got.train) + len(got.test) == 10


def test_whole_numbers_are_sorted_as_numbers(folder):
  label = [10, 9, 10, 9, 10, 9, 10, 9, 10, 9]
  for name in ('a.csv', 'a.jsonl', 'a.parquet'):
    got = data.load(write(folder / name, rows(label=label, split=SPLITS)))
    assert got.class_names == ('9', '10')


def test_the_test_split_can_be_chosen(folder):
  splits = ['Train'] * 5 + ['val'] * 3 + ['test'] * 2
  place = write(folder / 'labels.csv', rows(split=splits))
  usual = data.load(place)
  assert (len(usual.train), len(usual.test)) == (5, 2)
  assert '3 examples of the split val are not used' in usual.notes[0]
  got = data.load(place, test='VAL')
  np.testing.assert_array_equal(got.test.image, IMAGES[5:8])
  with pytest.raises(ValueError, match="'fold' is no split .*test, train, val"):
    data.load(place, test='fold')


def test_images_may_be_in_the_table(folder):
  table = rows(split=SPLITS)
  want = data.load(write(folder / 'labels.csv', table))
  for row in table:
    content = (folder / row['path']).read_bytes()
    row['path'] = {'bytes': content, 'path': None}
  got = data.load(write(folder / 'labels.parquet', table))
  assert got.fingerprint == want.fingerprint


def test_large_sets_are_decoded_batch_by_batch(folder):
  place = write(folder / 'a.csv', rows(split=SPLITS, weight=range(10)))
  got = data.load(place, memory=0)
  assert got.train.image is None
  index = np.array([3, 0])
  (batch,) = data.prefetch(got.train, [index], 0, None)
  np.testing.assert_array_equal(batch['weight'], got.train.weight[index])
  np.testing.assert_array_equal(batch['label'], got.train.label[index])
  other = data.load(write(folder / 'a.csv', rows(split=SPLITS)), memory=0)
  assert other.fingerprint != got.fingerprint


def test_without_a_test_split_a_fifth_is_held_out(folder):
  label = ['a', 'b'] * 5
  place = write(folder / 'labels.csv', rows(label=label))
  got = data.load(place)
  assert np.bincount(got.test.label).tolist() == [1, 1]
  assert '2 of the 10 training examples' in got.notes[0]
  asked = data.load(place, hold_out=2, hold_out_seed=1)
  assert np.bincount(asked.test.label).tolist() == [2, 2]
  both = [*asked.train.image, *asked.test.image]
  assert len({image.tobytes() for image in both}) == 10


def test_hold_out_replaces_a_test_split(folder):
  label = ['a', 'b'] * 5
  place = write(folder / 'labels.csv', rows(label=label, split=SPLITS))
  got = data.load(place, hold_out=1)
  assert (len(got.train), len(got.test)) == (5, 2)
  assert 'the test split of 3 is unused' in got.notes[0]
  images = {x.tobytes() for x in IMAGES[:7]}
  assert {x.tobytes() for x in got.test.image} <= images


HEAD = 'path,label,split,weight\n'
GOOD = 'images/0.png,a,train,1\nimages/1.png,a,test,1\n'


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('images/10.png,a,train,1', r'line 4: \S*images/10.png is not there'),
    ('images,a,train,1', r'line 4: \S*images is a folder'),
    (',a,train,1', "line 4: the column 'path' is empty"),
    ('images/2.png,,train,1', "line 4: the column 'label' is empty"),
    ('images/2.png, ,train,1', "line 4: the column 'label' is empty"),
    ('images/2.png,a,tran,1', "line 4: unknown split 'tran': write one of"),
    ('images/2.png,a,,1', "line 4: unknown split ''"),
    ('images/2.png,b,test,1', "line 4: the label 'b' is none of the 1 classes"),
    ('images/2.png,a,train,-1', "line 4: the weight must .* got '-1'"),
    ('images/2.png,a,train,nan', "line 4: the weight must .* got 'nan'"),
    ('images/2.png,a,train,inf', "line 4: the weight must .* got 'inf'"),
    ('images/2.png,a,train,', "line 4: the weight must .* got ''"),
    ('images/2.png,a,train', 'line 4: 3 cells, but 4 columns'),
    ('images/2.png,a,b,train,1', "line 4: 5 cells, .* contains ','"),
    ('images/2.png,"a,train,1', 'line 4: unexpected end of data'),
  ],
)
def test_a_wrong_row_is_named_by_its_line(folder, monkeypatch, line, message):
  def decode(*_):
    raise AssertionError('decoded')

  monkeypatch.setattr('jaxkd.data.images.decode', decode)
  with pytest.raises(ValueError, match=message):
    load(folder, HEAD + GOOD + line)


def test_lines_are_counted_as_editors_do(folder):
  text = HEAD + '\n"images/0.png","a",train,1\n' + ',"two\nlines",train,1\n,,,'
  with pytest.raises(ValueError, match='(?s)line 4: the col.*line 6: the col'):
    load(folder, text.replace('\n,,,', '\n,b,train,1'))


def test_mistakes_are_reported_together_and_counted(folder):
  text = HEAD + 'x.png,a,train,1\n' * 9
  with pytest.raises(ValueError, match='9 rows that cannot') as error:
    load(folder, text)
  assert str(error.value).count('line') == 5
  assert '... and 4 more' in str(error.value)


@pytest.mark.parametrize(
  ('text', 'name', 'message'),
  [
    ('path;label\na.png;a', 'a.csv', "separated by ';'.*delimiter=';'"),
    ('path\tlabel\na.png\ta', 'a.csv', r"delimiter='\\t'"),
    ('path,path,label\na,b,c', 'a.csv', "line 1: more than one .* 'path'"),
    ('file,label\na.png,a', 'a.csv', "no column 'path'.*settings.path"),
    ('path,kind\na.png,a', 'a.csv', "no column 'label'.*settings.label"),
    ('path,label\n', 'a.csv', 'has no rows'),
    ('', 'a.csv', 'has no rows'),
    (
      '{"path": "a", "path": "b"}',
      'a.jsonl',
      "line 1: .*'path' is there twice",
    ),
    ('\n[1]', 'a.jsonl', 'line 2: not a JSON object'),
    ('[\n  {"path": "a"}\n]', 'a.json', 'begins with a list, .* each line'),
    ('{"path": 1', 'a.jsonl', 'line 1: not JSON'),
    ('PAR1', 'a.parquet', 'cannot be read as Parquet'),
    ('path,label', 'a.xlsx', 'must end in one of .csv'),
  ],
)
def test_a_wrong_file_is_explained(folder, text, name, message):
  with pytest.raises((ValueError, KeyError), match=message):
    load(folder, text, name)


def test_other_encodings_are_explained(folder):
  for encoding in ('utf-16', 'latin-1'):
    text = 'path,label\nimages/0.png,ä'
    (folder / 'a.csv').write_text(text, encoding=encoding)
    with pytest.raises(ValueError, match='is not in UTF-8'):
      data.load(f'table:{folder / "a.csv"}')


def test_a_missing_table_and_a_folder_are_explained(folder):
  with pytest.raises(FileNotFoundError, match='there is no table'):
    data.load(f'table:{folder / "b.csv"}')
  with pytest.raises(ValueError, match='is a folder: name the table in it'):
    data.load(f'table:{folder}')


@pytest.mark.parametrize(
  ('name', 'library', 'extra'),
  [
    ('table:{}/a.parquet', 'pyarrow', 'parquet'),
    ('huggingface:{}', 'datasets', 'datasets'),
  ],
)
def test_a_missing_library_is_named(folder, monkeypatch, name, library, extra):
  (folder / 'a.parquet').write_bytes(b'PAR1')
  monkeypatch.setitem(sys.modules, library, None)
  with pytest.raises(ImportError, match=rf"pip install 'jaxkd\[{extra}\]'"):
    data.load(name.format(folder))


def test_weights_that_are_all_zero_are_refused(folder):
  place = write(folder / 'a.csv', rows(split=SPLITS, weight=[0] * 10))
  with pytest.raises(ValueError, match='all training examples are 0'):
    data.load(place)
  names = data.load(place, weight='', few_shot=1)
  kept = {x.tobytes() for x in names.train.image}
  weight = [float(image.tobytes() not in kept) for image in IMAGES]
  place = write(folder / 'b.csv', rows(split=SPLITS, weight=weight))
  with pytest.raises(ValueError, match='all 3 training examples that are left'):
    data.load(place, few_shot=1)


@pytest.mark.parametrize('scale', [1.0, 1e308, 1e-300, 5e-324])
def test_weights_of_any_magnitude_have_mean_one(folder, scale):
  weight = [scale, 0, scale, 0, scale, 0, scale, 1, 1, 1]
  place = write(folder / 'a.csv', rows(split=SPLITS, weight=weight))
  want = np.array([7 / 4, 0] * 3 + [7 / 4], np.float32)
  np.testing.assert_allclose(data.load(place).train.weight, want, rtol=1e-6)


def test_rows_of_other_splits_may_be_wrong(folder):
  text = HEAD + GOOD + 'images/5.png,a,val,\n'  # a weight is not needed there
  unused = 'images/3.png,,test,1\nnone.png,a,test,1\n'
  got = load(folder, text + unused, test='val')
  assert len(got.test) == 1
  with pytest.raises(ValueError, match='2 rows that cannot be used'):
    load(folder, text + unused)


@pytest.mark.parametrize('name', ['~', '~.png', '~none.png', '~$a.png', '$A'])
def test_a_name_of_a_file_is_not_a_home_or_a_variable(folder, name):
  write_image(folder / '0.png', IMAGES[9])
  (folder / '0.png').rename(folder / './' / name)
  path = f'./{name}' if name == '~' else name
  got = load(folder, HEAD + GOOD + f'{path},a,test,1\n')
  np.testing.assert_array_equal(got.test.image[-1], IMAGES[9])


@pytest.mark.parametrize('name', ['x' * 300 + '.png', 'a\0b.png', '0.png/b'])
def test_an_impossible_name_is_named_by_its_line(folder, name):
  write_image(folder / '0.png', IMAGES[0])
  row = {'path': name, 'label': 'a'}
  with pytest.raises(ValueError, match='line 1: (?s:.*) (is not|cannot be)'):
    load(folder, json.dumps(row), 'a.jsonl')


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'classes': ('ant', 'bee', 'ant')}, "classes has 'ant' more than once"),
    ({'classes': 'ant,bee,cat'}, 'classes must be a list .* got .ant,bee,cat'),
    ({'classes': 3}, 'classes must be a list'),
    ({'label': (), 'problem': 'multi_label'}, 'label must name at least one'),
    (
      {'label': ['red', 'red'], 'problem': 'multi_label'},
      "label has 'red' more than once",
    ),
    ({'test': 'train'}, "data.test='train' is the training split"),
    ({'test': 'Training'}, "data.test='training' is no split"),
    ({'skip_unreadable': 'no'}, 'skip_unreadable must be True or False'),
    ({'exif': 'false'}, "exif must be True or False, got 'false'"),
    ({'background': 3}, 'background must be a string'),
    ({'few_shot': 1.5}, 'few_shot must be a whole number'),
    ({'validation': 0.5}, 'validation must be a whole number'),
  ],
)
def test_wrong_settings_are_explained(folder, settings, message):
  place = write(folder / 'a.csv', rows(split=SPLITS, red=[0] * 10))
  with pytest.raises(ValueError, match=message):
    data.load(place, **settings)


def test_a_class_without_training_images_is_noted(folder):
  place = write(folder / 'a.csv', rows(split=SPLITS))
  got = data.load(place, classes=['ant', 'bee', 'cat', 'dog'])
  assert "1 of 4 classes have no training image, such as 'dog'." in got.notes
  assert not data.load(place).notes


def test_an_image_in_both_splits_is_noted(folder):
  text = HEAD + GOOD + 'images/0.png,a,test,1\n'
  notes = load(folder, text).notes
  assert any('1 images are in the training and in the test' in x for x in notes)


# Several labels.


def several(got):
  names = np.array(got.class_names)
  return [set(names[row > 0]) for row in [*got.train.label, *got.test.label]]


SETS = [{'red', 'big'}, {'red'}, set(), {'big'}, {'blue'}] * 2


@pytest.mark.parametrize('form', ['cells', 'lists', 'json', 'columns'])
def test_labels_are_sets_in_cells_lists_or_columns(folder, form):
  settings, name = {}, 'labels.csv'
  if form == 'columns':
    settings['label'] = ['blue', 'big', 'red']
    table = rows(
      split=SPLITS,
      **{k: [int(k in x) for x in SETS] for k in settings['label']},
    )
  elif form == 'cells':
    table = rows(split=SPLITS, label=['; '.join(x) for x in SETS])
    settings['separator'] = ';'
  else:
    lists = [sorted(x) for x in SETS]
    if form == 'json':  # in a cell of Parquet
      lists = [json.dumps(x) for x in lists]
    name = {'lists': 'labels.jsonl', 'json': 'labels.parquet'}[form]
    table = rows(split=SPLITS, label=lists)
  place = write(folder / name, table)
  got = data.load(place, problem='multi_label', **settings)
  assert got.problem == 'multi_label' and got.train.label.dtype == np.uint8
  assert set(got.class_names) == {'red', 'big', 'blue'}
  assert several(got) == SETS
  assert any('1 of 7 training images have no label' in x for x in got.notes)


@pytest.mark.parametrize('label', [{'a': 1}, [['a'], 'b'], [{'a': 1}]])
def test_a_label_is_text_or_a_number(folder, label):
  row = {'path': 'images/0.png', 'label': label}
  for settings in ({'problem': 'multi_label'}, {}):
    with pytest.raises(ValueError, match='line 1: .*(neither text nor|list)'):
      load(folder, json.dumps(row), 'a.jsonl', **settings)


def test_a_list_needs_the_problem_to_be_named(folder):
  table = rows(split=SPLITS, label=[sorted(x) for x in SETS])
  place = write(folder / 'labels.jsonl', table)
  with pytest.raises(ValueError, match='line 1: .*is a list.*multi_label'):
    data.load(place)
  with pytest.raises(ValueError, match='several columns.*multi_label'):
    data.load(place, label=['path', 'label'])
  with pytest.raises(KeyError, match="no problem 'multilabel'. Did you mean"):
    data.load(place, problem='multilabel')


def test_a_column_of_a_class_holds_zero_or_one(folder):
  marks = [0, 1, '1.0', '0.0', 'True', 'false', 0, 0, 0, 0]
  table = rows(split=SPLITS, red=marks)
  got = data.load(
    write(folder / 'a.csv', table), label=['red'], problem='multi_label'
  )
  assert got.train.label[:, 0].tolist() == [0, 1, 1, 0, 1, 0, 0]
  table = rows(split=SPLITS, red=[0, 1, 2] + [0] * 7)
  place = write(folder / 'labels.csv', table)
  with pytest.raises(
    ValueError, match="line 4: .*'red' must be 0 or 1, got '2"
  ):
    data.load(place, label=['red'], problem='multi_label')


def test_sets_are_held_out_with_the_share_of_every_label(folder):
  table = rows(label=['|'.join(sorted(x)) for x in SETS])
  got = data.load(
    write(folder / 'a.csv', table), problem='multi_label', hold_out=0.5
  )
  assert got.test.label.sum(0).tolist() == got.train.label.sum(0).tolist()
  with pytest.raises(ValueError, match='few_shot=2 is a number of examples of'):
    data.load(write(folder / 'a.csv', table), problem='multi_label', few_shot=2)
