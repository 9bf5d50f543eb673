"""State dicts in wrappers of any kind, and checkpoints with several of them."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxkd import models, tree
from jaxkd.interop import torch as interop
from jaxkd.interop.torch_pickle import Object

NET = dict(name='resnet8', width=0.25)  # it has BatchNorm
DENSE = dict(name='mlp', features=(4,))


@functools.cache
def state_dict(seed=0, name='resnet8', **arguments):
  """A state dict in PyTorch's names and order."""
  arguments = arguments or {'width': 0.25}
  net = models.build(name, 7, **arguments)
  rng = np.random.default_rng(seed)
  variables = jax.tree.map(
    lambda x: rng.random(x.shape, np.float32), shapes(net)
  )
  return interop.to_state_dict(name, variables, **arguments)


shapes = functools.cache(lambda net: tree.shapes(net, (8, 8, 3)))


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
  """Traces equal networks once for all tests."""
  traced = functools.cache(tree.shapes)
  monkeypatch.setattr(
    tree, 'shapes', lambda *args: jax.tree.map(lambda x: x, traced(*args))
  )


def read(checkpoint, weights='', **arguments):
  return interop.convert(
    checkpoint=checkpoint, weights=weights, **(arguments or NET)
  )


def same(checkpoint, expected, weights=''):
  """Returns whether the weights of a checkpoint are those of a state dict."""
  got = read(checkpoint, weights).variables
  return tree.digest(got) == tree.digest(read(expected).variables)


def under(prefix, state=None):
  state = state_dict() if state is None else state
  return {f'{prefix}{key}': x for key, x in state.items()}


def module(state):
  """A module as `torch.save(module)` pickles it."""
  root = Object()
  root.update(_parameters={}, _buffers={}, _modules={}, training=True)
  for name, x in state.items():
    *parents, last = name.split('.')
    node = root
    for parent in parents:
      node = node['_modules'].setdefault(parent, Object())
      for key in ('_parameters', '_buffers', '_modules'):
        node.setdefault(key, {})
    kind = '_buffers' if 'running' in last else '_parameters'
    node[kind][last] = x
  return root


def nested(state):
  """A state dict with a mapping for each module."""
  return tree.from_leaves({k.replace('.', '/'): x for k, x in state.items()})


BOOKKEEPING = {
  'bn1.num_batches_tracked': np.array(7),
  'layer1.0.bn1.num_batches_tracked': np.array(7),
  'total_ops': np.array([3.0]),
  'layer1.0.total_params': np.array([3.0]),
}
PREFIXES = ['module.', '_orig_mod.', 'model.', 'net.', 'student.', 'a.b.']
KEYS = ['state_dict', 'model', 'net', 'student', 'model_state_dict', 'weights']
WRAPPERS = [
  *(functools.partial(under, prefix) for prefix in PREFIXES),
  *((lambda x, key=key: {key: x, 'epoch': 3, 'lr': 0.1}) for key in KEYS),
  lambda x: {'optimizer': {'state': [{'exp_avg': np.ones((4, 4))}]}, 'net': x},
  lambda x: {'nets': [x], 'best': 0.5, 'args': Object()},
]


@settings(max_examples=40)
@given(
  st.lists(st.sampled_from(range(len(WRAPPERS))), max_size=5), st.booleans()
)
def test_wrappers_are_undone_in_any_order_and_depth(order, counted):
  checkpoint = {**state_dict(), **(BOOKKEEPING if counted else {})}
  for i in order:
    flat = all(hasattr(x, 'shape') for x in checkpoint.values())
    if flat or i >= len(PREFIXES):  # names are prefixed before they are nested
      checkpoint = WRAPPERS[i](checkpoint)
  got = read(checkpoint)
  assert tree.digest(got.variables) == tree.digest(read(state_dict()).variables)
  assert got.notes == ()


@pytest.mark.parametrize(
  'part', ['_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module']
)
def test_parts_of_names_are_left_out_inside(part):
  renamed = {
    key.replace('layer1.0', f'layer1.{part}.0'): x
    for key, x in state_dict().items()
  }
  assert same(renamed, state_dict())


def test_a_pickled_module_is_its_state_dict():
  assert same(module(state_dict()), state_dict())
  assert same({'model': module(under('module.')), 'x': 1}, state_dict())
  assert same({'model': nested(state_dict()), 'x': 1}, state_dict())


def test_a_pickled_module_with_further_layers_is_refused():
  more = {**state_dict(), 'layer4.0.conv1.weight': np.ones((2, 2, 3, 3))}
  for checkpoint in (module(more), nested(more), more, {'state_dict': more}):
    with pytest.raises(ValueError, match=r'\+ layer4.0.conv1.weight'):
      read(checkpoint)


@pytest.mark.parametrize('wrap', [module, nested])
def test_a_part_of_a_network_is_no_network(wrap):
  checkpoint = {'model': wrap(state_dict(0, **DENSE))}
  with pytest.raises(ValueError, match=r'\+ hidden1.weight'):
    read(checkpoint, name='linear')


def test_objects_that_refer_to_each_other_end():
  loop = {'state_dict': state_dict()}
  loop['self'] = [loop]
  assert same(loop, state_dict())


def halved(state):
  return {key: x / 2 for key, x in state.items()}


