"""State dicts: their names, their mistakes, and both ways of every model."""

import functools

import jax
import numpy as np
import pytest
from model_counts import SHALLOW

from jaxkd import models, reparam, tree
from jaxkd.interop import rules
from jaxkd.interop import torch as interop
from jaxkd.models import resnet_cifar

# One network of each kind of block and each set of names; the others are slow.
QUICK = {*SHALLOW, 'resnet50', 'imagenet_resnet18'}
every = pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted(models.CATALOG)
  ],
)
shapes = functools.cache(tree.shapes)


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
  """Traces equal networks once for all tests."""

  def copied(net, input_shape):
    return jax.tree.map(lambda x: x, shapes(net, input_shape))

  monkeypatch.setattr(tree, 'shapes', copied)


# Settings of networks whose linear layers have a hundred million weights.
NARROW = {
  name: {'width': 1 / 32}
  for name in models.CATALOG
  if name.startswith('imagenet_vgg')
}


def image_shape(name):
  is_large = name.startswith(('vit', 'deit'))
  return (224, 224, 3) if is_large else (32, 32, 3)


@functools.lru_cache(maxsize=4)  # all of them would be gigabytes
def variables(name, num_classes=7, **settings):
  """Random numbers in every array, also where networks start with zeros."""
  net = models.build(name, num_classes, **settings)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.random(x.shape, np.float32),
    shapes(net, image_shape(name)),
  )


@functools.cache
def state_dict(name='resnet8'):
  return interop.to_state_dict(name, variables(name))


class Tensor:
  """The part of a PyTorch tensor that is used, here one on another device."""

  def __init__(self, array):
    self.array, self.shape = array, array.shape

  def detach(self):
    return self

  float = cpu = detach

  def numpy(self):
    return self.array


@every
def test_a_round_trip_is_bit_identical(name):
  settings = NARROW.get(name, {})
  original = variables(name, **settings)
  there = interop.to_state_dict(name, original, **settings)
  back = interop.from_state_dict(name, there, **settings)
  assert tree.digest(back) == tree.digest(original)


@pytest.mark.parametrize(
  'name, dialect',
  [
    ('resnet18', 'timm'),
    ('imagenet_resnet18', 'timm'),
    ('imagenet_resnet18', 'huggingface'),
    ('imagenet_mobilenet_v2', 'timm'),
    ('vit_tiny', 'torchvision'),
    ('vit_tiny', 'huggingface'),
    ('vit_tiny', 'huggingface_memory'),
    ('efficientnet_lite0', 'timm'),
    ('efficientnet_lite0', 'huggingface'),
    ('efficientnet_lite0', 'efficientnet_pytorch'),
    ('convnext_tiny', 'timm'),
    ('convnext_tiny', 'huggingface'),
    ('convnext_tiny', 'authors'),
    ('deit_tiny_distilled', 'huggingface'),
    ('deit_tiny_distilled', 'huggingface_memory'),
  ],
)
def test_other_names_are_recognised(name, dialect):
  original = variables(name)
  there = interop.to_state_dict(name, original, dialect)
  back = interop.from_state_dict(name, there)
  assert tree.digest(back) == tree.digest(original)


@pytest.mark.parametrize(
  'name, settings',
  [
    ('resnet8', {'width': 2}),
    ('shufflenet_v1', {'width': 2}),
    ('mlp', {'features': (8, 6)}),
    ('vit_tiny', {'patch': 32}),
    ('rvt_tiny', {'patch': 4}),
  ],
)
def test_attributes_of_the_network_are_settings(name, settings):
  original = variables(name, **settings)
  there = interop.to_state_dict(name, original, **settings)
  back = interop.from_state_dict(name, there, **settings)
  assert tree.digest(back) == tree.digest(original)


@pytest.mark.parametrize(
  'wrap',
  [
    dict,
    lambda state: {f'module.{k}': x for k, x in state.items()},
    lambda state: {f'module._orig_mod.{k}': x for k, x in state.items()},
    lambda state: {'model': state, 'epoch': 240, 'accuracy': 79.42},
    lambda state: {'state_dict': state, 'opt': object()},
    lambda state: {'model': {f'module.{k}': x for k, x in state.items()}},
    lambda state: {**state, 'bn1.num_batches_tracked': np.array(7)},
    lambda state: {k: Tensor(x) for k, x in state.items()},
    lambda state: {k: x.astype(np.float64) for k, x in state.items()},
    lambda state: dict(reversed(state.items())),
  ],
)
def test_wrappers_of_a_state_dict_are_removed(wrap):
  back = interop.from_state_dict('resnet8', wrap(state_dict()))
  assert tree.digest(back) == tree.digest(variables('resnet8'))
  assert {x.dtype.name for x in jax.tree.leaves(back)} == {'float32'}


