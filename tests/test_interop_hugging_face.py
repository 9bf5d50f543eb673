"""Folders of the Hugging Face hub: configurations, processors and weights."""

import argparse
import functools
import json

import jax
import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, models, tree
from jaxkd.checkpoints import Kind
from jaxkd.cli.arguments import data_config
from jaxkd.commands import convert, evaluate
from jaxkd.interop import files, hugging_face
from jaxkd.interop.torch import to_state_dict
from jaxkd.runs import folder as run_folder
from jaxkd.runs.pretrained import load_pretrained

VIT = {  # as transformers writes it, with all that decides the model
  'architectures': ['ViTForImageClassification'],
  'model_type': 'vit',
  'hidden_size': 192,
  'num_attention_heads': 3,
  'intermediate_size': 768,
  'num_hidden_layers': 12,
  'image_size': 32,
  'layer_norm_eps': 1e-12,
  'id2label': {'1': 'dog', '0': 'cat', '2': 'eel'},
}
RESNET = {
  'architectures': ['ResNetForImageClassification'],
  'model_type': 'resnet',
  'layer_type': 'basic',
  'depths': [2, 2, 2, 2],
  'hidden_sizes': [64, 128, 256, 512],
  'id2label': {'0': 'LABEL_0', '1': 'LABEL_1'},
}
CONVNEXT = {
  'architectures': ['ConvNextForImageClassification'],
  'model_type': 'convnext',
  'depths': None,  # the default
}
LAST = {'last_epsilon': 1e-12}
PROCESSOR = {
  'do_normalize': True,
  'do_rescale': True,
  'image_mean': [0.1, 0.2, 0.3],
  'image_std': [0.4, 0.5, 0.6],
  'rescale_factor': 0.00392156862745098,
  'size': {'height': 48, 'width': 40},
}
TIMM = {
  'architecture': 'resnet18',
  'num_classes': 10,
  'global_pool': 'avg',
  'model_args': {'num_classes': 10, 'in_chans': 3, 'global_pool': 'avg'},
  'pretrained_cfg': {
    'input_size': [3, 288, 288],
    'mean': [0.485, 0.456, 0.406],
    'std': [0.229, 0.224, 0.225],
  },
}


@pytest.fixture(autouse=True, scope='module')
def traced_once():
  """Traces equal networks once for all tests."""
  traced = functools.cache(tree.shapes)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      tree, 'shapes', lambda *args: jax.tree.map(lambda x: x, traced(*args))
    )
    yield


def timm(transformer):
  """Returns the configuration of a transformer."""
  return {
    **TIMM,
    'architecture': transformer,
    'global_pool': 'token',
    'model_args': {},
  }


def folder(path, config, processor=None):
  """Writes a folder without weights that can be read."""
  path.mkdir(exist_ok=True)
  (path / 'config.json').write_text(json.dumps(config))
  (path / 'model.safetensors').write_bytes(b'')
  if processor is not None:
    (path / hugging_face.PROCESSOR).write_text(json.dumps(processor))
  return path


@pytest.fixture(scope='module')
def network():
  """Variables of a ViT for images of 32 x 32, with its dialect's arrays."""
  shapes = tree.shapes(models.build('vit_tiny', 3), (32, 32, 3))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.random(x.shape, np.float32), shapes)
  return variables, to_state_dict('vit_tiny', variables, 'huggingface')


@pytest.fixture(scope='module')
def sharded(network, tmp_path_factory):
  """A folder with two parts of the weights and an index."""
  path = folder(tmp_path_factory.mktemp('hub') / 'vit', VIT, PROCESSOR)
  (path / 'model.safetensors').unlink()
  names = list(network[1])
  parts = {'part1.safetensors': names[::2], 'part2.safetensors': names[1::2]}
  for part, own in parts.items():
    files.write(path / part, {name: network[1][name] for name in own}, {})
  index = {name: part for part, own in parts.items() for name in own}
  (path / 'model.safetensors.index.json').write_text(
    json.dumps({'metadata': {'total_size': 1}, 'weight_map': index})
  )
  return path


