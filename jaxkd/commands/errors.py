"""The messages of mistakes that a user can correct."""

import errno

MISTAKES = (
  AttributeError,
  ImportError,  # of a library that an extra would install
  KeyError,
  OSError,
  TypeError,
  ValueError,
)


def explain(error: BaseException, parsed: bool = True) -> str:
  """Returns an error's message, with a remedy where it has none.

  Args:
    error: one of `MISTAKES`.
    parsed: False if the command line could not be parsed.
  """
  if isinstance(error, KeyError | TypeError) and not parsed:
    return (
      f'--config... names a section that the config does not have: {error}. A'
      ' new one is set as a whole, like'
      " --config.method.objective=\"{'kd': 0.9, 'crd': 0.8}\""
    )
  if not isinstance(error, OSError) or error.errno is None:
    return str(error)
  if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
    return (
      f'{error}. Saved files are intact: free some space, and the same command'
      ' resumes the run'
    )
  return f'{error}. Check the path and its permissions'
