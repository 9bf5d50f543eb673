"""Folders of networks as the Hugging Face hub leaves them.

A folder has `config.json`, the weights in one file or in several with an index,
and often `preprocessor_config.json`. The configuration is either that of the
library transformers (ViT, DeiT, ResNet and ConvNeXt for image classification)
or timm's. It decides which model of the catalogue a network is; the processor's
decides the normalisation of images.
"""

import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxkd import models
from jaxkd.interop import contents

Entries = dict[str, Any]

PROCESSOR = 'preprocessor_config.json'
TASK = 'ForImageClassification'  # in the name of a class of transformers
SCALE = 255.0  # of pixels, unless the processor says otherwise
SIDE = 224  # of images, unless the folder says otherwise


class Family(NamedTuple):
  """A type of networks in transformers.

  defaults: of the entries of a configuration that decide the model.
  models: the entries of models of the catalogue that differ from them.
  settings: further entries, and the setting of the model that has their value;
    with their default there and here.
  task: the end of the name of the class.
  """

  defaults: Entries
  models: Mapping[str, Entries]
  settings: Mapping[str, tuple[str, Any, Any]] = {}
  task: str = TASK


def _transformers(prefix: str, suffix: str = '') -> dict[str, Entries]:
  """Returns the entries of transformers of the usual three sizes."""
  sizes = {'tiny': (192, 3), 'small': (384, 6), 'base': (768, 12)}
  return {
    f'{prefix}_{size}{suffix}': {
      'hidden_size': d,
      'num_attention_heads': heads,
      'intermediate_size': 4 * d,
    }
    for size, (d, heads) in sizes.items()
  }


TRANSFORMER = {
  'num_hidden_layers': 12,
  'hidden_size': 768,
  'num_attention_heads': 12,
  'intermediate_size': 3072,
  'hidden_act': 'gelu',
  'qkv_bias': True,
}
BASIC = {'layer_type': 'basic', 'hidden_sizes': [64, 128, 256, 512]}
EPSILON = {'layer_norm_eps': ('epsilon', 1e-12, 1e-6)}
FAMILIES = {
  'vit': Family(
    TRANSFORMER,
    _transformers('vit'),
    {**EPSILON, 'patch_size': ('patch', 16, 16)},
  ),
  'deit': Family(
    TRANSFORMER,
    _transformers('deit', '_distilled'),
    {**EPSILON, 'patch_size': ('patch', 16, 16)},
    task=f'{TASK}WithTeacher',
  ),
  'resnet': Family(
    {
      'embedding_size': 64,
      'hidden_sizes': [256, 512, 1024, 2048],
      'depths': [3, 4, 6, 3],
      'layer_type': 'bottleneck',
      'hidden_act': 'relu',
      'downsample_in_first_stage': False,
      'downsample_in_bottleneck': False,
    },
    {
      'imagenet_resnet18': {**BASIC, 'depths': [2, 2, 2, 2]},
      'imagenet_resnet34': BASIC,
      'imagenet_resnet50': {},
      'imagenet_resnet101': {'depths': [3, 4, 23, 3]},
    },
  ),
  'convnext': Family(
    {
      'patch_size': 4,
      'hidden_sizes': [96, 192, 384, 768],
      'depths': [3, 3, 9, 3],
      'hidden_act': 'gelu',
    },
    {
      'convnext_tiny': {},
      'convnext_small': {'depths': [3, 3, 27, 3]},
      'convnext_base': {
        'depths': [3, 3, 27, 3],
        'hidden_sizes': [128, 256, 512, 1024],
      },
    },
    {'layer_norm_eps': ('last_epsilon', 1e-12, 1e-6)},
  ),
}
# timm's names of networks of the catalogue, and their settings.
TENSORFLOW = {'padding': 'same', 'epsilon': 1e-3}  # in which they were trained
TIMM: dict[str, tuple[str, Entries]] = {
  **{f'resnet{n}': (f'imagenet_resnet{n}', {}) for n in (18, 34, 50, 101)},
  **{f'convnext_{x}': (f'convnext_{x}', {}) for x in ('tiny', 'small', 'base')},
  'efficientnet_b0': ('efficientnet_b0', {}),
  'tf_efficientnet_b0': ('efficientnet_b0', TENSORFLOW),
  'tf_efficientnet_lite0': ('efficientnet_lite0', {}),
  'resnext50_32x4d': ('imagenet_resnext50', {}),
  **{f'vgg{n}_bn': (f'imagenet_vgg{n}_bn', {}) for n in (11, 13, 16, 19)},
}
# Its arguments that change no array or layer, or that the arrays show anyway.
TIMM_NEUTRAL = (
  *('num_classes', 'in_chans', 'img_size', 'pretrained'),
  *('drop_rate', 'drop_path_rate', 'drop_block_rate', 'proj_drop_rate'),
)
TIMM_TRANSFORMER = re.compile(
  r'((?:vit|deit)_(?:tiny|small|base)(?:_distilled)?)_patch(\d+)_\d+'
)


