"""What mkdocs calls while it builds the site: see `website.pages`."""

import functools
import re
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

from website import figures, gallery, pages


def on_config(config: Any) -> Any:
  """Sets the navigation, and anchors as code hosts name them."""
  config.nav = pages.navigation()
  config.mdx_configs['toc'] = {
    **config.mdx_configs.get('toc', {}),
    'slugify': figures.slug,
  }
  return config


@event_priority(100)  # before the plugins that look at the files
def on_files(files: Files, config: Any) -> Files:
  """Returns the files of the site, with the paths of the checkout."""
  site = {x.src_uri: x for x in files if _of_the_theme(x, config)}
  urls = config.use_directory_urls
  for uri in {**pages.written(), **pages.assets()}:
    site[uri] = File(uri, str(pages.ROOT), config.site_dir, urls)
  for uri, text in pages.generated().items():
    site[uri] = File.generated(config, uri, content=text)
  return Files(list(site.values()))


def _of_the_theme(file: File, config: Any) -> bool:
  source = file.abs_src_path or ''
  return not source.startswith(config.docs_dir)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
  """Links files of code to the pages that show them."""
  markdown = pages.to_pages(markdown)
  up = '../' * page.file.src_uri.count('/')
  parts = re.split(
    r'(^````?.*?^````?$)', markdown, flags=re.DOTALL | re.MULTILINE
  )
  parts[::2] = [_linked_configs(x, up) for x in parts[::2]]
  return ''.join(parts)


def _linked_configs(text: str, up: str) -> str:
  known = _known_configs()
  return re.sub(
    r'(?<!\[)`(configs/\w+\.py)`',
    lambda x: f'[{x[0]}]({up}{x[1]}.md)' if x[1] in known else x[0],
    text,
  )


@functools.cache
def _known_configs() -> frozenset[str]:
  return frozenset(x.path for x in gallery.configs())
