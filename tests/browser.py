"""Headless Chromium: what a page does and looks like, without a driver."""

import html
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
FLAGS = (
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--virtual-time-budget=3000',
)
# In front of everything else: what goes wrong, and after loading the sizes.
PROBE = """<script>
const wrong = [];
addEventListener('error', (event) => wrong.push(
  event.message || `not loaded: ${event.target.outerHTML}`), true);
addEventListener('unhandledrejection',
  (event) => wrong.push(`${event.reason}`));
console.error = console.warn = (...words) => wrong.push(words.join(' '));
addEventListener('load', () => {
  for (const each of document.querySelectorAll('details')) each.open = true;
  const size = (node) => {
    const box = node.getBoundingClientRect();
    return [box.width, box.height];
  };
  const tips = [...document.querySelectorAll('svg[data-chart]')].map((svg) => {
    const box = svg.getBoundingClientRect();
    svg.dispatchEvent(new PointerEvent('pointermove',
      { clientX: box.right - 1, clientY: box.top + 20 }));
    return svg.parentNode.querySelector('.tip')?.textContent ?? '';
  });
  const seen = {
    wrong, tips,
    width: document.documentElement.scrollWidth,
    wide: [...document.querySelectorAll('body *')].filter((x) =>
      x.getBoundingClientRect().right > innerWidth + 1 && !x.closest('.scroll')
      && !x.closest('svg')).map((x) => x.outerHTML.slice(0, 200)),
    window: innerWidth,
    images: [...document.images].map((x) => [x.naturalWidth, ...size(x)]),
    drawings: [...document.querySelectorAll('svg')]
      .filter((x) => !x.ownerSVGElement).map(size),
    requests: performance.getEntriesByType('resource').map((x) => x.name)
      .filter((name) => !name.startsWith('data:')),
    title: document.title,
    scripts: document.scripts.length,
  };
  parent.postMessage(JSON.stringify(seen), '*');
});
</script>"""
# A window is 500 pixels wide at least, and a frame is as narrow as a phone.
FRAME = """<!doctype html><body><script>
addEventListener('message', (event) => {
  const place = document.createElement('textarea');
  place.id = 'probe';
  place.textContent = event.data;
  document.body.append(place);
});
</script><iframe src="page.html" width="WIDTH" height="800"
style="border: 0"></iframe>"""


def path() -> str:
  """Returns the program, '' if there is none."""
  return next(filter(None, map(shutil.which, NAMES)), '')


def probe(page: pathlib.Path, width: int) -> dict[str, Any]:
  """Opens a page in a window of some width, and returns what PROBE has seen."""
  text = page.read_text(encoding='utf-8')
  assert text.count('<head>') == 1
  with tempfile.TemporaryDirectory(prefix='jaxkd-') as folder:
    copy, frame = (
      pathlib.Path(folder) / f'{x}.html' for x in ('page', 'frame')
    )
    copy.write_text(text.replace('<head>', f'<head>{PROBE}'), encoding='utf-8')
    frame.write_text(FRAME.replace('WIDTH', str(width)))
    done = subprocess.run(
      [
        *(path(), *FLAGS, f'--user-data-dir={folder}/profile'),
        *('--window-size=1400,900', '--dump-dom', frame.as_uri()),
      ],
      capture_output=True,
      text=True,
      check=True,
      timeout=120,
    )
  match = re.search(r'<textarea id="probe">(.*?)</textarea>', done.stdout, re.S)
  assert match, done.stdout[:2000]
  return json.loads(html.unescape(match[1]))