def test_arrays_are_copies():
  original = {k: x.copy() for k, x in state_dict().items()}
  back = interop.from_state_dict('resnet8', original)
  there = interop.to_state_dict('resnet8', back)
  for arrays in (original, there):
    for array in arrays.values():
      array += 1
  assert tree.digest(back) == tree.digest(variables('resnet8'))
  frozen = jax.tree.map(jax.numpy.asarray, back)
  for array in interop.to_state_dict('resnet8', frozen).values():
    assert array.flags.writeable


def test_layouts_are_those_of_pytorch():
  ours = variables('resnet8')['params']
  theirs = state_dict()
  conv, head = ours['conv_stem']['kernel'], ours['head']['kernel']
  np.testing.assert_array_equal(theirs['conv1.weight'][3, 1], conv[:, :, 1, 3])
  np.testing.assert_array_equal(theirs['fc.weight'][3], head[:, 3])


def test_heads_of_an_attention_lie_one_after_another():
  ours = variables('vit_tiny')['params']['stage1_block0']['attention']
  theirs = interop.to_state_dict('vit_tiny', variables('vit_tiny'))
  qkv, out = (
    theirs['blocks.0.attn.qkv.weight'],
    theirs['blocks.0.attn.proj.weight'],
  )
  d, head = 192, 64
  # Row 1 d + 2 head + 5 makes entry 5 of the third head's keys.
  np.testing.assert_array_equal(
    qkv[d + 2 * head + 5], ours['qkv']['kernel'][:, 1, 2, 5]
  )
  np.testing.assert_array_equal(
    out[:, 2 * head + 5], ours['out']['kernel'][2, 5]
  )


def test_queries_keys_and_values_can_be_separate_arrays():
  original = variables('vit_tiny')
  ours = original['params']['stage1_block0']['attention']['qkv']
  theirs = interop.to_state_dict('vit_tiny', original, 'huggingface')
  prefix = 'vit.encoder.layer.0.attention.attention.'
  for i, part in enumerate(('query', 'key', 'value')):
    np.testing.assert_array_equal(  # entry 5 of the third head
      theirs[f'{prefix}{part}.weight'][2 * 64 + 5], ours['kernel'][:, i, 2, 5]
    )
    np.testing.assert_array_equal(
      theirs[f'{prefix}{part}.bias'], ours['bias'][i].reshape(-1)
    )
  del theirs[f'{prefix}key.bias']
  with pytest.raises(
    ValueError, match=r'attention\.key\.bias \(192,\): missing'
  ):
    interop.from_state_dict('vit_tiny', theirs)


@pytest.mark.parametrize(
  'name, shape, expected',
  [
    ('a.weight', (4, 2), {'a.weight': (4, 2)}),
    ('a.{x,y}.b', (4, 2), {'a.x.b': (2, 2), 'a.y.b': (2, 2)}),
    ('a.gamma[..., 1, 1]', (4,), {'a.gamma': (4, 1, 1)}),
    ('{x,y}[..., 1]', (4,), {'x': (2, 1), 'y': (2, 1)}),
  ],
)
def test_marks_in_a_name_say_how_an_array_lies_there(name, shape, expected):
  array = np.random.default_rng(0).normal(size=shape)
  entries = rules.spread(name, array)
  assert {k: x.shape for k, x in entries.items()} == expected
  np.testing.assert_array_equal(rules.joined(name, entries), array)


