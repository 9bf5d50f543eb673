"""A training before and after a change: which numbers are compared."""

import json

import pytest

from benchmarks import check


def log(*losses, top1=0.5):
  rows = [
    {
      'phase': 'distil',
      'epoch': epoch,
      'train/loss': loss,
      'train/grad_norm': 7.0,
      'test/student/top1': top1,
      'test/student/nll': 2.0,
      'images_per_second': 100.0 * loss,
    }
    for epoch, loss in enumerate(losses, start=1)
  ]
  return '\n'.join(map(json.dumps, rows))


def test_differences_are_the_largest_over_epochs():
  one, other = check.records(log(1.0, 2.0)), check.records(log(1.5, 2.25))
  assert check.differences(one, other) == {
    'train/loss': 0.5,
    'test/student/top1': 0.0,
    'test/student/nll': 0.0,
  }


def test_other_epochs_cannot_be_compared():
  one, other = check.records(log(1.0)), check.records(log(1.0, 1.0))
  with pytest.raises(ValueError, match='other metrics'):
    check.differences(one, other)


@pytest.fixture
def trainings(monkeypatch):
  """Nothing is trained; returns what was asked for."""
  asked = []

  def trained(code, settings, devices, name):
    asked.append((code, settings, devices))
    new = code == check.ROOT
    return check.records(log(1.0 + 1e-6 * devices, top1=0.6 if new else 0.5))

  monkeypatch.setattr(check, 'trained', trained)
  monkeypatch.setenv(check.DEVICES, '2')
  return asked


def test_the_change_is_reported_beside_rounding(trainings, monkeypatch, capsys):
  class Folder(check.contextlib.nullcontext):
    def __init__(self, commit):
      super().__init__(check.ROOT if not commit else commit)

  monkeypatch.setattr(check, 'checkout', Folder)
  assert check.main(check.parse(['abc', 'epochs=1'])) == 0
  settings = ['epochs=1']
  assert trainings == [
    ('abc', settings, 2),
    ('abc', settings, 1),
    (check.ROOT, settings, 2),
  ]
  *_, loss, top1, _ = capsys.readouterr().out.splitlines()
  assert loss.split() == ['train/loss', '1.0e-06', '0.0e+00']
  assert top1.split() == ['test/student/top1', '0.0e+00', '1.0e-01']


def test_an_unknown_commit_is_refused(trainings, capsys):
  assert check.main(check.parse(['no-such-commit'])) == 1
  assert "no code of 'no-such-commit'" in capsys.readouterr().err
  assert trainings == []


def test_no_commit_is_this_checkout():
  with check.checkout('') as code:
    assert code == check.ROOT