def snapshot(folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder with the files.

  Args:
    folder: itself, or a `models--...` folder of the hub's cache.
  """
  main = folder / 'refs/main'
  return folder / 'snapshots' / main.read_text() if main.exists() else folder


def read(
  folder: pathlib.Path, read_file: Callable[[pathlib.Path], Any]
) -> tuple[dict[str, Any], Entries]:
  """Reads the arrays of a network, and what is known for its card.

  Args:
    folder: see `snapshot`.
    read_file: reads the state dict of a file.

  Raises:
    FileNotFoundError: a part of the weights is missing.
    ValueError: a file is corrupt; no model of the catalogue is this network.
  """
  entries = card(folder)
  folder = snapshot(folder)
  name = next(x for x in contents.WEIGHTS if (folder / x).exists())
  parts = [name]
  if name.endswith('.json'):
    index = _json(folder / name)
    # Only names in this folder: an index may come from anywhere.
    parts = sorted({pathlib.Path(x).name for x in index['weight_map'].values()})
  absent = [part for part in parts if not (folder / part).exists()]
  if absent:
    raise FileNotFoundError(
      f'{folder} lacks {", ".join(absent)}, of which {name} has a part of the'
      ' weights: get the folder again'
    )
  arrays: dict[str, Any] = {}
  for part in parts:
    arrays |= read_file(folder / part)
  return arrays, entries


def card(folder: pathlib.Path) -> Entries:
  """Returns the entries of the card that a folder decides.

  They are the model with its settings, the number and names of the classes, the
  image shape and, if the folder has them, mean, standard deviation and scale.

  Args:
    folder: see `snapshot`.

  Raises:
    ValueError: no model of the catalogue is this network; the message has the
      entries of the nearest that differ.
  """
  folder = snapshot(folder)
  config = _json(folder / contents.CONFIG)
  if 'architecture' in config:
    return _card_of_timm(folder, config)
  processor = {}
  if (folder / PROCESSOR).exists():
    processor = _json(folder / PROCESSOR)
  model, settings = _model(folder, config)
  labels = config.get('id2label') or {}
  names = [labels[key] for key in sorted(labels, key=int)]
  if names == [f'LABEL_{i}' for i, _ in enumerate(names)]:
    names = []  # nobody has named them
  channels = config.get('num_channels', 3)
  side = processor.get('crop_size') or processor.get('size')
  if not side or config['model_type'] in ('vit', 'deit'):
    side = config.get('image_size', SIDE)
  return {
    'model': model,
    'settings': settings,
    'num_classes': len(labels) or config.get('num_labels', 2),
    'class_names': names,
    'image_shape': [*_sides(side), channels],
    **_normalisation(processor, channels),
  }


def _json(path: pathlib.Path) -> Entries:
  try:
    entries = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path} is corrupt, or no JSON: {error}') from error
  if not isinstance(entries, dict):
    raise ValueError(f'{path} has a {type(entries).__name__}, not an object')
  return entries


def _model(folder: pathlib.Path, config: Entries) -> tuple[str, Entries]:
  """Returns a model of the catalogue and its settings."""
  kind = config.get('model_type', '')
  classes = config.get('architectures') or []
  own = {
    k: x for k, x in FAMILIES.items() if x.models.keys() & models.CATALOG.keys()
  }
  family = own.get(kind)
  if family is None or not any(x.endswith(family.task) for x in classes):
    readable = ', '.join(f'{k} ({x.task})' for k, x in own.items())
    raise ValueError(
      f'{folder} is a {kind or "network"} ({", ".join(classes) or "no class"}),'
      f' which is not in the catalogue; of transformers, these are: {readable}'
    )
  stated = {key: x for key, x in config.items() if x is not None}
  have = {**family.defaults, **stated}
  differing = {
    model: {
      key: value
      for key, value in {**family.defaults, **entries}.items()
      if have[key] != value
    }
    for model, entries in family.models.items()
    if model in models.CATALOG
  }
  nearest = min(differing, key=lambda model: len(differing[model]))
  if differing[nearest]:
    raise ValueError(
      f'{folder} is no model of the catalogue; the nearest, {nearest!r}, has\n'
      + '\n'.join(
        f'  {key} {value!r}, and this network {have[key]!r}'
        for key, value in differing[nearest].items()
      )
    )
  settings = {}
  for key, (name, there, here) in family.settings.items():
    value = config.get(key, there)
    if value != here:
      settings[name] = value
  return nearest, settings


def _card_of_timm(folder: pathlib.Path, config: Entries) -> Entries:
  """Returns the entries of the card of a folder of timm."""
  name = config['architecture'].partition('.')[0]
  data = config.get('pretrained_cfg') or {}
  match = TIMM_TRANSFORMER.fullmatch(name)
  model, settings = TIMM.get(name, ('', {}))
  if match:
    model = match[1]
    settings = {} if match[2] == '16' else {'patch': int(match[2])}
  if model not in models.CATALOG:
    own = ', '.join(x for x in TIMM if TIMM[x][0] in models.CATALOG)
    raise ValueError(
      f'{folder} is a {name!r} of timm, which is not in the catalogue; these'
      f' are: {own}, vit_SIZE_patchN_IMAGE, deit_SIZE_patch16_224'
    )
  arguments = {'global_pool': config.get('global_pool', '')}
  arguments |= config.get('model_args') or {}
  pool = 'token' if match else 'avg'
  odd = {
    key: value
    for key, value in arguments.items()
    if key not in TIMM_NEUTRAL
    and not (key == 'global_pool' and value in ('', pool))
  }
  if odd:
    raise ValueError(
      f'{folder} is a {name!r} of timm with other arguments than that of the'
      f' catalogue: {odd}'
    )
  channels, *sides = data.get('input_size', [3, SIDE, SIDE])
  channels = arguments.get('in_chans', channels)
  mean, std = data.get('mean', ()), data.get('std', ())
  return {
    'model': model,
    'settings': settings,
    'num_classes': config.get('num_classes', data.get('num_classes', 0)),
    'class_names': data.get('label_names') or [],
    'image_shape': [*sides, channels],
    **({'mean': mean, 'std': std, 'scale': SCALE} if mean and std else {}),
  }


def _sides(size: Any) -> tuple[int, int]:
  """Returns height and width of a size in any of the ways of writing it."""
  if isinstance(size, dict):
    side = size.get('shortest_edge', size.get('longest_edge', SIDE))
    return size.get('height', side), size.get('width', side)
  return (size, size) if isinstance(size, int) else (size[0], size[-1])


def _normalisation(processor: Entries, channels: int) -> Entries:
  """Returns mean, std and scale of images, if a processor has them."""
  scale = 1.0
  if processor.get('do_rescale', True):
    # Its factor is 1 / 255 with as many digits as a float has.
    scale = round(1 / processor.get('rescale_factor', 1 / SCALE), 6)
  if processor.get('do_normalize') is False:
    return {'mean': [0.0] * channels, 'std': [1.0] * channels, 'scale': scale}
  mean, std = processor.get('image_mean'), processor.get('image_std')
  if not mean or not std:
    return {}
  return {'mean': mean, 'std': std, 'scale': scale}
