"""The command `jaxkd`."""

from jaxkd.cli.program import main

__all__ = ['main']
