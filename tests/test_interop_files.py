"""Files of other projects: read, written, converted, and used as teachers."""

import pathlib
import re
import sys

import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, tree
from jaxkd.checkpoints import Kind
from jaxkd.commands import convert, evaluate
from jaxkd.interop import files
from jaxkd.interop.torch import from_state_dict, to_state_dict
from jaxkd.runs.run import Run

SUFFIXES = ['.npz', '.safetensors']  # that need no PyTorch
ARRAYS = {
  'fc.weight': np.random.default_rng(0).random((3, 4), np.float32),
  'fc.bias': np.array([np.nan, -0.0, 1e-45], np.float32),
}
CARD = {'model': 'linear', 'class_names': ['ä', 'b', 'c'], 'mean': [0.1]}


@pytest.fixture
def no_torch(monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.usefixtures('no_torch')
def test_round_trip_without_pytorch(tmp_path, suffix):
  path = tmp_path / f'new folder/x{suffix}'
  files.write(path, ARRAYS, CARD)
  content, card = files.read(path)
  assert tree.digest(dict(content)) == tree.digest(ARRAYS)
  assert card == ({} if suffix == '.npz' else CARD)
  assert [x.name for x in path.parent.iterdir()] == [path.name]


def test_round_trip_with_pytorch(tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'x.pth'
  files.write(path, ARRAYS, CARD)
  content, card = files.read(path)
  assert card == CARD
  own = {k: np.array(x) for k, x in content['state_dict'].items()}
  assert tree.digest(own) == tree.digest(ARRAYS)
  by_hand = torch.load(path, weights_only=True)
  assert set(by_hand) == {'state_dict', 'network.json'}


@pytest.mark.usefixtures('no_torch')
def test_without_pytorch_the_message_has_a_remedy(tmp_path):
  with pytest.raises(ImportError, match=r"pip install 'jaxkd\[torch\]'"):
    files.write(tmp_path / 'x.pth', ARRAYS, CARD)


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('share', [0.0, 0.5, 0.98])
def test_a_corrupt_file_is_named(tmp_path, suffix, share):
  path = tmp_path / f'x{suffix}'
  files.write(path, ARRAYS, CARD)
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(ValueError, match=f'x{suffix} is (an empty|.*cut off)'):
    files.read(path)


def test_another_suffix_gets_suggestions(tmp_path):
  with pytest.raises(KeyError, match=r"'.pht'. Did you mean '.pt' or '.pth'"):
    files.write(tmp_path / 'x.pht', ARRAYS, CARD)


# Networks of a trained run, in files of PyTorch


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return str(tmp_path_factory.mktemp('cache'))


DIGITS = dict(  # real data, so that a teacher is better than guessing
  data__name='digits',
  data__image_size=0,
  data__few_shot=10,
  data__settings=dict(),
)


def finish(workdir, cache, **changes):
  experiment = tiny.experiment(cache=cache, **DIGITS, **changes)
  return Run(experiment, workdir).finish()


@pytest.fixture(scope='module')
def teacher(tmp_path_factory, cache):
  """A run that trains a teacher better than guessing."""
  folder = tmp_path_factory.mktemp('teacher') / 'run'
  settings = dict(method=dict(name='teacher'), epochs=5)
  finish(folder, cache, **settings)
  return folder


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_the_command_converts_there_and_back(teacher, tmp_path, suffix, capsys):
  there, back = tmp_path / f'there{suffix}', tmp_path / 'back'
  convert.main(['mlp', str(teacher), str(there)])
  convert.main(['mlp', str(there), str(back)])
  assert 'mlp, 10 classes' in capsys.readouterr().out
  want, _ = checkpoints.load(teacher)
  got, card = checkpoints.load(back)
  assert tree.digest(got) == tree.digest(want)
  assert card.num_classes == 10
  assert card.converted_from == there.name


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['mlp', 'nowhere.npz', 'out'], 'no such file: nowhere.npz'),
    (['mlpp', '{there}', 'out'], "no model 'mlpp'. Did you mean 'mlp'"),
    (['resnet8', '{there}', 'out'], 'state dict of a resnet8 does not fit'),
    (['mlp', '{there}', 'out', '--weights=raw2'], "no weights 'raw2' of a mlp"),
    (['resnet8', '{run}', 'out.npz'], 'is a mlp, not a resnet8'),
    (['mlp', '{run}', 'out.xyz'], "no suffix of a state dict '.xyz'"),
    (['mlp', '{there}', 'out.pth'], 'is a folder or an .npz file'),
    (['mlp', '{page}', 'out', '--mean', '.5', '--std', '.2'], 'is a web page'),
  ],
)
def test_mistakes_end_in_a_message(
  teacher, tmp_path, monkeypatch, arguments, message, capsys
):
  monkeypatch.chdir(tmp_path)
  convert.main(['mlp', str(teacher), 'there.npz'])
  (tmp_path / 'page.pth').write_text('<!DOCTYPE html><html></html>')
  before = set(tmp_path.iterdir())
  places = {'run': teacher, 'there': 'there.npz', 'page': 'page.pth'}
  with pytest.raises(SystemExit, match='1'):
    convert.main([x.format(**places) for x in arguments])
  assert message in capsys.readouterr().err
  assert set(tmp_path.iterdir()) == before


