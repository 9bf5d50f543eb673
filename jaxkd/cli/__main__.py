"""`python -m jaxkd.cli`, where the command `jaxkd` is not on the path."""

from jaxkd.cli import main

main()
