"""Stored logits: rounding, checks, and files that are refused."""

import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxkd.stores import Header, Rows, Store, check_space, create

RNG = np.random.default_rng(0)
K = 7


def header(rows=None, slots=3, examples=11, **changes):
  parts = dict(
    data={'fingerprint': 'abc'},
    views={'seed': 0, 'count': slots},
    network={'digest': '1'},
    card={'model': 'mlp', 'top1': 0.5},
  )
  rows = rows or Rows((K,), 'float32')
  return Header(rows, slots, examples, **{**parts, **changes})


def logits_of(n, scale=5.0):
  return (scale * RNG.standard_normal((n, K))).astype(np.float32)


def roundtrip(rows, z):
  position = np.arange(len(z))
  return rows.decode(rows.encode(z, position))


def softmax(z):
  z = np.asarray(z, np.float64)
  p = np.exp(z - z.max(axis=-1, keepdims=True))
  return p / p.sum(axis=-1, keepdims=True)


class TestRows:
  def test_float32_is_exact(self):
    z = logits_of(20, 1e3)
    np.testing.assert_array_equal(roundtrip(Rows((K,), 'float32'), z), z)

  @pytest.mark.parametrize(
    ('dtype', 'bits'), [('float16', 11), ('bfloat16', 8)]
  )
  def test_rounding_is_relative_to_the_distance_from_the_maximum(
    self, dtype, bits
  ):
    z = logits_of(50, 20.0) + 100
    error = np.abs(roundtrip(Rows((K,), dtype), z) - z)
    distance = z.max(axis=1, keepdims=True) - z
    assert np.all(error <= 2.0**-bits * distance + 2e-5)

  @pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32'])
  def test_huge_logits_stay_finite_and_masked_ones_stay_masked(self, dtype):
    z = np.array([[3e5, 0, -3e5, -np.inf, 1, 2, 3]], np.float32)
    got = roundtrip(Rows((K,), dtype), z)
    assert got[0, 0] == 3e5
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(z))

  def test_other_problems_have_logits_of_any_shape(self):
    z = RNG.standard_normal((4, 2, 3, K)).astype(np.float32)
    got = roundtrip(Rows((2, 3, K)), z)
    np.testing.assert_allclose(got, z, atol=5e-3)

  @pytest.mark.parametrize('bad', [np.nan, np.inf])
  def test_what_is_no_distribution_is_refused(self, bad):
    z = logits_of(2)
    z[1, 3] = bad
    with pytest.raises(ValueError, match='NaN, infinite or all -inf'):
      roundtrip(Rows((K,)), z)
    with pytest.raises(ValueError, match='NaN, infinite or all -inf'):
      roundtrip(Rows((K,)), np.full((1, K), -np.inf))

  @given(st.integers(1, K - 1), st.floats(0.1, 30))
  def test_the_rest_of_the_top_is_spread_evenly(self, top, scale):
    z = logits_of(5, scale)
    p, q = softmax(z), softmax(roundtrip(Rows((K,), 'float32', top), z))
    order = np.argsort(-z, axis=1)
    kept, rest = order[:, :top], order[:, top:]
    take = np.take_along_axis
    np.testing.assert_allclose(take(q, kept, 1), take(p, kept, 1), rtol=2e-5)
    want = take(p, rest, 1).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
      take(q, rest, 1), np.repeat(want, K - top, 1), rtol=2e-5
    )

  def test_masked_classes_get_nothing_of_the_top(self):
    z = np.full((1, K), -np.inf, np.float32)
    z[0, :2] = 1, 0
    q = softmax(roundtrip(Rows((K,), 'float32', 2), z))
    np.testing.assert_allclose(q, softmax(z), rtol=1e-6)

  @pytest.mark.parametrize(
    ('make', 'message'),
    [
      (lambda: Rows((K,), top=K), 'at least 0 and below the 7 classes, got 7'),
      (lambda: Rows((K,), top=-1), 'got -1'),
      (lambda: Rows((2, K), top=1), r'must be 0 for logits of shape \[2, 7\]'),
      (lambda: Rows((K,), 'float8'), 'no type of stored logits'),
    ],
  )
  def test_impossible_rows_are_refused(self, make, message):
    with pytest.raises((KeyError, ValueError), match=message):
      make()