@pytest.fixture(scope='module')
def distilled(teacher, cache, tmp_path_factory):
  """The result of distilling from the run's own teacher."""
  folder = tmp_path_factory.mktemp('distilled') / 'run'
  return finish(folder, cache, teacher__checkpoint=str(teacher))


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_teacher_from_a_file_gives_the_same_student(
  teacher, distilled, cache, tmp_path, suffix, capsys
):
  path = tmp_path / f'teacher{suffix}'
  convert.main(['mlp', str(teacher), str(path)])
  summary = finish(tmp_path / 'run', cache, teacher__checkpoint=str(path))
  networks = summary['networks']
  assert networks['student'] == distilled['networks']['student']
  for key in ('top1', 'nll', 'params', 'macs', 'params_sha256'):
    assert networks['teacher'][key] == distilled['networks']['teacher'][key]
  assert 'teacher, frozen' in capsys.readouterr().out


def test_the_file_of_a_teacher_is_evaluated_and_cannot_be_exchanged(
  teacher, cache, tmp_path
):
  path = tmp_path / 'teacher.safetensors'
  convert.main(['mlp', str(teacher), str(path), '--image-shape', *'881'])
  workdir = tmp_path / 'run'
  finish(workdir, cache, teacher__checkpoint=str(path))
  assert set(evaluate.evaluate(workdir).guides) == {'teacher'}
  (workdir / 'summary.json').unlink()  # as if it had been interrupted
  files.write(path, dict(np.load(_other(teacher, tmp_path))), {})
  with pytest.raises(
    ValueError, match='run of another checkpoint.*\n.*teacher'
  ):
    finish(workdir, cache, teacher__checkpoint=str(path))


def _other(teacher, folder):
  """The teacher's state dict with another bias."""
  state = to_state_dict('mlp', checkpoints.load(teacher)[0])
  state['head.bias'] = state['head.bias'] + 0.01
  files.write(folder / 'other.npz', state, {})
  return folder / 'other.npz'


@pytest.fixture
def averaged(teacher, tmp_path):
  """A file with the teacher's weights as the average, and with others."""
  state = to_state_dict('mlp', checkpoints.load(teacher)[0])
  raw = {f'model.{name}': -x for name, x in state.items()}
  average = {f'ema.module.{name}': x for name, x in state.items()}
  files.write(tmp_path / 'both.npz', {**raw, **average}, {})
  return tmp_path / 'both.npz'


def test_the_command_says_which_weights_it_took(
  teacher, averaged, tmp_path, capsys
):
  convert.main(['mlp', str(averaged), str(tmp_path / 'default')])
  assert "both.npz: its averaged weights 'ema.module' are" in (
    capsys.readouterr().out
  )
  convert.main(['mlp', str(averaged), str(tmp_path / 'raw'), '--weights=raw'])
  want, _ = checkpoints.load(teacher)
  average, card = checkpoints.load(tmp_path / 'default')
  raw, _ = checkpoints.load(tmp_path / 'raw')
  assert tree.digest(average) == tree.digest(want)
  assert 'averaged' in card.notes[0] and len(card.notes) == 1
  negative = raw['params']['head']['bias'] == -want['params']['head']['bias']
  assert negative.all()


