"""Notebooks are kept with their outputs, and run."""

import json
import re

import pytest

from notebooks.execute import FOLDER, NOTEBOOKS, execute

SIZE = 300_000  # bytes
TOTAL = 1_200_000


def name(path):
  return path.stem


def cells(path, kind):
  notebook = json.loads(path.read_text())
  return [x for x in notebook['cells'] if x['cell_type'] == kind]


def source(cell):
  return ''.join(cell['source'])


def outputs(path):
  """Yields (type, text) of each output; the text of a picture is ''."""
  for cell in cells(path, 'code'):
    for output in cell['outputs']:
      data = output.get('data', {})
      text = output.get('text', data.get('text/plain', ''))
      yield output.get('name', output['output_type']), ''.join(text)


def test_all_are_listed():
  assert len(NOTEBOOKS) == 6
  page = (FOLDER / 'README.md').read_text()
  listed = re.findall(r'^\| \[.*?\]\((.*?)\)', page, re.MULTILINE)
  assert listed == [path.name for path in NOTEBOOKS]


def test_are_small():
  assert sum(path.stat().st_size for path in NOTEBOOKS) < TOTAL


@pytest.mark.parametrize('path', NOTEBOOKS, ids=name)
class TestEach:
  def test_is_small(self, path):
    assert path.stat().st_size < SIZE

  def test_was_run_from_top_to_bottom(self, path):
    counts = [cell['execution_count'] for cell in cells(path, 'code')]
    assert counts == list(range(1, len(counts) + 1))

  def test_begins_with_the_installation(self, path):
    first = source(cells(path, 'code')[0])
    assert "find_spec('jaxkd') is None" in first and '%pip install' in first

  def test_explains_itself(self, path):
    texts = cells(path, 'markdown')
    assert source(texts[0]).startswith('# ')
    assert len(texts) >= len(cells(path, 'code')) // 2

  def test_shows_a_figure_and_text(self, path):
    kinds = {kind for kind, _ in outputs(path)}
    assert 'stdout' in kinds
    assert kinds & {'display_data', 'execute_result'}

  def test_has_no_errors_or_warnings(self, path):
    assert {kind for kind, _ in outputs(path)} <= {
      'stdout',
      'display_data',
      'execute_result',
    }

  def test_outputs_are_for_readers(self, path):
    for kind, text in outputs(path):
      assert not re.search(r'(^|[\s\'"])/\w+/|\x1b|\r| at 0x|it/s\]', text), (
        text
      )
      if kind == 'execute_result':  # of a last line that is not for its value
        assert not re.match(r'[\[<]', text) or 'Image' in text, text

  def test_links_exist(self, path):
    for cell in cells(path, 'markdown'):
      text = source(cell)
      for link in re.findall(r'\]\((?!https?:)([^)#]+)', text):
        assert (FOLDER / link).exists(), link
      for page in re.findall(r'`((?:docs|configs)/[\w./]+)`', text):
        assert (FOLDER.parent / page).exists(), page


@pytest.mark.slow  # a minute or more each
@pytest.mark.parametrize('path', NOTEBOOKS, ids=name)
def test_runs(path, tmp_path, monkeypatch):
  # conftest's flags are for tiny programs; a real training needs fast code.
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  for module in ('nbclient', 'ipykernel'):
    pytest.importorskip(module, reason="needs pip install '.[notebooks]'")
  shown = len(list(outputs(path)))
  notebook = execute(path, str(tmp_path))
  produced = [
    output
    for cell in notebook.cells
    if cell.cell_type == 'code'
    for output in cell.outputs
  ]
  assert len(produced) == shown
  assert all(output.get('name') != 'stderr' for output in produced)
  written = {p.name for p in tmp_path.iterdir()}
  assert 'runs' in written