@pytest.mark.parametrize(
  'name, dialect, expected',
  [
    ('resnet8', '', 'layer2.0.downsample.1.running_mean'),
    ('resnet18', '', 'layer2.0.shortcut.1.running_mean'),
    ('resnet18', 'timm', 'layer2.0.downsample.1.running_mean'),
    ('wrn_16_2', '', 'block2.layer.0.convShortcut.weight'),
    ('vgg13', '', 'block4.4.running_var'),
    ('mobilenet_v2', '', 'blocks.6.0.conv.7.bias'),
    ('resnet20_a', '', 'linear.bias'),
    ('imagenet_resnext50', 'torchvision', 'layer1.0.conv2.weight'),
    ('imagenet_mobilenet_v2', '', 'features.1.conv.2.running_var'),
    ('imagenet_mobilenet_v2', '', 'features.17.conv.1.0.weight'),
    ('imagenet_mobilenet_v2', 'timm', 'blocks.5.2.conv_pwl.weight'),
    ('imagenet_mobilenet_v2', 'timm', 'blocks.0.0.bn2.running_var'),
    ('imagenet_mobilenet_v1', '', 'model.13.4.weight'),
    ('shufflenet_v2', '', 'layer1.0.conv5.weight'),
    ('vit_tiny', '', 'blocks.11.mlp.fc2.weight'),
    (
      'vit_tiny',
      'torchvision',
      'encoder.layers.encoder_layer_11.self_attention.in_proj_bias',
    ),
    (
      'imagenet_resnet50',
      'huggingface',
      'resnet.encoder.stages.3.layers.0.layer.2.normalization.running_var',
    ),
    (
      'vit_tiny',
      'huggingface',
      'vit.encoder.layer.11.attention.attention.key.bias',
    ),
    ('vit_tiny', 'huggingface_memory', 'vit.layers.0.attention.o_proj.weight'),
    ('efficientnet_b0', '', 'features.7.0.block.2.fc2.bias'),
    ('efficientnet_b0', 'timm', 'blocks.0.0.conv_pw.weight'),
    ('efficientnet_b0', 'timm', 'blocks.6.0.se.conv_expand.weight'),
    (
      'efficientnet_b0',
      'huggingface',
      'efficientnet.encoder.blocks.15.squeeze_excite.reduce.bias',
    ),
    (
      'efficientnet_lite0',
      'efficientnet_pytorch',
      '_blocks.15._bn2.running_mean',
    ),
    ('convnext_tiny', '', 'features.7.2.layer_scale'),
    ('convnext_tiny', '', 'features.6.1.weight'),
    ('convnext_tiny', 'timm', 'stages.3.downsample.0.bias'),
    (
      'convnext_tiny',
      'huggingface',
      'convnext.encoder.stages.3.downsampling_layer.1.weight',
    ),
    ('convnext_tiny', 'authors', 'downsample_layers.3.1.weight'),
    ('deit_tiny_distilled', '', 'head_dist.weight'),
    (
      'deit_tiny_distilled',
      'huggingface',
      'deit.embeddings.distillation_token',
    ),
    (
      'deit_tiny_distilled',
      'huggingface_memory',
      'deit.layers.11.attention.v_proj.bias',
    ),
    ('rvt_tiny', '', 'transformers.1.blocks.1.mlp.dwconv.weight'),
  ],
)
def test_names_are_those_of_the_originals(name, dialect, expected):
  assert expected in interop.to_state_dict(name, variables(name), dialect)


def test_one_message_has_everything_that_does_not_fit():
  odd = {**state_dict(), 'extra.weight': np.zeros((2, 2))}
  del odd['conv1.weight'], odd['layer1.0.bn1.bias']
  odd['fc.bias'] = np.zeros(8)
  with pytest.raises(ValueError, match='state dict of a resnet8') as error:
    interop.from_state_dict('resnet8', odd)
  lines = str(error.value).splitlines()[1:]
  assert lines == [
    '  - conv1.weight (16, 3, 3, 3): missing',
    '  - layer1.0.bn1.bias (16,): missing',
    '  + extra.weight (2, 2): not in the model',
    '  ! fc.bias: checkpoint (8,), model (7,)',
  ]


def test_a_deeper_network_is_refused():
  with pytest.raises(ValueError, match=r'\+ layer1.1.conv1.weight'):
    interop.from_state_dict('resnet8', state_dict('resnet14'))


@pytest.mark.parametrize(
  'odd, message',
  [
    ({}, 'this one is empty'),
    ({'model': {}}, 'this one is empty'),
    (
      {'fc.weight': np.ones((2, 3)), 'lr': 0.1},
      "this one has 'lr', of type float",
    ),
  ],
)
def test_something_else_than_a_state_dict_is_explained(odd, message):
  with pytest.raises(ValueError, match=message):
    interop.from_state_dict('resnet8', odd)


def test_variables_of_another_network_are_refused():
  with pytest.raises(ValueError, match="'resnet14' does not fit .*\n  - "):
    interop.to_state_dict('resnet14', variables('resnet8'))
  with pytest.raises(KeyError, match="'timmy'. Did you mean 'timm'"):
    interop.to_state_dict('resnet18', variables('resnet18'), 'timmy')


def test_branches_have_to_be_merged_first():
  net = resnet_cifar.ResNetCifar(8, (4, 4, 4, 4), 3, branches=2)
  shapes = tree.shapes(net, (8, 8, 3))
  original = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
  with pytest.raises(ValueError, match='resnet8 has convolutions with branche'):
    interop.to_state_dict('resnet8', original)
  assert not reparam.branched_prefixes(reparam.merge(original)['params'])


def test_a_network_of_ones_own_has_no_names_there():
  for convert in (interop.to_state_dict, interop.from_state_dict):
    with pytest.raises(ValueError, match='mine:Net.*StableHLO|stablehlo'):
      convert('mine:Net', {'params': {}})