def test_a_run_says_which_weights_its_teacher_has(
  distilled, averaged, cache, tmp_path, capsys
):
  settings = dict(teacher__checkpoint=str(averaged))
  summary = finish(tmp_path / 'run', cache, **settings)
  networks = summary['networks']
  assert networks['student'] == distilled['networks']['student']
  said = capsys.readouterr()
  assert 'teacher: both.npz: its averaged weights' in said.out + said.err
  with pytest.raises(ValueError, match='guessing has'):
    finish(tmp_path / 'raw', cache, **settings, teacher__weights='raw')


def test_the_weights_of_a_run_s_teacher_are_found_again(
  teacher, cache, tmp_path
):
  state = to_state_dict('mlp', checkpoints.load(teacher)[0])
  raw = {f'model.{name}': x for name, x in state.items()}
  average = {f'ema.{name}': -x for name, x in state.items()}
  files.write(tmp_path / 'both.npz', {**raw, **average}, {})
  settings = dict(
    teacher__checkpoint=str(tmp_path / 'both.npz'), teacher__weights='raw'
  )
  finish(tmp_path / 'run', cache, epochs=1, **settings)
  assert set(evaluate.evaluate(tmp_path / 'run').guides) == {'teacher'}


def test_a_teacher_that_starts_from_a_file_is_trained(teacher, cache, tmp_path):
  path = tmp_path / 'start.npz'
  convert.main(['mlp', str(teacher), str(path)])
  start = dict(teacher__start=str(path), teacher__epochs=1)
  summary = finish(tmp_path / 'run', cache, **start)
  _, card = checkpoints.load(tmp_path / 'run/networks/teacher')
  result, entries = summary['networks']['teacher'], card.to_json()
  for key in ('params_sha256', 'top1', 'nll'):
    assert result[key] == entries[key]


def test_classes_of_other_names_are_refused(teacher, cache, tmp_path):
  variables, card = checkpoints.load(teacher)
  odd = card.replace(class_names=('ant', 'bee', 'cat'))
  checkpoints.save(tmp_path / 'odd', variables, odd)
  with pytest.raises(ValueError, match=r"ant, bee, cat.* 'same' if they are"):
    finish(tmp_path / 'run', cache, teacher__checkpoint=str(tmp_path / 'odd'))


def test_a_student_can_start_from_a_file(teacher, cache, tmp_path):
  path = tmp_path / 'start.safetensors'
  convert.main(['mlp', str(teacher), str(path)])
  still = dict(
    student__checkpoint=str(path),
    method=dict(name='plain'),
    epochs=1,
    optimizer__learning_rate=0.0,
  )
  finish(tmp_path / 'run', cache, **still)
  want, _ = checkpoints.load(teacher)
  got, _ = checkpoints.load(tmp_path / 'run')
  assert tree.digest(got['params']) == tree.digest(want['params'])


def test_a_teacher_at_chance_stops_before_anything_is_written(
  teacher, cache, tmp_path
):
  variables, _ = checkpoints.load(teacher)
  state = to_state_dict('mlp', variables)
  shuffled = {**state, 'head.weight': np.roll(state['head.weight'], 1, axis=0)}
  path = tmp_path / 'odd.npz'
  files.write(path, shuffled, {})
  with pytest.raises(ValueError, match='guessing has 10.00 %') as error:
    finish(tmp_path / 'run', cache, teacher__checkpoint=str(path))
  for word in ('360 test images', 'odd.npz', 'teacher.checkpoint', 'mean ('):
    assert word in str(error.value)
  assert not (tmp_path / 'run').exists()
  # The same folder can then be used with another file.
  finish(tmp_path / 'run', cache, teacher__checkpoint=str(teacher), epochs=1)


