"""What reports say of predictions: on which images, against which network."""

import base64
import io
import json
import shutil

import finished
import jax
import numpy as np
import PIL.Image
import pytest
import tagged
import tiny
from sklearn import metrics

from jaxkd import checkpoints, reports
from jaxkd.data.base import Split
from jaxkd.reports import predictions, thumbnails
from jaxkd.runs.experiment import build
from jaxkd.runs.run import Run


def decoded(uri: str) -> np.ndarray:
  kind, _, content = uri.partition(';base64,')
  assert kind in ('data:image/png', 'data:image/jpeg')
  return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize('channels', [1, 3])
def test_small_images_are_kept_as_they_are(channels):
  images = np.random.default_rng(0).integers(0, 256, (3, 8, 6, channels))
  images = images.astype(np.uint8)
  shown = thumbnails.of_split(Split(np.zeros(3), images), np.array([2, 0]))
  for uri, image in zip(shown, images[[2, 0]], strict=True):
    np.testing.assert_array_equal(decoded(uri), image.squeeze())


def test_large_images_are_reduced_and_decoded_on_request():
  asked = []

  def load(index, seeds):
    asked.append((list(index), seeds))
    return np.full((len(index), 300, 200, 3), 120, np.uint8)

  (uri,) = thumbnails.of_split(Split(np.zeros(5), load=load), np.array([3]))
  assert asked == [([3], None)]
  assert decoded(uri).shape == (96, 64, 3)
  assert abs(int(decoded(uri).mean()) - 120) < 3


def test_real_numbers_are_scaled_and_vectors_are_no_pictures():
  image = np.linspace(-3, 5, 64).reshape(8, 8, 1).astype(np.float32)
  assert decoded(thumbnails.of_image(image))[[0, -1], [0, -1]].tolist() == [
    0,
    255,
  ]
  assert decoded(thumbnails.of_image(np.zeros((8, 8, 5)))).shape == (8, 8)
  assert thumbnails.of_image(np.zeros((1, 1, 16))) == ''
  assert (
    thumbnails.of_split(Split(np.zeros(1), image[None]), np.array([], int))
    == []
  )


@pytest.mark.parametrize(
  ('method', 'network', 'other', 'reason'),
  [
    ('kd', 'student', 'teacher', ''),
    ('dml', 'student', 'peer0', ''),
    ('gpd', 'student', 'teacher', ''),
    ('plain', 'student', '', 'Nothing but labels taught this network.'),
    ('teacher', 'teacher', '', 'Nothing but labels taught this network.'),
  ],
)
def test_a_network_is_compared_with_its_teacher(method, network, other, reason):
  made = predictions.of_run(finished.run(method))
  assert (made['network'], made['other']) == (network, other)
  assert made['no_other'] == reason
  assert ('disagreements' in made) == ('agreement' in made) == bool(other)
  assert list(made['classes'][0]['values']) == [
    x for x in (network, other) if x
  ]


def test_a_teacher_of_an_earlier_phase_is_compared_too(tmp_path):
  """As where features are learned first, and then labels alone."""
  copy = shutil.copytree(finished.run('kd'), tmp_path / 'run')
  for name, frozen in (('teacher', {'teacher': {}}), ('distil', {})):
    path = copy / f'phases/{name}.json'
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, 'frozen': frozen}))
  assert predictions.of_run(copy)['other'] == 'teacher'


def test_a_guide_that_cannot_be_read_is_named(tmp_path):
  copy = shutil.copytree(finished.run('kd'), tmp_path / 'run')
  shutil.rmtree(copy / 'networks/teacher')
  made = predictions.of_run(copy)
  assert made['other'] == '' and 'The guide (teacher) is' in made['no_other']


def test_of_many_test_images_some_at_equal_distances_are_taken(monkeypatch):
  whole = predictions.of_run(finished.run('kd'))
  monkeypatch.setattr(predictions, 'EXAMPLES', 31)
  made = predictions.of_run(finished.run('kd'))
  assert (made['images'], made['of']) == (31, 60)
  labels = tiny.experiment(**finished.DATA).dataset.test.label
  want = np.bincount(labels[np.linspace(0, 59, 31).round().astype(int)])
  assert [row['images'] for row in made['classes']] == want.tolist()
  assert made['mistakes'] < whole['mistakes']


def test_a_network_that_diverged_is_refused(tmp_path):
  copy = shutil.copytree(finished.run('kd'), tmp_path / 'run')
  file = copy / 'networks/student/variables.npz'
  with np.load(file) as arrays:
    broken = {name: np.full_like(x, np.nan) for name, x in arrays.items()}
  np.savez(file, **broken)
  with pytest.raises(ValueError, match='logits of student are NaN'):
    predictions.of_run(copy)


def test_several_labels(tmp_path):
  config = tagged.config(
    tagged.write(tmp_path),
    method=dict(name='kd', objective='binary_kd', label_weight=1.0),
    cache=str(tmp_path / 'cache'),
    student__width=0.5,
  )
  made = build(config)
  run = tmp_path / 'run'
  Run(made, run).finish()
  page = reports.write(run, experiment=made).read_text(encoding='utf-8')
  kept = json.loads((run / 'report.json').read_text())['predictions']
  test, view = made.dataset.test, made.dataset.view
  image = ((test.image / 255 - view.mean) / view.std).astype(np.float32)
  present, logits = test.label > 0, {}
  for name in ('student', 'teacher'):
    variables, card = checkpoints.load(run / 'networks' / name)
    logits[name] = np.asarray(card.module().apply(variables, image).logits)
  for k, row in enumerate(kept['classes']):
    assert row['name'] == tagged.CLASSES[k]
    assert row['images'] == present[:, k].sum()
    for name, value in row['values'].items():
      want = metrics.average_precision_score(present[:, k], logits[name][:, k])
      assert value == pytest.approx(want, abs=1e-3)
    answers = logits['student'][:, k] > 0
    assert row['missed'] == np.sum(present[:, k] & ~answers)
    assert row['added'] == np.sum(~present[:, k] & answers)
  p, q = (np.asarray(jax.nn.sigmoid(logits[x]), np.float64) for x in logits)
  same = np.mean((p > 0.5) == (q > 0.5))
  assert kept['agreement'] == pytest.approx(same, abs=1e-4)
  parts = [(p, q), (1 - p, 1 - q)]
  distance = sum(
    x * np.log(2 * x / (x + y)) + y * np.log(2 * y / (x + y)) for x, y in parts
  )
  want = np.sort(distance.sum(-1) / 2)[::-1][:12]
  got = [row['distance'] for row in kept['disagreements']]
  np.testing.assert_allclose(got, want, atol=2e-4)
  assert 'confusions' not in kept and 'reliability' not in kept
  assert 'defined for one label for each image' in page and 'mAP' in page
