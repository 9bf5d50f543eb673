"""The configs of a study's runs, from its recipes and its seeds."""

from collections.abc import Mapping
from typing import Any

from jaxkd import config as configs
from jaxkd.catalog import lookup
from jaxkd.config import Config


def expand(config: Config) -> dict[str, list[Config]]:
  """Returns the configs of a study's runs: for each recipe, one for each seed.

  Raises:
    KeyError: `only` names an unknown recipe, with suggestions.
    ValueError: a recipe that is not a tree of settings.
  """
  whole = config.to_dict()
  study = whole.pop('study')
  seeds = study['seeds'] or (config.seed,)
  recipes, configs_by_recipe = study['recipes'] or {'run': {}}, {}
  for name in study['only'] or recipes:
    recipe = lookup('recipe', recipes, name)
    if not isinstance(recipe, Mapping):
      raise ValueError(
        f'study.recipes.{name} must be a tree of settings such as'
        f' {dict(teacher=dict(loss="brier"))}, got {recipe!r}'
      )
    configs_by_recipe[name] = []
    for seed in seeds:
      settings = _merged(whole, recipe)
      for key in study['vary']:
        settings = _merged(settings, nested(key, seed))
      settings = configs.of_tree({**settings, 'study': _one_run()})
      configs_by_recipe[name].append(settings)
  return configs_by_recipe


def _one_run() -> dict[str, Any]:
  """Returns the section `study` of a config that is one run."""
  return configs.default().study.to_dict()


def _merged(
  tree: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns a tree with some values changed.

  Changes of the method's settings are added to them, unless they name another
  method: this one then has no other settings than those of the changes.
  """
  merged = dict(tree)
  for key, value in changes.items():
    old = merged.get(key)
    if not isinstance(value, Mapping) or not isinstance(old, Mapping):
      merged[key] = value
    elif key == 'method' and value.get('name', old['name']) != old['name']:
      merged[key] = dict(value)
    else:
      merged[key] = _merged(old, value)
  return merged


def nested(key: str, value: Any) -> dict[str, Any]:
  """Returns the tree of one setting, by its name with dots."""
  *parents, last = key.split('.')
  tree: dict[str, Any] = {last: value}
  for parent in reversed(parents):
    tree = {parent: tree}
  return tree
