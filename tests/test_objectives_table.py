"""The table of the catalogue: its columns, and that the README has it."""

import functools
import inspect
import pathlib
import runpy
import sys

import jax.numpy as jnp
import pytest

from jaxkd import objectives
from jaxkd.objectives import table
from jaxkd.objectives.base import Objective, pointwise

README = pathlib.Path(__file__).parents[1] / 'docs' / 'objectives.md'
START, END = table.MARKS

each = pytest.mark.parametrize('name', sorted(objectives.CATALOG))


@pytest.fixture(scope='module', autouse=True)
def table_once():
  """Traces the catalogue once for all tests."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(table, 'markdown', functools.cache(table.markdown))
    yield


def test_the_readme_has_the_table():
  text = README.read_text()
  assert text == table.placed(text), (
    'the catalogue is another one than in the README, which'
    ' python -m jaxkd.objectives docs/objectives.md brings up to date'
  )


@each
def test_a_module_begins_with_a_title_and_an_address(name):
  paper = table.paper(name)
  assert paper.title and paper.authors
  assert paper.address.startswith('https://')


def test_a_module_without_a_paper_is_refused(monkeypatch):
  module = inspect.getmodule(objectives.kd)
  monkeypatch.setattr(module, '__doc__', 'KD.\n\nhttps://arxiv.org')
  with pytest.raises(ValueError, match="'kd' must begin with 'Title.* got 'KD"):
    table.paper('kd')


def test_taps_are_the_outputs_that_the_loss_depends_on():
  def loss(learner, guide, batch):
    del batch
    unused = jnp.sum(learner.taps['stage1'] + guide.taps['stage1'])
    assert unused.shape == () and len(guide.logits)
    return (
      jnp.mean(learner.taps['pooled']) * guide.norms['stage2_pre']['bias'][0]
    )

  assert table.tapped(pointwise('some', loss)) == [
    'student/taps/pooled',
    'teacher/norms/stage2_pre/bias',
  ]


def test_outputs_that_only_memory_depends_on_are_no_taps():
  def init(key, **_):
    return {}, {'mean': jnp.zeros(())}

  def loss(params, memory, *, learner, guide, **_):
    value = jnp.mean(learner.logits)
    return value, {'mean': memory['mean'] + jnp.mean(guide.logits)}

  objective = Objective('some', {}, init, loss)
  assert table.tapped(objective) == ['student/logits']
  assert table.added(objective) == '4 bytes'


@pytest.mark.parametrize(
  ('name', 'names'),
  [
    ('kd', {'student/logits', 'teacher/logits'}),
    ('cross_entropy', {'student/logits', 'batch/label'}),
    ('fitnet', {'student/taps/stage2', 'teacher/taps/stage2'}),
    (
      'crd',
      {
        'student/taps/pooled',
        'teacher/taps/pooled',
        'batch/index',
        'batch/label',
      },
    ),
  ],
)
def test_taps_of_the_catalogue(name, names):
  assert set(table.tapped(objectives.make(name))) == names


# As counted in the published codes (mdistiller) of this pair; memory is two
# rows of 128 numbers and a label for each of 50,000 examples.
@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('kd', '–'),
    ('fitnet', '16,768 parameters'),
    ('ofd', '86,912 parameters'),
    ('crd', f'65,792 parameters, {50_000 * (2 * 128 + 1) * 4 / 1e6:.1f} MB'),
    ('ctkd', '1 parameter'),
  ],
)
def test_parameters_and_memory_are_counted(name, words):
  assert table.added(objectives.make(name)) == words


def test_a_row_has_the_paper_the_taps_and_both_weights():
  lines = table.markdown().splitlines()
  rows = {line.split('`')[1]: line for line in lines if line.startswith('| `')}
  assert list(rows) == sorted(objectives.CATALOG)
  assert rows['kd'] == (
    '| `kd` | Hinton distillation: [Hinton, Vinyals, Dean, 2015]'
    '(https://arxiv.org/abs/1503.02531) | logits | – | 0.9 (labels 0.1) |'
  )
  assert '| pooled | – | 30,000 |' in rows['pkt']
  assert '| as the wrapped one; labels | – | – |' in rows['revised']
  assert "stage3_pre; teacher's BatchNorm |" in rows['ofd']


def test_the_rest_of_a_page_is_unchanged():
  page = f'# Page\n{START}old\n{END}more\n'
  new = table.placed(page)
  assert new == f'# Page\n{START}\n{table.markdown()}\n{END}more\n'
  assert table.placed(new) == new


@pytest.mark.parametrize('page', ['', START, END + START, START + START + END])
def test_a_page_without_marks_is_refused(page):
  with pytest.raises(
    ValueError, match='<!-- objectives -->.*once, in this order'
  ):
    table.placed(page)


def test_the_command_prints_or_writes(monkeypatch, capsys, tmp_path):
  page = tmp_path / 'page.md'
  page.write_text(START + END)
  for arguments in ([], [str(page)]):
    monkeypatch.setattr(sys, 'argv', ['objectives', *arguments])
    runpy.run_module('jaxkd.objectives', run_name='__main__')
  assert capsys.readouterr().out == table.markdown()
  assert page.read_text() == f'{START}\n{table.markdown()}\n{END}'
