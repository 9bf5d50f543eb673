"""Files that version 0.1 wrote are read, with the same digests and results."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import tiny

from jaxkd import checkpoints, tree
from jaxkd import config as configs
from jaxkd.checkpoints import formats
from jaxkd.commands import evaluate, export, visualize
from jaxkd.disk import write_json
from jaxkd.interop import files
from jaxkd.runs import artifacts, layout
from jaxkd.runs.results import result_table
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study

HERE = pathlib.Path(__file__).parent / 'data' / 'version_0_1'
EXPECTED = json.loads((HERE / 'expected.json').read_text())
NETWORKS = ['plain_student', 'student', 'teacher']


@pytest.fixture
def folder(tmp_path):
  """A copy of all files, to write into."""
  return shutil.copytree(HERE, tmp_path / 'version_0_1')


def experiment(folder, **changes):
  """The experiment of the runs' config."""
  return tiny.experiment(
    cache=str(folder / 'cache'),
    student__settings=dict(features=(6,)),
    teacher__settings=dict(features=(12,)),
    data__settings__train_size=44,
    **{'baseline': True, **changes},
  )


def close(results, expected):
  """Are results equal, up to the order of sums on other devices?"""
  for key, value in expected.items():
    if isinstance(value, dict):
      close(results[key], value)
    elif isinstance(value, float):
      assert results[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key
    else:
      assert results[key] == value, key
  assert set(results) == set(expected)


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_of_a_run(name):
  variables, card = artifacts.load_network(HERE / 'run', name)
  expected = EXPECTED['run'][name]
  assert tree.digest(variables) == card.params_sha256
  assert card.params_sha256 == expected['params_sha256']
  assert card.network == name
  assert card.phase == {
    'student': 'distil',
    'plain_student': 'baseline',
  }.get(name, name)
  assert card.results['nll'] == expected['nll'] and not card.other
  written = json.loads((HERE / f'run/networks/{name}/network.json').read_text())
  written['phase'] = written.pop('stage')
  assert card.to_json() == written


def test_a_run_is_its_student():
  card = checkpoints.load(HERE / 'run').card
  assert card == artifacts.load_network(HERE / 'run').card
  assert checkpoints.load_card(HERE / 'run') == card


def test_a_run_is_evaluated_with_its_guides():
  close(evaluate.evaluate(HERE / 'run').to_json(), EXPECTED['evaluated'])


def test_a_finished_run_is_not_trained_again(folder):
  run = Run(experiment(folder), folder / 'run')
  assert run.summary and run.summary['networks'] == EXPECTED['run']
  assert 'plain_student' in result_table(run.summary)
  assert run.draw() == folder / 'run/gap.png'


def test_an_interrupted_run_is_resumed(folder, capsys):
  workdir = folder / 'interrupted'
  shutil.rmtree(folder / 'cache')  # what is finished is in the run
  before = (workdir / 'stages/teacher.json').stat().st_mtime_ns
  summary = Run(experiment(folder, epochs=1), workdir).finish()
  digests = {n: x['params_sha256'] for n, x in summary['networks'].items()}
  for name in ('teacher', 'plain_student'):
    assert digests[name] == EXPECTED['interrupted'][name]
  assert 'teacher 1/1' not in capsys.readouterr().out
  assert set(summary['phases']) == {'teacher', 'baseline', 'distil'}
  assert (workdir / 'stages/teacher.json').stat().st_mtime_ns == before
  assert (workdir / 'stages/distil.json').exists()
  assert not (workdir / 'phases').exists()
  assert not (workdir / 'pretrained.json').exists()
  assert evaluate.evaluate(workdir).guides


def test_another_config_or_checkpoint_is_refused(folder):
  with pytest.raises(ValueError, match=r'another config(.|\n)*seed: 0 -> 1'):
    Run(experiment(folder, seed=1), folder / 'run')
  write_json(folder / 'interrupted/given.json', {'teacher': 'abc'})
  with pytest.raises(ValueError, match=r"another checkpoint(.|\n)*'abc'"):
    Run(experiment(folder, epochs=1), folder / 'interrupted').finish()


def test_settings_of_a_method_have_their_new_names(folder):
  objective = {'kd': 0.9, 'fitnet': {'stage': 'last'}}
  path = folder / 'run/config.json'
  config = json.loads(path.read_text())
  config['method'] = {'name': 'distil', 'objectives': objective}
  write_json(path, config)
  method = dict(name='distil', objective=objective)
  assert Run(experiment(folder, method=method), folder / 'run').summary
  method['objective'] = {**objective, 'kd': 0.8}
  with pytest.raises(ValueError, match='method.objective.kd: 0.9 -> 0.8'):
    Run(experiment(folder, method=method), folder / 'run')


def test_a_study_of_finished_runs_is_read(folder, tmp_path, monkeypatch):
  config = experiment(folder).config
  config.study.seeds = (0,)
  study = Study(config, tmp_path / 'study')
  study.workdir.mkdir()
  write_json(study.workdir / 'config.json', configs.resolved(config))
  shutil.copytree(folder / 'run', study.workdir / 'runs/run/seed0')
  monkeypatch.setattr('jaxkd.runs.run.train_phase', None)
  networks = study.finish()['recipes']['run']
  for name in NETWORKS:
    for key in ('top1', 'nll'):
      assert networks[name][key] == [EXPECTED['run'][name][key]]


def test_a_cached_teacher_is_used(folder, tmp_path):
  run = Run(experiment(folder, baseline=False), tmp_path / 'new')
  network = run._cached(run.experiment.phases[0])
  assert network is not None
  card = network['teacher'].card
  assert card.params_sha256 == EXPECTED['run']['teacher']['params_sha256']
  mark = json.loads(layout.phase(tmp_path / 'new', 'teacher').read_text())
  assert mark['cached'].startswith(str(folder / 'cache'))


def test_a_network_of_save_pretrained():
  variables, card = checkpoints.load(HERE / 'pretrained')
  assert tree.digest(variables) == EXPECTED['pretrained'] == card.params_sha256
  assert card.branches == 1 and card.read_out == 'softmax'
  assert card.name == 'network' and card.model_name == 'resnet8 x0.25'
  image = np.zeros((2, 8, 8, 1), np.float32)
  outputs = jax.jit(card.module().apply)(variables, image)
  assert outputs.logits.shape == (2, 3)


@pytest.mark.parametrize('suffix', EXPECTED['exported'])
def test_exported_files(suffix):
  for library in formats.FORMATS[suffix].needs:
    pytest.importorskip(library)
  file = HERE / f'exported/student{suffix}'
  close(evaluate.evaluate(file).to_json(), EXPECTED['exported'][suffix])
  card = checkpoints.load_card(file)
  assert card is not None and card.phase == 'distil' and not card.other
  assert card.exported_from == EXPECTED['run']['student']['params_sha256']
  assert card.data_settings['name'] == 'synthetic'


def test_networks_are_exported_to_the_same_files(tmp_path):
  export.export(HERE / 'run', tmp_path / 'student.npz')
  export.export(HERE / 'run', tmp_path / 'student.safetensors')
  new, old = (
    checkpoints.load(place / 'student.npz')
    for place in (tmp_path, HERE / 'exported')
  )
  assert tree.digest(new.variables) == tree.digest(old.variables)
  same = dict(results={}, jaxkd='')
  assert new.card.replace(**same) == old.card.replace(**same)
  new, old = (
    files.read(place / 'student.safetensors')[0]
    for place in (tmp_path, HERE / 'exported')
  )
  assert tree.digest(dict(new)) == tree.digest(dict(old))


def test_pictures_are_drawn(tmp_path):
  file = HERE / 'exported/student.safetensors'
  both = visualize.draw(HERE / 'run', file, tmp_path).students
  assert [x.name for x in both] == [
    'run/student',
    'student.safetensors/student',
  ]
  assert [x.teacher for x in both] == ['mlp', 'mlp of run']
  np.testing.assert_allclose(both[0].difference, both[1].difference, atol=1e-5)
