"""Makes small data sets on disk, in the layouts of the real ones."""

import hashlib
import io
import json
import pathlib
import pickle
import tarfile

import numpy as np
import PIL.Image


def pixels(n: int, size: int = 8, channels: int = 3, seed: int = 0):
  """Returns uint8 [N, size, size, C]."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (n, size, size, channels), np.uint8)


def cifar100_split(n: int, seed: int = 0) -> dict:
  """Returns the content of a file of CIFAR-100."""
  rng = np.random.default_rng(seed)
  return {
    'data': rng.integers(0, 256, (n, 3072), np.uint8),
    'fine_labels': (np.arange(n) * 7 % 100).tolist(),
    'coarse_labels': [0] * n,
    'filenames': [f'{i}.png' for i in range(n)],
  }


def cifar100_files(train: int = 12, test: int = 5) -> dict[str, dict]:
  return {
    'train': cifar100_split(train),
    'test': cifar100_split(test, seed=1),
    'meta': {'fine_label_names': [f'thing{k}' for k in range(100)]},
  }


def cifar10_files(train: int = 4, test: int = 3) -> dict[str, dict]:
  """Returns the content of every file, with keys in bytes."""
  rng = np.random.default_rng(0)

  def batch(n):
    data = rng.integers(0, 256, (n, 3072), np.uint8)
    return {b'data': data, b'labels': list(range(n))}

  files = {f'data_batch_{i}': batch(train) for i in range(1, 6)}
  files['test_batch'] = batch(test)
  files['batches.meta'] = {b'label_names': [b'thing%d' % k for k in range(10)]}
  return files


def write_pickles(folder: pathlib.Path, files: dict, protocol: int = 2) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    (folder / name).write_bytes(pickle.dumps(content, protocol))


def write_archive(archive: pathlib.Path, folder: str, files: dict) -> None:
  with tarfile.open(archive, 'w:gz') as tar:
    for name, content in files.items():
      content = pickle.dumps(content, 2)
      member = tarfile.TarInfo(f'{folder}/{name}')
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))


def python2_pickle(data: bytes, columns: int) -> bytes:
  """Returns {'data': uint8 [N, columns]} as Python 2 and NumPy 1 pickled it.

  Written out in opcodes (protocol 2, byte strings), because no Python 3 writes
  them.
  """

  def string(value: bytes) -> bytes:
    return b'T' + len(value).to_bytes(4, 'little') + value

  def integer(value: int) -> bytes:
    return b'J' + value.to_bytes(4, 'little', signed=True)

  empty = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n'
  empty += integer(0) + b'\x85' + string(b'b') + b'\x87R'
  dtype = (
    b'cnumpy\ndtype\n' + string(b'u1') + integer(0) + integer(1) + b'\x87R'
  )
  dtype += b'(' + integer(3) + string(b'|') + b'NNN'
  dtype += integer(-1) + integer(-1) + integer(0) + b'tb'
  shape = integer(len(data) // columns) + integer(columns) + b'\x86'
  state = b'(' + integer(1) + shape + dtype + b'\x89' + string(data) + b'tb'
  return b'\x80\x02}' + string(b'data') + empty + state + b's.'


def write_image(path: pathlib.Path, image: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  PIL.Image.fromarray(image.squeeze()).save(path)


def write_folder(
  root: pathlib.Path, sizes: dict[str, dict[str, int]], size: int = 8
) -> None:
  """Writes `sizes[split][class]` random images as root/split/class/i.png."""
  for split, classes in sizes.items():
    for name, n in classes.items():
      images = pixels(n, size, seed=len(split + name))
      for i, image in enumerate(images):
        write_image(root / split / name / f'{i}.png', image)


def write_tfds(
  root: pathlib.Path, name: str, splits: dict[str, list], size: int, channels=3
) -> dict[str, np.ndarray]:
  """Writes a prepared array_record data set, as TFDS does, without TensorFlow.

  Args:
    root: the data_dir.
    name: of the data set.
    splits: labels by split.
    size: of the images; classes are 'a', 'b', 'c'.
    channels: 3 or 1.

  Returns:
    The images by split, uint8 [N, size, size, channels].
  """
  import tensorflow_datasets as tfds
  from array_record.python.array_record_module import ArrayRecordWriter
  from tensorflow_datasets.proto import tf_example_pb2

  folder = root / name / '1.0.0'
  folder.mkdir(parents=True)
  tfds.features.FeaturesDict(
    {
      'image': tfds.features.Image(shape=(size, size, channels)),
      'label': tfds.features.ClassLabel(names=['a', 'b', 'c']),
    }
  ).save_config(folder)
  images, infos = {}, []
  for split, labels in splits.items():
    seed = int(hashlib.md5(split.encode()).hexdigest()[:4], 16)
    images[split] = pixels(len(labels), size, channels, seed)
    path = folder / f'{name}-{split}.array_record-00000-of-00001'
    writer = ArrayRecordWriter(str(path), 'group_size:1')
    for image, label in zip(images[split], labels, strict=True):
      png = io.BytesIO()
      PIL.Image.fromarray(image.squeeze()).save(png, 'PNG')
      example = tf_example_pb2.Example()
      feature = example.features.feature
      feature['image'].bytes_list.value.append(png.getvalue())
      feature['label'].int64_list.value.append(label)
      writer.write(example.SerializeToString())
    writer.close()
    infos.append(
      {
        'name': split,
        'shardLengths': [str(len(labels))],
        'numBytes': str(path.stat().st_size),
        'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
      }
    )
  info = {'name': name, 'version': '1.0.0', 'fileFormat': 'array_record'}
  info |= {'moduleName': 'none', 'splits': infos}
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  return images
