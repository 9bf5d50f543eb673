"""Commands of `jaxkd` in pages and configs are right; so is the citation."""

import inspect
import pathlib
import re
import shlex
from collections.abc import Iterator

import pytest

from jaxkd import __version__, methods
from jaxkd import config as configs
from jaxkd.cli.program import parser_of
from jaxkd.cli.verbs import COMMANDS
from jaxkd.commands import config_files

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])

each_page = pytest.mark.parametrize(
  'page', PAGES, ids=lambda page: str(page.relative_to(ROOT))
)


def own_commands(text: str) -> Iterator[list[str]]:
  """Yields the words after `jaxkd` of each of its commands in lines of code."""
  for line in text.replace('\\\n', ' ').splitlines():
    line = line.strip().removeprefix('$ ')
    if line.startswith('jaxkd '):
      yield shlex.split(line, comments=True)[1:]


def check_own_command(words: list[str]) -> None:
  """Checks a command's arguments, and the config that it names."""
  name, *rest = words
  parser = parser_of(name, COMMANDS[name])
  parser.check_options(rest)
  arguments = parser.parse_intermixed_args(rest)
  if getattr(arguments, 'config', ''):
    config = config_files.load(arguments.config)
    config_files.change(config, arguments.settings)
    configs.check(config)
    method = methods.CATALOG[config.method.name]
    settings = {*config.method} - {'name'}
    assert settings <= set(inspect.signature(method).parameters), words


@each_page
def test_commands_of_jaxkd_can_be_parsed(page, monkeypatch):
  monkeypatch.chdir(ROOT)
  for block in re.findall(r'```\n(.*?)```', page.read_text(), re.DOTALL):
    for words in own_commands(block):
      check_own_command(words)


@pytest.mark.parametrize(
  'path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda path: path.stem
)
def test_the_commands_of_a_config_can_be_parsed(path, monkeypatch, tmp_path):
  """Whatever the current folder is."""
  monkeypatch.chdir(tmp_path)
  text = path.read_text().split('"""')[1]
  # Names in capitals stand for one of several.
  found = [
    words
    for words in own_commands(text)
    if not any(re.search(r':[A-Z]', word) for word in words)
  ]
  assert found or ':STUDENT' in text
  for words in found:
    check_own_command(words)


@pytest.mark.parametrize(
  'line',
  [
    'jaxkd coffee',
    'jaxkd train kd_cifar --workdir=x student.coffee=3',
    'jaxkd train kd_coffee --workdir=x',
    'jaxkd train kd_cifar --coffee=x',
    'jaxkd train kd_cifar --workdir=x method.coffee=3',
  ],
)
def test_a_wrong_command_of_jaxkd_is_reported(line):
  ((words),) = own_commands(f'text\n  $ {line} \\\n\n')
  with pytest.raises((AssertionError, KeyError, ValueError)):
    check_own_command(words)


def test_the_citation_is_that_of_the_readme():
  yaml = pytest.importorskip('yaml')
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert citation['cff-version'] == '1.2.0' and citation['message']
  assert citation['version'] == __version__
  assert citation['authors'] == [{'name': 'The jaxkd Authors'}]
  text = ' '.join(
    (ROOT / 'README.md').read_text().split('## Citation')[1].split()
  )
  assert len(citation['references']) == 3
  for each in citation['references']:
    assert f'*{each["title"]}.*' in text
    assert f'({each["url"]})' in text and str(each['year']) in text
    assert each['type'] and each['authors'][0]['family-names'] in text