def test_settings_of_a_state_dict_are_the_config_s(cache, tmp_path):
  wide = dict(student__settings=dict(features=(12, 7)), epochs=1)
  finish(tmp_path / 'wide', cache, method=dict(name='plain'), **wide)
  path = tmp_path / 'wide.npz'
  convert.main(['mlp', str(tmp_path / 'wide'), str(path)])
  start = dict(student__checkpoint=str(path), method=dict(name='plain'))
  finish(tmp_path / 'run', cache, **start, **wide)
  _, card = checkpoints.load(tmp_path / 'run')
  assert card.settings == {'features': [12, 7]}
  with pytest.raises(ValueError, match=r'! head.*model \(10, 64'):
    finish(tmp_path / 'other', cache, **start)
  start['student__checkpoint'] = str(tmp_path / 'wide')
  with pytest.raises(
    ValueError, match=r"settings {'features': \[12, 7\]}, the"
  ):
    finish(tmp_path / 'other', cache, **start)


def test_a_file_of_another_number_of_classes_is_refused(
  teacher, cache, tmp_path
):
  variables, _ = checkpoints.load(teacher)
  state = to_state_dict('mlp', variables)
  fewer = {k: x[:2] if k.startswith('head') else x for k, x in state.items()}
  path = tmp_path / 'fewer.npz'
  files.write(path, fewer, {})
  with pytest.raises(ValueError, match='other.* has 2 classes, .* have 10'):
    finish(tmp_path / 'run', cache, teacher__checkpoint=str(path))


def test_the_card_of_an_exported_file_is_kept(tmp_path):
  state = {'head.weight': ARRAYS['fc.weight'], 'head.bias': ARRAYS['fc.bias']}
  path = tmp_path / 'x.safetensors'
  files.write(path, state, {**CARD, 'read_out': 'clip'})
  variables, card = checkpoints.load(path, 'resnet8', (2, 2, 1))
  assert tree.digest(variables) == tree.digest(from_state_dict('linear', state))
  assert card.model == 'linear'
  assert card.class_names == tuple(CARD['class_names'])
  assert checkpoints.load_card(path).read_out == 'clip'


def test_an_npz_file_is_a_state_dict_if_it_has_no_card(teacher, tmp_path):
  checkpoints.save(tmp_path / 'own.npz', *checkpoints.load(teacher))
  assert checkpoints.kind_of(tmp_path / 'own.npz') is Kind.NETWORK
  assert checkpoints.kind_of(pathlib.Path('nowhere.npz')) is None
  files.write(tmp_path / 'its.npz', ARRAYS, {})
  assert checkpoints.kind_of(tmp_path / 'its.npz') is Kind.STATE_DICT


# The normalisation of images


def test_the_card_has_the_normalisation_that_is_stated(teacher, tmp_path):
  """And an evaluation uses it, whatever that of the data set is."""
  there, back = tmp_path / 'there.npz', tmp_path / 'back'
  convert.main(['mlp', str(teacher), str(there)])
  stated = '--image-shape 8 8 1 --mean 0.25 --std 0.5'
  convert.main(['mlp', str(there), str(back), *stated.split()])
  variables, card = checkpoints.load(back)
  assert (card.mean, card.std, card.scale) == ((0.25,), (0.5,), 255.0)

  config = tiny.config(**DIGITS)
  dataset = tiny.experiment(**DIGITS).dataset
  image = (dataset.test.image / 255 - 0.25) / 0.5
  logits = card.module().apply(variables, image.astype(np.float32)).logits
  right = np.argmax(logits, axis=-1) == dataset.test.label
  result = evaluate.evaluate(back, config=config)
  assert result.results['top1'] == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
  ('source', 'stated', 'message'),
  [
    ('there.npz', '--mean 0.1', '--mean and --std need a number.*got 1 and 0'),
    ('there.npz', '--mean 0.1 --std 0', '--std must be positive, got 0'),
    ('run', '--mean 0.1 --std 1', 'a network of jaxkd.*for state dicts'),
  ],
)
def test_a_normalisation_that_cannot_be_is_refused(
  teacher, tmp_path, capsys, source, stated, message
):
  there = tmp_path / 'there.npz'
  convert.main(['mlp', str(teacher), str(there)])
  path = there if source == there.name else teacher
  target = tmp_path / 'back.npz'
  shape = ['--image-shape', '8', '8', '1']
  with pytest.raises(SystemExit, match='1'):
    convert.main(['mlp', str(path), str(target), *shape, *stated.split()])
  assert re.search(message, capsys.readouterr().err)
  assert not target.exists()
