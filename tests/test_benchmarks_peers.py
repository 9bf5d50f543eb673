"""Ratios to PyTorch's step: the table, its file, and what is refused."""

import importlib.util
import json
import re

import jax
import pytest

from benchmarks import peer, peers, run

SIZES = run.Sizes(batch=8, image_size=32, num_classes=100, chunk=1)


def row(pair='vgg13:vgg8', clock='wall', ratio=1.5):
  """A result, as `benchmarks.peer` prints it."""
  times = {
    'jaxkd': [ratio * 20.0] * 3,
    'channels first': [30.0] * 3,
    'channels last': [20.0] * 3,
  }
  return {
    'pair': pair,
    'clock': clock,
    **peer.ratios(times),
    'gflop': 1.0,
    'peak_gflops': 100.0,
    'compile_seconds': 4.0,
    'batch': 64,
    'cores': 2,
    'processor': 'CPU',
    'commit': 'abcdef0123456789',
    'jax': '1',
    'torch': '2',
  }


def parse(*arguments):
  return peers.parse(['--peer', *arguments])


def test_ratios_are_of_rounds_and_to_the_faster_layout():
  got = peer.ratios(
    {
      'jaxkd': [10.0, 30.0, 10.0],
      'channels first': [10.0, 10.0, 10.0],
      'channels last': [5.0, 20.0, 4.0],
      'channels last, compiled': [1.0, 2.0, 1.0],
    }
  )
  assert got['peer'] == 'channels last'
  assert got['ratio'] == 2.0
  assert got['over'] == {
    'channels first': [1.0, 1.0, 3.0],
    'channels last': [2.0, 1.5, 2.5],
    'channels last, compiled': [10.0, 10.0, 15.0],
  }
  assert got['ms']['jaxkd'] == [10.0, 10.0, 30.0]
  assert got['rounds'] == 3


@pytest.mark.parametrize(
  'pair, teacher, student',
  [
    # MACs of one image, as the literature counts them.
    ('resnet8x4:resnet8x4', 177.1e6, 177.1e6),
    ('vgg13:vgg8', 285.2e6, 96.4e6),
  ],
)
def test_the_student_counts_three_times(pair, teacher, student):
  want = 2e-9 * 8 * (teacher + 3 * student)
  assert peer.gflop(pair, SIZES) == pytest.approx(want, rel=2e-3)


@pytest.fixture
def fake(monkeypatch):
  """Nothing is measured; returns the pairs and clocks that were asked for."""
  asked = []

  def measured(pair, clock, arguments):
    asked.append((pair, clock))
    if pair == 'a:b':
      raise ValueError('a:b by the wall clock: no model')
    return row(pair, clock)

  monkeypatch.setattr(peers, 'measured', measured)
  monkeypatch.setattr(peer, 'check_torch', lambda: None)
  versions = dict.fromkeys(peers.VERSIONS, '1')
  monkeypatch.setattr(peers.importlib.metadata, 'version', versions.get)
  return asked


def test_all_pairs_and_clocks_by_default(fake, capsys):
  assert peers.main(parse('--json')) == 0
  assert fake == [(p, c) for p in peers.PAIRS for c in ('wall', 'cpu')]
  *above, last = capsys.readouterr().out.splitlines()
  results = json.loads(last)['results']
  assert [(x['pair'], x['clock']) for x in results] == fake
  assert above[0].split()[:2] == ['pair', 'clock']
  assert re.sub(r'\s+', ' ', above[1]) == (
    'resnet32x4:resnet8x4 wall 30 30 20 1.50 1.50 to 1.50 10 4'
  )
  assert 'median of 3 rounds' in above[-1] and 'abcdef01' in above[-1]


def test_a_repeated_command_continues(fake, tmp_path, capsys):
  path = tmp_path / 'new' / 'peer.jsonl'
  flags = [f'--results={path}', '--clock=wall']
  assert peers.main(parse('--pair=vgg13:vgg8', *flags)) == 0
  first = capsys.readouterr().out
  with path.open('a') as file:
    file.write('{"key": "cut off')
  assert peers.main(parse('--pair=vgg13:vgg8', *flags)) == 0
  assert fake == [('vgg13:vgg8', 'wall')]
  assert capsys.readouterr().out == first


@pytest.mark.parametrize(
  'change', ['--batch=32', '--rounds=9', '--clock=cpu', '--compile', 'code']
)
def test_results_of_something_else_are_not_used(
  change, fake, tmp_path, monkeypatch
):
  flags = ['--pair=vgg13:vgg8', f'--results={tmp_path / "x"}', '--clock=wall']
  peers.main(parse(*flags))
  if change == 'code':
    monkeypatch.setattr(peers, 'code_digest', lambda: 'other')
    peers.main(parse(*flags))
  else:
    peers.main(parse(*flags, change))
  assert len(fake) == 2


def test_a_failure_does_not_stop_the_others(fake, tmp_path, capsys):
  path = tmp_path / 'peer.jsonl'
  flags = f'--pair=a:b,vgg13:vgg8 --clock=wall --results={path}'.split()
  assert peers.main(parse(*flags)) == 1
  captured = capsys.readouterr()
  assert 'benchmarks: a:b by the wall clock: no model' in captured.err
  assert 'vgg13:vgg8' in captured.out
  assert len(path.read_text().splitlines()) == 1


def test_a_pair_is_measured_in_a_process_of_its_own(monkeypatch):
  def start(command, **settings):
    assert command[1:3] == ['-m', 'benchmarks.peer']
    arguments = peer.parse(command[3:])
    assert (arguments.pair, arguments.clock) == ('a:b', 'cpu')
    assert (arguments.batch, arguments.compile) == (32, True)
    failed = arguments.rounds == 1
    errors = 'Warning\nbenchmarks: no model\n' if failed else ''
    output = 'some line\n{"ratio": 1.0}\n'
    return peers.subprocess.CompletedProcess(command, failed, output, errors)

  monkeypatch.setattr(peers.subprocess, 'run', start)
  flags = ['--batch=32', '--compile']
  assert peers.measured('a:b', 'cpu', parse(*flags)) == {'ratio': 1.0}
  with pytest.raises(ValueError, match='^a:b by the cpu clock: no model$'):
    peers.measured('a:b', 'cpu', parse(*flags, '--rounds=1'))


def test_the_digest_is_of_the_code(monkeypatch, tmp_path):
  before = peers.code_digest()
  assert before == peers.code_digest()
  monkeypatch.setattr(peers, 'ROOT', tmp_path)
  assert peers.code_digest() != before


def test_without_pytorch_nothing_is_measured(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert peers.main(parse()) == 1
  assert "pip install 'jaxkd[torch]'" in capsys.readouterr().err


def test_an_unknown_clock_is_refused(capsys):
  with pytest.raises(SystemExit):
    parse('--clock=sun')
  assert "must be 'wall', 'cpu' or both, got 'sun'" in capsys.readouterr().err


def test_systems_without_pinning_are_told_the_other_clock(monkeypatch):
  devices = jax.config.jax_num_cpu_devices
  monkeypatch.delattr(peer.os, 'sched_setaffinity', raising=False)
  with pytest.raises(ValueError, match='use --clock=wall'):
    peer.pin()
  assert jax.config.jax_num_cpu_devices == devices
