"""The packages of the wheel: jaxkd, and configs/ as jaxkd/configs.

Everything else is in pyproject.toml, which cannot say this.
"""

from setuptools import find_packages, setup

setup(
  packages=[*find_packages(include=['jaxkd', 'jaxkd.*']), 'jaxkd.configs'],
  package_dir={'jaxkd.configs': 'configs'},
)