def test_a_sharded_folder_is_a_network(sharded, network, tmp_path):
  assert checkpoints.kind_of(sharded) is Kind.STATE_DICT
  variables, card = checkpoints.load(sharded)
  assert tree.digest(variables) == tree.digest(network[0])
  assert card.model == 'vit_tiny' and card.settings == {'epsilon': 1e-12}
  assert card.num_classes == 3 and card.shape == (32, 32, 3)
  assert card.class_names == ('cat', 'dog', 'eel')
  assert (card.mean, card.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
  assert card.scale == 255 and card.converted_from == 'vit'
  assert card.module().epsilon == 1e-12
  before = checkpoints.load_card(sharded)
  assert (
    before.replace(
      params=card.params,
      macs=card.macs,
      params_sha256=card.params_sha256,
      converted_from='vit',
    )
    == card
  )
  # As it lies in the cache of the hub.
  cache = tmp_path / 'models--a--vit'
  (cache / 'refs').mkdir(parents=True)
  (cache / 'refs/main').write_text('12ab')
  (cache / 'snapshots').mkdir()
  (cache / 'snapshots/12ab').symlink_to(sharded)
  assert tree.digest(checkpoints.load(cache).variables) == tree.digest(
    variables
  )


def test_the_command_converts_a_folder(sharded, network, tmp_path, capsys):
  convert.main(['vit_tiny', str(sharded), str(tmp_path / 'x.npz')])
  variables, card = checkpoints.load(tmp_path / 'x.npz')
  assert tree.digest(variables) == tree.digest(network[0])
  assert card.shape == (32, 32, 3) and card.mean == (0.1, 0.2, 0.3)
  with pytest.raises(SystemExit, match='1'):
    convert.main(['vit_small', str(sharded), str(tmp_path / 'y.npz')])
  assert 'vit is a vit_tiny, not a vit_small' in capsys.readouterr().err


def test_the_console_command_takes_a_folder_for_no_run(sharded):
  arguments = argparse.Namespace(
    run=str(sharded), config='kd_digits', settings=['data.few_shot=2']
  )
  assert data_config(arguments).data.few_shot == 2


def test_a_folder_is_a_teacher_whose_settings_are_its_own(sharded, tmp_path):
  part = tmp_path / 'hub'
  part.mkdir()
  for path in sharded.glob('*.safetensors*'):
    (part / path.name).symlink_to(path)
  labels = {str(i): f'LABEL_{i}' for i in range(3)}
  folder(part, {**VIT, 'id2label': labels})
  (part / 'model.safetensors').unlink()
  data = dict(
    data__image_size=32,
    data__settings=dict(num_classes=3, channels=3, train_size=8, test_size=4),
    teacher__checkpoint=str(part),
  )
  experiment = tiny.experiment(**data, teacher__name='vit_tiny')
  assert experiment.models['teacher'].settings == {'epsilon': 1e-12}
  (network,) = load_pretrained(experiment).values()
  assert network.card.settings == {'epsilon': 1e-12}
  with pytest.raises(ValueError, match="model 'vit_tiny', the config asks for"):
    load_pretrained(tiny.experiment(**data))
  second = dict(name='vit_tiny', checkpoint=str(part))
  method = dict(name='distil', teachers=dict(second=second))
  several = tiny.experiment(**data, method=method)
  card = load_pretrained(several)['second'].card
  assert card.settings == {'epsilon': 1e-12}
  # Its config.json is not that of a run.
  results = evaluate.evaluate(part, config=tiny.config(**data)).results
  assert 0 <= results['top1'] <= 1
  with pytest.raises(ValueError, match='is not empty and holds no run'):
    run_folder.check(part, {}, 'run')


def test_a_missing_part_is_named(sharded, tmp_path):
  for name in ('config.json', 'model.safetensors.index.json'):
    (tmp_path / name).write_text((sharded / name).read_text())
  (tmp_path / 'part1.safetensors').symlink_to(sharded / 'part1.safetensors')
  with pytest.raises(FileNotFoundError, match='lacks part2.safetensors'):
    checkpoints.load(tmp_path)
  (tmp_path / 'part2.safetensors').write_bytes(
    b'version https://git-lfs.github.com/spec/v1\n'
  )
  with pytest.raises(ValueError, match='part2.safetensors is a Git LFS point'):
    checkpoints.load(tmp_path)


def test_an_index_names_no_file_elsewhere(tmp_path):
  outside = tmp_path / 'x.safetensors'
  files.write(outside, {'a': np.ones(3, np.float32)}, {})
  path = folder(tmp_path / 'hub', VIT)
  (path / 'model.safetensors').unlink()
  (path / 'model.safetensors.index.json').write_text(
    json.dumps({'weight_map': {'a': '../x.safetensors'}})
  )
  with pytest.raises(FileNotFoundError, match='lacks x.safetensors'):
    checkpoints.load(path)


@pytest.mark.parametrize(
  ('config', 'model', 'settings'),
  [
    (VIT, 'vit_tiny', {'epsilon': 1e-12}),
    ({**VIT, 'layer_norm_eps': 1e-6}, 'vit_tiny', {}),
    (
      {**VIT, 'layer_norm_eps': 1e-6, 'patch_size': 32},
      'vit_tiny',
      {'patch': 32},
    ),
    # An old file has only what differs from the defaults.
    (
      {'architectures': VIT['architectures'], 'model_type': 'vit'},
      'vit_base',
      {'epsilon': 1e-12},
    ),
    (RESNET, 'imagenet_resnet18', {}),
    ({**RESNET, 'depths': [3, 4, 6, 3]}, 'imagenet_resnet34', {}),
    (
      {'architectures': RESNET['architectures'], 'model_type': 'resnet'},
      'imagenet_resnet50',
      {},
    ),
    (
      {
        'architectures': ['DeiTForImageClassificationWithTeacher'],
        'model_type': 'deit',
        'layer_norm_eps': 1e-6,
      },
      'deit_base_distilled',
      {},
    ),
    (CONVNEXT, 'convnext_tiny', LAST),
    ({**CONVNEXT, 'depths': [3, 3, 27, 3]}, 'convnext_small', LAST),
    (TIMM, 'imagenet_resnet18', {}),
    (
      {**TIMM, 'architecture': 'tf_efficientnet_b0.ns_jft_in1k'},
      'efficientnet_b0',
      {'padding': 'same', 'epsilon': 1e-3},
    ),
    (
      timm('vit_small_patch32_224'),
      'vit_small',
      {'patch': 32},
    ),
    (
      timm('deit_tiny_patch16_224.fb_in1k'),
      'deit_tiny',
      {},
    ),
  ],
)
def test_a_configuration_decides_the_model(tmp_path, config, model, settings):
  card = checkpoints.load_card(folder(tmp_path / 'x', config))
  assert (card.model, card.settings) == (model, settings)


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (
      {**VIT, 'num_hidden_layers': 4, 'hidden_act': 'relu'},
      "nearest, 'vit_tiny', has\n  num_hidden_layers 12, and this network 4\n"
      "  hidden_act 'gelu', and this network 'relu'",
    ),
    ({**RESNET, 'depths': [1, 1, 1, 1]}, r'depths \[2, 2, 2, 2\], and this'),
    (
      {**RESNET, 'downsample_in_bottleneck': True},
      'downsample_in_bottleneck False, and this network True',
    ),
    (
      {**VIT, 'architectures': ['ViTModel']},
      r'a vit \(ViTModel\), which is not',
    ),
    ({**VIT, 'model_type': 'swin'}, r'a swin .*these are: vit'),
    (
      {**TIMM, 'architecture': 'resnet26d'},
      "a 'resnet26d' of timm, .*resnet18",
    ),
    (
      {**TIMM, 'model_args': {'global_pool': 'catavgmax'}},
      "arguments .*'catavgmax'",
    ),
    ({**TIMM, 'model_args': {'depth': 3}}, r"other arguments .*{'depth': 3}"),
  ],
)
def test_a_network_that_is_not_in_the_catalogue_is_refused(
  tmp_path, config, message
):
  path = folder(tmp_path / 'x', config)
  for read in (checkpoints.load_card, checkpoints.load):
    with pytest.raises(ValueError, match=message):
      read(path)


