"""The command `jaxkd` for a process that ends with the one that started it.

`python -m jaxkd.cli.attached train ...`: its standard input is a pipe that
nobody writes to. When it closes, the process at its other end is gone, however
it ended; this one then ends as by SIGTERM, so that its run can be resumed.
"""

import os
import signal
import sys
import threading
import time

from jaxkd.cli.program import main

PATIENCE = 20.0  # seconds to end in, before it is ended


def _follow() -> None:
  """Ends this process when its standard input closes."""
  while os.read(sys.stdin.fileno(), 1024):
    pass
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(PATIENCE)
  os._exit(128 + signal.SIGTERM)


if __name__ == '__main__':
  threading.Thread(target=_follow, name='jaxkd-attached', daemon=True).start()
  main()
