"""Run folders of version 0.1: read, refused and resumed as today's are."""

import json
import pathlib

import pytest
import tiny

from jaxkd.disk import write_json
from jaxkd.runs.run import Run
from jaxkd.runs.study import Study

METHOD = dict(name='distil', objective={'kd': 0.9, 'fitnet': {'stage': 'last'}})


def changes(folder):
  return dict(
    cache=str(folder / 'cache'), method=METHOD, student__name='resnet8'
  )


def run_of(folder, name='run', **more):
  made = tiny.experiment(**changes(folder), epochs=1, **more)
  return Run(made, folder / name)


def rename(data, old, new):
  if old in data:
    data[new] = data.pop(old)
  return data


def as_version_0_1(workdir: pathlib.Path) -> None:
  """Gives everything in a run's folder the names that version 0.1 gave."""
  (workdir / 'phases').rename(workdir / 'stages')
  (workdir / 'pretrained.json').rename(workdir / 'given.json')
  for path in workdir.glob('networks/*/network.json'):
    write_json(path, rename(json.loads(path.read_text()), 'phase', 'stage'))
  config = json.loads((workdir / 'config.json').read_text())
  rename(config['method'], 'objective', 'objectives')
  write_json(workdir / 'config.json', config)
  path = workdir / 'summary.json'
  write_json(path, rename(json.loads(path.read_text()), 'phases', 'stages'))
  rows = (workdir / 'metrics.jsonl').read_text()
  (workdir / 'metrics.jsonl').write_text(rows.replace('"phase"', '"stage"'))


@pytest.fixture
def finished(tmp_path):
  """The summary of a finished run, whose folder is then made an old one."""
  run = run_of(tmp_path)
  summary = run.finish()
  as_version_0_1(run.workdir)
  return summary


def test_a_finished_run_is_read(finished, tmp_path):
  run = run_of(tmp_path)
  assert run.summary == finished
  assert run.draw().name == 'gap.png'


def test_an_interrupted_run_is_resumed(finished, tmp_path):
  """Its teacher is trained, its student is not."""
  workdir = tmp_path / 'run'
  for name in ('summary.json', 'stages/distil.json', 'stages/distil.npz'):
    (workdir / name).unlink(missing_ok=True)
  before = (workdir / 'stages/teacher.json').stat().st_mtime_ns
  again = run_of(tmp_path).finish()
  assert (workdir / 'stages/teacher.json').stat().st_mtime_ns == before
  assert (workdir / 'stages/distil.json').exists()
  assert not (workdir / 'phases').exists()
  assert not (workdir / 'pretrained.json').exists()
  digests = [
    {name: x['params_sha256'] for name, x in summary['networks'].items()}
    for summary in (finished, again)
  ]
  assert digests[0] == digests[1]


@pytest.mark.usefixtures('finished')
def test_another_config_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'another config(.|\n)*seed: 0 -> 1'):
    run_of(tmp_path, seed=1)
  path = tmp_path / 'run/given.json'
  write_json(path, {'teacher': 'abc'})
  (tmp_path / 'run/summary.json').unlink()
  with pytest.raises(ValueError, match=r"another checkpoint(.|\n)*'abc'"):
    run_of(tmp_path).finish()


def test_a_study_is_read(tmp_path):
  config = tiny.config(
    **changes(tmp_path), epochs=1, study__seeds=(0,), student__width=1.0
  )
  study = Study(config, tmp_path / 'study')
  networks = study.finish()['recipes']
  as_version_0_1(tmp_path / 'study/runs/run/seed0')
  (tmp_path / 'study/summary.json').unlink()
  assert Study(config, tmp_path / 'study').finish()['recipes'] == networks