@pytest.mark.parametrize(
  ('changes', 'mean', 'scale'),
  [
    ({}, (0.1, 0.2, 0.3), 255),
    ({'rescale_factor': 1 / 127.5}, (0.1, 0.2, 0.3), 127.5),
    ({'do_rescale': False}, (0.1, 0.2, 0.3), 1),
    ({'do_normalize': False}, (0, 0, 0), 255),
    ({'image_mean': None}, (), None),
  ],
)
def test_the_processor_decides_the_normalisation(
  tmp_path, changes, mean, scale
):
  path = folder(tmp_path / 'x', RESNET, {**PROCESSOR, **changes})
  card = checkpoints.load_card(path)
  assert (card.mean, card.scale) == (mean, scale)
  assert card.class_names == ()  # LABEL_0 is no name


@pytest.mark.parametrize(
  ('config', 'size', 'shape'),
  [
    (RESNET, {'size': 100}, (100, 100, 3)),
    (RESNET, {'size': {'shortest_edge': 96}}, (96, 96, 3)),
    (RESNET, {}, (48, 40, 3)),
    (RESNET, {'crop_size': {'height': 64, 'width': 64}}, (64, 64, 3)),
    ({**RESNET, 'num_channels': 1}, {'size': 100}, (100, 100, 1)),
    (VIT, {'size': 100}, (32, 32, 3)),  # its positions are for this size
    (TIMM, {}, (288, 288, 3)),
  ],
)
def test_the_size_of_images(tmp_path, config, size, shape):
  path = folder(tmp_path / 'x', config, {**PROCESSOR, **size})
  assert checkpoints.load_card(path).shape == shape


def test_a_folder_without_weights_of_pytorch_is_explained(tmp_path):
  path = folder(tmp_path / 'x', VIT)
  (path / 'model.safetensors').rename(path / 'tf_model.h5')
  with pytest.raises(ValueError, match='without weights of PyTorch: it needs'):
    checkpoints.load(path)