class TestStore:
  def filled(self, path, **changes):
    store = create(path, header(**changes))
    every = np.arange(11)
    for slot in range(3):
      store.write(slot, every, logits_of(11) + 10 * slot)
    store.close()
    return path

  def test_reads_what_was_written_in_any_order(self, tmp_path):
    store = create(tmp_path / 'x', header())
    slot, index = np.array([2, 0, 2, 1]), np.array([3, 10, 2, 0])
    z = logits_of(4)
    store.write(slot, index, z)
    np.testing.assert_array_equal(store.read(slot, index), z)
    order = np.array([1, 3, 0, 2])
    np.testing.assert_array_equal(
      Store(tmp_path / 'x').read(slot[order], index[order]), z[order]
    )
    there = store.present(np.array([2, 2]), np.array([3, 4]))
    assert there.tolist() == [True, False]
    assert not store.complete()

  def test_a_missing_row_is_named(self, tmp_path):
    store = create(tmp_path / 'x', header())
    with pytest.raises(ValueError, match='view 1 and example 4 .* is missing'):
      store.read(1, np.array([4]))

  def test_its_header_is_read_back(self, tmp_path):
    path = self.filled(tmp_path / 'x', rows=Rows((K,), 'bfloat16', 3))
    store = Store(path)
    assert store.header == header(Rows((K,), 'bfloat16', 3))
    assert store.complete()

  @pytest.mark.parametrize('rows', [Rows((K,)), Rows((K,), 'float32', 2)])
  def test_every_byte_is_checked(self, tmp_path, rows):
    """A changed byte of a row is found when that row is read, and named."""
    path = self.filled(tmp_path / 'x', rows=rows)
    data, begin = path.read_bytes(), Store(path)._offset
    size = rows.record.itemsize
    place = begin + (1 * 11 + 5) * size  # of view 1 and example 5
    for byte in range(size):
      changed = bytearray(data)
      changed[place + byte] ^= 1
      path.write_bytes(changed)
      with pytest.raises(ValueError, match='view 1 and example 5 .*corrupt'):
        Store(path).read(1, np.arange(11))
      Store(path).read(0, np.arange(11))  # others are intact
    path.write_bytes(data)
    Store(path).read(1, np.arange(11))

  def test_a_row_at_the_place_of_another_is_an_error(self, tmp_path):
    path = self.filled(tmp_path / 'x')
    data, begin = bytearray(path.read_bytes()), Store(path)._offset
    size = Rows((K,), 'float32').record.itemsize
    data[begin : begin + size] = data[begin + size : begin + 2 * size]
    path.write_bytes(data)
    with pytest.raises(ValueError, match='view 0 and example 0'):
      Store(path).read(0, np.arange(11))

  @pytest.mark.parametrize(
    ('change', 'message'),
    [
      (lambda data: data[:-1], 'has .* bytes, and its header describes'),
      (lambda data: data + b'\0', 'has .* bytes, and its header describes'),
      (lambda data: b'PK' + data[2:], 'not a file of stored outputs'),
      (lambda data: data[:5], 'not a file of stored outputs'),
      (lambda data: data[:30] + b'?' + data[31:], 'corrupt in its header'),
    ],
  )
  def test_another_file_is_refused(self, tmp_path, change, message):
    path = self.filled(tmp_path / 'x')
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
      Store(path)

  def test_no_file_is_an_error_that_knows_of_unfinished_ones(self, tmp_path):
    with pytest.raises(FileNotFoundError, match='--mode=store'):
      Store(tmp_path / 'x')
    (tmp_path / 'x.partial').touch()
    with pytest.raises(FileNotFoundError, match=r'x\.partial is unfinished'):
      Store(tmp_path / 'x')

  def test_a_file_of_other_outputs_is_not_written_to(self, tmp_path):
    self.filled(tmp_path / 'x')
    message = r"network\.digest: '1' -> '2'"
    with pytest.raises(ValueError, match=message):
      create(tmp_path / 'x', header(network={'digest': '2'}))

  def test_one_process_writes(self, tmp_path):
    first, second = (create(tmp_path / 'x', header()) for _ in range(2))
    first.lock()
    with pytest.raises(ValueError, match='another process'):
      second.lock()
    first.close()
    second.lock()

  def test_rows_that_are_not_written_take_no_space(self, tmp_path):
    create(tmp_path / 'x', header(slots=100_000))
    status = (tmp_path / 'x').stat()
    assert status.st_blocks * 512 < status.st_size / 100

  def test_a_full_disk_is_noticed_before(self, tmp_path):
    check_space(tmp_path / 'new' / 'x', 1)
    with pytest.raises(OSError, match='needs .* more bytes, and .* has'):
      check_space(tmp_path / 'new' / 'x', 2**60)


def test_the_table_of_costs_in_the_documentation():
  """Bytes for each view, as the table in docs/teachers.md has them."""
  text = pathlib.Path(__file__, '../../docs/teachers.md').resolve().read_text()
  cifar, imagenet = (50_000, 100), (1_281_167, 1000)
  for (images, classes), dtype, top, unit, digits in (
    (cifar, 'float32', 0, 'MB', 1),
    (cifar, 'float16', 0, 'MB', 1),
    (cifar, 'float16', 10, 'MB', 1),
    (imagenet, 'float32', 0, 'GB', 2),
    (imagenet, 'float16', 0, 'GB', 2),
    (imagenet, 'float16', 100, 'GB', 2),
    (imagenet, 'float16', 10, 'MB', 1),
  ):
    size = images * Rows((classes,), dtype, top).record.itemsize
    shown = size / {'MB': 1e6, 'GB': 1e9}[unit]
    assert f'| {shown:.{digits}f} {unit} |' in text, (classes, dtype, top)