AVERAGE = halved(state_dict())
BOTH = {  # checkpoints with raw and averaged weights
  'timm': {'state_dict': state_dict(), 'state_dict_ema': AVERAGE},
  'facebook': {'model': under('module.'), 'model_ema': AVERAGE},
  'nested': {'x': {'net': state_dict()}, 'y': {'ema': {'module': AVERAGE}}},
  'averaged_model': {
    'model': state_dict(),
    'averaged_model': {
      'n_averaged': np.array(3),
      **under('module.', AVERAGE),
    },
  },
  'by its counter': {
    'a': state_dict(),
    'b': {'n_averaged': np.array(3), **under('module.', AVERAGE)},
  },
  'lightning': {
    'state_dict': under('model.', AVERAGE),
    'current_model_state': under('model.'),
    'averaging_state': {'n_averaged': np.array(3)},
  },
  'callback': {
    'state_dict': under('model.'),
    'callbacks': {'EMACallback{}': {'weights': AVERAGE}},
  },
  'one mapping': {**under('net.'), **under('net_ema.', AVERAGE)},
  'top level': {**state_dict(), 'ema': AVERAGE},
  'modules': {'model': module(state_dict()), 'ema': module(AVERAGE)},
}


@pytest.mark.parametrize('kind', BOTH)
def test_the_average_is_the_default_and_is_said(kind):
  checkpoint = BOTH[kind]
  default = read(checkpoint)
  average = read(checkpoint, 'average')
  assert tree.digest(default.variables) == tree.digest(read(AVERAGE).variables)
  assert tree.digest(average.variables) == tree.digest(default.variables)
  (note,) = default.notes
  assert 'averaged weights' in note
  assert same(checkpoint, state_dict(), 'raw')


@pytest.mark.parametrize('listed', [False, True])
def test_an_average_of_the_parameters_has_the_statistics_of_the_raw(listed):
  average = {k: x for k, x in AVERAGE.items() if 'running' not in k}
  shadow = [*average.values()] if listed else average
  checkpoint = {'model': state_dict(), 'ema': {'decay': 0.9, 'shadow': shadow}}
  assert same(checkpoint, {**state_dict(), **average})
  assert same(checkpoint, state_dict(), 'raw')


def test_a_list_of_other_shapes_is_no_average():
  shadow = [x for k, x in AVERAGE.items() if 'running' not in k][::-1]
  checkpoint = {'model': state_dict(), 'ema': {'shadow': shadow}}
  assert same(checkpoint, state_dict())


@pytest.mark.parametrize('weights', ['average', 'raw'])
def test_weights_that_are_not_there_are_refused(weights):
  checkpoint = {'model_ema' if weights == 'raw' else 'model': state_dict()}
  with pytest.raises(ValueError, match=f"no weights '{weights}' of a resnet8"):
    read(checkpoint, weights)
  assert same(checkpoint, state_dict())


def test_several_networks_are_named_and_chosen():
  other = state_dict(1)
  checkpoints = [
    {'student': state_dict(), 'teacher': other},
    {'state_dict': {**under('student.'), **under('teacher.', other)}},
    {'nets': {'x': {'student': module(under('module.')), 'teacher': other}}},
  ]
  for checkpoint in checkpoints:
    with pytest.raises(ValueError, match=r'student.*teacher.*weights='):
      read(checkpoint)
    assert same(checkpoint, state_dict(), 'student')
    assert same(checkpoint, other, 'teacher')
    with pytest.raises(ValueError, match=r"'tutor' of a resnet8, only: .*stud"):
      read(checkpoint, 'tutor')


def test_a_network_of_other_shapes_or_depth_is_no_choice():
  wide = state_dict(0, 'resnet8', width=0.5)
  deep = state_dict(0, 'resnet14', width=0.25)
  for other in (wide, deep):
    checkpoint = {**under('student.'), **under('teacher.', other)}
    assert same(checkpoint, state_dict())


def test_equal_weights_are_no_choice():
  copies = {k: x.copy() for k, x in state_dict().items()}
  assert same({'last': state_dict(), 'best': copies}, state_dict())


def test_arrays_beside_a_network_are_said():
  beside = {**under('model.'), 'criterion.weight': np.ones(7)}
  got = read({'state_dict': beside})
  assert got.notes == (
    "arrays outside of 'state_dict.model' are left out:"
    ' state_dict.criterion.weight',
  )


def test_moments_of_an_optimizer_are_no_weights():
  moments = {'optimizer': {'exp_avg': halved(state_dict())}}
  assert same({'model': state_dict(), **moments}, state_dict())
  with pytest.raises(ValueError, match='none of its'):
    read(moments)


@pytest.mark.parametrize(
  'dtype', ['int8', 'uint8', 'bool', 'complex64', 'object']
)
def test_numbers_that_are_not_real_are_refused(dtype):
  odd = {k: x.astype(dtype) for k, x in state_dict().items()}
  with pytest.raises(ValueError, match=f'of type {dtype}, .*quantised'):
    read(odd)


def test_another_network_is_told_in_a_line():
  with pytest.raises(ValueError, match='fit the model: none of its 4 arrays'):
    read(state_dict(0, **DENSE))
  few = {k: x for k, x in state_dict().items() if k.startswith('layer1')}
  with pytest.raises(ValueError, match='it has 10 of the 47 names') as error:
    read(few)
  assert len(str(error.value).splitlines()) == 1
