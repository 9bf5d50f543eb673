"""The step in PyTorch that ours is compared with is the same step."""

import jax
import numpy as np
import pytest

from benchmarks import peer, run
from jaxkd import models, tree
from jaxkd.interop.torch import to_state_dict

torch = pytest.importorskip(
  'torch', reason="PyTorch is not installed: pip install 'jaxkd[torch]'"
)

from benchmarks import agreement, torch_networks, torch_step  # noqa: E402

SMALL = run.Sizes(batch=8, image_size=16, num_classes=5, chunk=1)
QUICK = {'resnet8x4', 'vgg8', 'wrn_16_2', 'mobilenet_v2', 'shufflenet_v2'}
NETWORKS = (*QUICK, 'resnet20', 'resnet56', 'resnet32x4', 'vgg13', 'wrn_40_2')


def variables(name):
  """Random numbers in every array, with which maps neither grow nor vanish."""
  rng = np.random.default_rng(0)

  def draw(x):
    if x.ndim == 1:
      return rng.uniform(0.5, 1, x.shape).astype(np.float32)
    scale = (2 / np.prod(x.shape[:-1])) ** 0.5
    return rng.normal(0, scale, x.shape).astype(np.float32)

  return jax.tree.map(draw, tree.shapes(models.build(name, 5), (32, 32, 3)))


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted(NETWORKS)
  ],
)
@pytest.mark.parametrize('side', [16])
def test_networks_give_our_logits(name, side):
  ours, image = (
    variables(name),
    np.random.default_rng(1).random((2, side, side, 3)),
  )
  image = image.astype(np.float32)
  net = torch_networks.build(name, 5)
  state = {k: torch.from_numpy(x) for k, x in to_state_dict(name, ours).items()}
  net.load_state_dict(state, strict=True)
  with torch.inference_mode():
    got = net.eval()(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
  want = jax.jit(models.build(name, 5).apply)(ours, image).logits
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_a_network_without_counterpart_is_refused():
  with pytest.raises(ValueError, match="'mlp' has no counterpart.*VGG"):
    torch_networks.build('mlp', 5)
  with pytest.raises(ValueError, match='padded shortcuts'):
    torch_networks.build('resnet20_a', 5)
  with pytest.raises(KeyError, match="'vgg7'.*vgg"):
    torch_networks.build('vgg7', 5)


@pytest.mark.parametrize('layout', torch_step.LAYOUTS)
def test_views_are_ours(layout):
  task = run.last_task('mlp:mlp', 'kd', SMALL)
  data, view = task.dataset, task.dataset.view
  images = torch_step.Images(data, 'cpu', torch_step.LAYOUTS[layout])
  index = np.arange(8, dtype=np.int32)[::-1].copy()
  numbers = torch_step.view_numbers(index, 3, 0, view)
  assert len({*numbers.tolist()}) > 1
  image, label = images(index, numbers)
  assert image.is_contiguous(memory_format=torch_step.LAYOUTS[layout])
  raw = {k: x[index] for k, x in data.train.arrays.items()}
  want = task.problem.train_view({**raw, 'index': index}, 3, 0, view)
  # A division and a product with the inverse may differ in the last bit.
  got = image.permute(0, 2, 3, 1).numpy()
  np.testing.assert_allclose(got, want['image'], rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(label, want['label'])


def test_batches_are_those_of_the_feed():
  task = run.last_task('mlp:mlp', 'plain', SMALL)
  feed = run.Case('mlp:mlp', 'plain', SMALL)._feed
  steps = feed.steps_per_epoch
  ours = [call.run.args[2][0][0] for e in (0, 1) for call in feed.calls(e, 0)]
  batches = iter(torch_step.Batches(task.dataset, 8, task.seed))
  theirs = [next(batches) for _ in range(2 * steps)]
  for want, (index, _) in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(index, want)
  seen = np.concatenate([index for index, _ in theirs[:steps]])
  assert sorted(seen) == list(range(len(task.dataset.train)))


PAIRS = [
  'resnet8:resnet8',
  *(
    pytest.param(pair, marks=pytest.mark.slow)
    for pair in ('vgg8:mobilenet_v2', 'wrn_16_1:shufflenet_v2', 'vgg8:vgg8')
  ),
]


@pytest.mark.parametrize('pair', PAIRS)
def test_a_step_is_ours(pair):
  cases, differences = peer.cases_of(pair, SMALL)  # checks updates, too
  assert differences['logits'] < 1e-5
  assert differences['loss'] < 1e-5
  student = pair.partition(':')[2]
  state = cases[peer.OURS].state
  ours = to_state_dict(
    student,
    {'params': state.params['student'], 'batch_stats': state.stats['student']},
  )
  for layout in torch_step.LAYOUTS:
    theirs = cases[layout].student.state_dict()
    for name in ours:
      if name.endswith('running_mean'):
        want = np.abs(ours[name]).max()
        got = theirs[name].numpy()
        np.testing.assert_allclose(got, ours[name], atol=1e-3 * want, rtol=1e-3)


@pytest.fixture(scope='module')
def steps():
  """Our step and PyTorch's, with other hyper-parameters where a test asks."""
  task = run.last_task('resnet8:resnet8', 'kd', SMALL)
  ours = run.Case('resnet8:resnet8', 'kd', SMALL)
  ours.compile()
  before = agreement.variables_of(task, ours.state)
  state = jax.tree.map(np.array, ours.state)

  def compared(**changed):
    ours.state = jax.tree.map(jax.numpy.asarray, state)
    ours._calls = ours._endless()
    settings = dict(learning_rate=0.05, momentum=0.9, weight_decay=5e-4)
    theirs = torch_step.TorchSteps(
      task.dataset,
      {'teacher': 'resnet8', 'student': 'resnet8'},
      before,
      torch_step.Batches(task.dataset, 8, task.seed),
      torch_step.Sgd(**{**settings, **changed}),
      layout='channels last',
    )
    return agreement.compare(task, ours, [theirs])[0]

  return compared


def test_another_step_is_noticed(steps):
  steps().check(steps=1)
  with pytest.raises(ValueError, match=r'differs from ours: head by \d'):
    steps(learning_rate=0.06).check(steps=1)


@pytest.mark.parametrize('field', agreement.Differences._fields)
def test_nan_is_a_difference(field):
  differences = agreement.Differences(0.0, 0.0, 0.0, 0.0)
  differences.check(steps=1)
  with pytest.raises(ValueError, match=f'{field} by nan'):
    differences._replace(**{field: float('nan')}).check(steps=1)


def test_updates_after_several_steps_are_not_checked():
  agreement.Differences(0.0, 0.0, 1.0, 1.0).check(steps=50)
  with pytest.raises(ValueError, match='loss'):
    agreement.Differences(0.0, 1.0, 0.0, 0.0).check(steps=50)
