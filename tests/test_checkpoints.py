"""Model cards, and the one door to networks on disk."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxkd import checkpoints, models, tree
from jaxkd.checkpoints import Card, Kind, native
from jaxkd.interop import export, files
from jaxkd.interop.torch import to_state_dict

SHAPE = (4, 4, 1)
MINIMAL = {'model': 'linear', 'num_classes': 3, 'image_shape': [4, 4, 1]}
EVERY = Card(
  model='resnet8',
  num_classes=3,
  image_shape=SHAPE,
  network='student_ema',
  phase='distil',
  width=0.5,
  branches=6,
  settings={'features': [3, 4]},
  taps={'pooled': 'head:input'},
  read_out='clip',
  reused={'stage': 'last', 'size': [2, 2]},
  compute_dtype='bfloat16',
  class_names=('a', 'b', 'c'),
  problem='multi_label',
  data='synthetic',
  data_fingerprint='12ab',
  mean=(0.5,),
  std=(0.25,),
  scale=255.0,
  params=12,
  macs=34,
  params_sha256='cd',
  results={'top1': 0.1 + 0.2, 'best_top1_on_test': None},
  data_settings={'name': 'synthetic', 'settings': {'sizes': [1, 2]}},
  exported_from='ef',
  layout='NHWC',
  jaxkd='0.1.0',
  converted_from='x.pth',
  notes=('its raw weights are used',),
  other={'note': 'of a later version'},
)


@pytest.fixture(scope='module')
def network():
  """A linear network of random numbers."""
  shapes = tree.shapes(models.build('linear', 3), SHAPE)
  draw = np.random.default_rng(0).normal
  variables = jax.tree.map(lambda x: np.float32(draw(size=x.shape)), shapes)
  card = checkpoints.card_of('linear', variables, 3, SHAPE)
  return checkpoints.SavedNetwork(variables, card)


@pytest.fixture
def places(network, tmp_path):
  """The network in each kind of place, by kind and name."""
  variables, card = network
  state_dict = to_state_dict('linear', variables)
  checkpoints.save(tmp_path / 'folder', variables, card)
  checkpoints.save(tmp_path / 'file.npz', variables, card)
  checkpoints.save(tmp_path / 'run/networks/student', variables, card)
  checkpoints.save(tmp_path / 'only/networks/teacher', variables, card)
  files.write(tmp_path / 'own.safetensors', state_dict, card.to_json())
  files.write(tmp_path / 'foreign.npz', state_dict, {})
  program = tmp_path / 'program.stablehlo'
  export.write_stablehlo(program, card.module(), variables, card.to_json())
  return tmp_path


class TestCard:
  def test_every_field_has_a_value_in_the_example(self):
    for field in dataclasses.fields(Card):
      if field.default is not dataclasses.MISSING:
        assert getattr(EVERY, field.name) != field.default, field.name
      elif field.default_factory is not dataclasses.MISSING:
        assert getattr(EVERY, field.name) != {}, field.name

  def test_round_trip_through_json(self):
    text = json.dumps(EVERY.to_json())
    assert Card.from_json(json.loads(text)) == EVERY
    minimal = Card.from_json(MINIMAL)
    assert Card.from_json(minimal.to_json()) == minimal

  def test_defaults(self):
    card = Card.from_json(MINIMAL)
    assert card == Card('linear', 3, SHAPE)
    assert (card.width, card.branches, card.read_out) == (1, 1, 'softmax')
    assert (card.name, card.class_names, card.scale) == ('network', (), None)
    assert set(card.to_json()) == {
      *MINIMAL,
      *('width', 'branches', 'read_out', 'params', 'macs', 'params_sha256'),
    }

  def test_an_old_key_has_its_new_name(self):
    card = Card.from_json({**MINIMAL, 'stage': 'distil'})
    assert card.phase == 'distil' and 'stage' not in card.to_json()

  def test_unknown_entries_are_kept(self):
    entries = {**MINIMAL, 'mean_iou': 0.5, 'flag': True, 'new': {'a': [1]}}
    card = Card.from_json(entries)
    assert card.results == {'mean_iou': 0.5}
    assert card.other == {'flag': True, 'new': {'a': [1]}}
    assert card.to_json().items() >= entries.items()

  def test_a_card_without_a_model_is_refused(self):
    with pytest.raises(ValueError, match="no entry 'model'"):
      Card.from_json({'width': 1.0})

  def test_settings_equal_those_that_are_read_back(self):
    card = Card('mlp', settings={'features': (3, 4)}, mean=[0.5])
    assert card == Card('mlp', settings={'features': [3, 4]}, mean=(0.5,))

  def test_describes_a_module(self):
    card = Card(
      'mlp', 3, SHAPE, settings={'features': [5]}, compute_dtype='bfloat16'
    )
    module = card.module()
    assert module.features == (5,) and module.num_classes == 3
    assert module.dtype == np.dtype('bfloat16')
    assert card.module(dtype=np.float32).dtype == np.float32
    assert models.read_out_of(card.replace(read_out='clip').module()) == 'clip'

  def test_names_what_differs_from_the_defaults(self):
    assert Card('vgg8').model_name == 'vgg8'
    assert EVERY.model_name == (
      'resnet8 x0.5 (6 branches) (reused classifier) (read by clip)'
    )
    assert checkpoints.model_name('mlp', None, None, None, None) == 'mlp'

  def test_new_results_replace_old_ones(self):
    card = EVERY.with_results({'top1': 0.5, 'nll': 1.0})
    assert card.results == {'top1': 0.5, 'nll': 1.0, 'best_top1_on_test': None}


class TestLoad:
  @pytest.mark.parametrize(
    ('place', 'kind'),
    [
      ('folder', Kind.NETWORK),
      ('file.npz', Kind.NETWORK),
      ('own.safetensors', Kind.STATE_DICT),
      ('foreign.npz', Kind.STATE_DICT),
      ('program.stablehlo', Kind.PROGRAM),
      ('run', None),
      ('nowhere', None),
    ],
  )
  def test_kinds(self, places, place, kind):
    assert checkpoints.kind_of(places / place) is kind

  @pytest.mark.parametrize(
    'place', ['folder', 'file.npz', 'run', 'only', 'own.safetensors']
  )
  def test_reads_variables_and_card(self, places, network, place):
    variables, card = checkpoints.load(str(places / place))
    assert tree.digest(variables) == tree.digest(network.variables)
    assert card == network.card
    assert checkpoints.load_card(places / place) == network.card

  def test_converts_a_state_dict(self, places, network):
    path = places / 'foreign.npz'
    assert checkpoints.load_card(path) is None
    variables, card = checkpoints.load(path, 'linear', SHAPE)
    assert tree.digest(variables) == tree.digest(network.variables)
    assert card == network.card.replace(converted_from='foreign.npz')
    with pytest.raises(ValueError, match='foreign.npz does not name its netw'):
      checkpoints.load(path)

  @pytest.mark.parametrize(
    'place', ['folder', 'run', 'own.safetensors', 'program.stablehlo']
  )
  def test_reads_any_network_as_a_function(self, places, network, place):
    image = np.random.default_rng(1).normal(size=(2, *SHAPE))
    image = image.astype(np.float32)
    predict, card = checkpoints.load_function(places / place)
    head = network.variables['params']['head']
    want = image.reshape(2, -1) @ head['kernel'] + head['bias'][None]
    np.testing.assert_allclose(predict(image), want, rtol=1e-4, atol=1e-5)
    assert card == network.card

  def test_a_program_has_no_variables(self, places, network):
    path = places / 'program.stablehlo'
    assert checkpoints.load_card(path) == network.card
    with pytest.raises(ValueError, match='exported program.* as .npz'):
      checkpoints.load(path)

  def test_no_network(self, tmp_path):
    assert checkpoints.find(tmp_path) is None
    assert checkpoints.load_card(tmp_path / 'nowhere') is None
    for read in (checkpoints.load, checkpoints.load_function):
      with pytest.raises(FileNotFoundError, match='no checkpoint in .*a finis'):
        read(tmp_path)

  @pytest.mark.parametrize('name', ['x.npz', 'x.stablehlo', 'x.safetensors'])
  def test_a_corrupt_file_is_named(self, tmp_path, name):
    (tmp_path / name).write_bytes(b'no archive')
    for read in (checkpoints.load_function, checkpoints.load_card):
      with pytest.raises(ValueError, match=f'{name} is a text file'):
        read(tmp_path / name)

  @pytest.mark.parametrize('text', ['[]', '{}', '{"model": 3', '"text"'])
  def test_a_corrupt_card_is_named(self, places, text):
    (places / 'folder' / native.CARD).write_text(text)
    with pytest.raises(ValueError, match='corrupt, or not a jaxkd checkpoint'):
      checkpoints.load(places / 'folder')


class TestTree:
  def test_round_trip(self, network, tmp_path):
    arrays = {'a->b': network.variables['params']}
    native.save_tree(tmp_path / 'x.npz', arrays)
    assert tree.digest(native.load_tree(tmp_path / 'x.npz')) == tree.digest(
      arrays
    )
