"""The command line: what it prints, what it refuses, and its exit status."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
  '--config.student.name=mlp',
  '--config.teacher.name=mlp',
  '--config.epochs=1',
)


def command(*arguments, cache='/nonexistent', config='configs/kd_digits.py'):
  env = {**os.environ, 'JAXKD_CACHE': str(cache), 'JAXKD_DATA': str(cache)}
  done = subprocess.run(
    [sys.executable, '-m', 'jaxkd.main', f'--config={config}', *arguments],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
    env=env,
  )
  assert 'Traceback' not in done.stderr, done.stderr
  return done


def test_a_run_from_start_to_evaluation(tmp_path):
  workdir = f'--workdir={tmp_path / "run"}'
  first = command(workdir, *SMALL, cache=tmp_path)
  assert first.returncode == 0, first.stderr
  assert re.search(r'student +mlp x0.5 +\d+\.\d\d %', first.stdout)
  assert str(tmp_path / 'run/summary.json') in first.stdout
  assert 'distil: teacher, frozen' in first.stdout
  again = command(workdir, *SMALL, cache=tmp_path)
  assert again.returncode == 0 and 'This run is finished' in again.stdout
  assert again.stdout.split('\n\n')[1] == first.stdout.split('\n\n')[2]
  summary = json.loads((tmp_path / 'run/summary.json').read_text())
  top1 = 100 * summary['networks']['student']['top1']
  measured = command(workdir, '--mode=eval')
  assert measured.returncode == 0, measured.stderr
  assert re.search(
    rf'^student, mlp x0.5 +test\ntop-1 +{top1:.2f} %', measured.stdout
  )
  assert re.search(r'\nagreement with teacher +\d+\.\d\d %', measured.stdout)
  assert f'confidence: {tmp_path / "run/reliability.png"}' in measured.stdout
  other = command(workdir, *SMALL[:2], '--config.epochs=2', cache=tmp_path)
  assert other.returncode == 1 and 'epochs: 1 -> 2' in other.stderr


def test_the_graph_is_described_without_data():
  done = command('--describe', config='configs/kd_cifar.py')
  assert done.returncode == 0, done.stderr
  for line in (
    r'Stage 1: teacher \(240 epochs, sgd at 0\.05',
    r'teacher +resnet32x4 +frozen +7,433,860 +1,083\.0 M',
    r'student +resnet8x4 +learns +1,233,540 +177\.1 M',
    r'teacher +-> +student +0\.9 +kd\(temperature=4\.0\)',
    r'labels +-> +student +0\.1 +cross_entropy\(\)',
  ):
    assert re.search(line, done.stdout), (line, done.stdout)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--workdir=x', '--config.epocs=3'], "'epocs'. Did you mean 'epochs'?"),
    (
      ['--workdir=x', '--config.method.temprature=2'],
      "'temprature'. Did you mean 'temperature'?",
    ),
    (
      ['--workdir=x', '--config.method.objective.crd=0.8'],
      'One that is new to it is given as a whole, like',
    ),
    (['--workdir=x', '--config.epochs=three'], '--config.epochs=three'),
    ([], '--workdir=DIR is needed'),
    (
      ['--workdir=x', '--config.data.name=cifar100'],
      r'download cifar-100-python.tar.gz',
    ),
    (['--workdir=/dev/null/run'], 'may you write there?'),
    (['--workdir=/dev/null', '--mode=eval'], 'no run in /dev/null'),
    (['--workdir=x', '--config=no.py'], "No such file or directory: 'no.py'"),
  ],
)
def test_a_mistake_is_explained_on_one_screen(arguments, message):
  done = command(*arguments)
  assert done.returncode == 1
  assert message in done.stderr
  assert done.stderr.count('\n') < 15
  assert not (ROOT / 'x').exists()
