"""Facts about a compiled program, read from its text (HLO).

Only what is needed to judge a training program: its loop, the kernels of a
step and the bytes that they move, copies, convolutions, and collectives.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BYTES = {
  **dict.fromkeys(('pred', 's4', 'u4', 's8', 'u8', 'f8e4m3fn', 'f8e5m2'), 1),
  **dict.fromkeys(('s16', 'u16', 'f16', 'bf16'), 2),
  **dict.fromkeys(('s32', 'u32', 'f32'), 4),
  **dict.fromkeys(('s64', 'u64', 'f64', 'c64'), 8),
}
# They run nothing: names for parts of values, and values that are there.
FREE = frozenset(
  'parameter constant bitcast tuple get-tuple-element after-all opt-barrier'
  ' partition-id replica-id iota'.split()
)
# They run other computations, whose instructions are counted instead.
CONTROL = frozenset('while conditional call async-start'.split())
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all')

_ARRAY = re.compile(r'([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]')
_NAME = re.compile(r'\s*(ROOT )?%?([\w.-]+) = ')
_HEAD = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\{$')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program.

  name: in its computation.
  shape: the type of the result, as text.
  opcode: what it does.
  operands: names.
  attributes: the rest of the line.
  root: whether its result is the computation's.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  @property
  def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
    """(element type, dimensions) of each array of the result."""
    return [
      (dtype, tuple(map(int, filter(None, dims.split(',')))))
      for dtype, dims in _ARRAY.findall(self.shape)
      if dtype in BYTES
    ]

  @property
  def size(self) -> int:
    """Elements of the largest array of the result."""
    return max((math.prod(dims) for _, dims in self.arrays), default=0)

  @property
  def bytes(self) -> int:
    """Bytes of the result, without padding."""
    return sum(BYTES[t] * math.prod(dims) for t, dims in self.arrays)

  def attribute(self, name: str) -> str:
    """Returns the value of an attribute; '' if it has none."""
    pattern = rf'\b{name}=("[^"]*"|\{{[^}}]*\}}|[^, ]+)'
    match = re.search(pattern, self.attributes)
    return match[1].strip('"%') if match else ''


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """A compiled program, by computations.

  computations: name -> its instructions, in their order.
  entry: the name of the first one to run.
  head: the text's first line.
  """

  computations: dict[str, Computation]
  entry: str
  head: str

  @functools.cached_property
  def aliases(self) -> int:
    """How many outputs are written over the inputs that were donated."""
    part = self.head.partition('input_output_alias={')[2]
    return part.partition(' }')[0].count('-alias)')

  @functools.cached_property
  def loops(self) -> list[Instruction]:
    """All loops, the one with the most kernels first."""
    whiles = [
      x
      for lines in self.computations.values()
      for x in lines.values()
      if x.opcode == 'while'
    ]
    return sorted(whiles, key=lambda x: -len(self.kernels(x.attribute('body'))))

  @property
  def body(self) -> str:
    """The computation of a step: the largest loop's, or else the entry."""
    return self.loops[0].attribute('body') if self.loops else self.entry

  @property
  def trips(self) -> int | None:
    """How often the largest loop runs, if that is compiled in; else None."""
    return _trips(self.loops[0]) if self.loops else None

  def in_loops(
    self, computation: str = '', times: int = 1
  ) -> list[tuple[int, str, Instruction]]:
    """Returns what runs in loops, with how often it does.

    A loop of unknown length counts as one round.

    Args:
      computation: in which the loops are; '' is the entry.
      times: how often that runs; 1: its own instructions are in no loop.

    Returns:
      (times, name of its computation, instruction), as of `kernels`.
    """
    computation = computation or self.entry
    instructions = []
    for x in self.computations.get(computation, {}).values():
      if x.opcode in CONTROL:
        rounds = times * (_trips(x) or 1 if x.opcode == 'while' else 1)
        for inner in self._called(x):
          instructions += self.in_loops(inner, rounds)
      elif times > 1 and self.runs(x):
        instructions.append((times, computation, x))
    return instructions

  @staticmethod
  def runs(x: Instruction) -> bool:
    """Returns whether an instruction is a kernel.

    The end of an asynchronous operation does not count as one.
    """
    return x.opcode not in FREE and not x.opcode.endswith(('-done', '-update'))

  def kernels(self, computation: str) -> list[tuple[str, Instruction]]:
    """Returns what runs in a computation, with inner ones, each once.

    Returns:
      (name of its computation, instruction).
    """
    kernels = []
    for x in self.computations.get(computation, {}).values():
      if x.opcode in CONTROL:
        for inner in self._called(x):
          kernels += self.kernels(inner)
      elif self.runs(x):
        kernels.append((computation, x))
    return kernels

  def moved(self, computation: str, x: Instruction) -> int:
    """Returns the bytes that a kernel reads and writes.

    Of an operand of which only a slice or some rows are read, these; likewise
    of a result of which a slice is written.
    """
    lines = self.computations[computation]
    inner = self.computations.get(x.attribute('calls'), {})
    parameters = [p for p in inner.values() if p.opcode == 'parameter']
    parameters.sort(key=lambda p: int(p.attributes.partition(')')[0] or 0))
    read = 0
    for n, name in enumerate(x.operands):
      whole = lines[name].bytes if name in lines else 0
      if n < len(parameters):
        users = [y for y in inner.values() if parameters[n].name in y.operands]
        whole = min(whole, sum(_reads(y, parameters[n].name) for y in users))
      read += whole
    written = x.bytes
    for root in inner.values():
      if root.opcode == 'dynamic-update-slice' and len(root.operands) > 1:
        update = inner.get(root.operands[1])
        whole = root.bytes
        if update and whole <= written:
          written += update.bytes - whole
    return read + max(written, 0)

  def large(self, size: int) -> list[Instruction]:
    """Returns what makes an array of at least so many elements, anywhere.

    Parameters, and names for parts of values, make none.
    """
    fused = {
      x.attribute('calls')
      for lines in self.computations.values()
      for x in lines.values()
      if x.opcode == 'fusion'
    }
    return [
      x
      for name, lines in self.computations.items()
      if name not in fused
      for x in lines.values()
      if x.opcode not in FREE | CONTROL and x.size >= size
    ]

  def calls(self, target: str, computation: str = '') -> list[Instruction]:
    """Returns calls of library functions whose names start with `target`."""
    return [
      x
      for _, x in self.kernels(computation or self.body)
      if x.attribute('custom_call_target').startswith(target)
    ]

  def collectives(self, computation: str = '') -> dict[str, int]:
    """Returns how many collectives of each kind run in a computation."""
    counts = dict.fromkeys(COLLECTIVES, 0)
    for _, x in self.kernels(computation or self.body):
      kind = x.opcode.removesuffix('-start')
      if kind in counts:
        counts[kind] += 1
    return counts

  def everywhere(self, opcode: str) -> Iterator[Instruction]:
    """Yields all instructions of a kind, also those inside kernels."""
    for lines in self.computations.values():
      yield from (x for x in lines.values() if x.opcode == opcode)

  def _called(self, x: Instruction) -> list[str]:
    names = [x.attribute(k) for k in ('body', 'to_apply', 'calls')]
    branches = x.attribute('branch_computations').strip('{}').split(',')
    names += [name.strip(' %') for name in branches]
    return [name for name in names if name in self.computations]


def _trips(loop: Instruction) -> int | None:
  """Returns how often a loop runs, if that is compiled in; else None."""
  match = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
  return int(match[1]) if match else None


def _reads(x: Instruction, operand: str) -> int:
  """Returns the bytes of an operand that an instruction of a fusion reads."""
  if x.opcode in ('gather', 'dynamic-slice', 'slice') and (
    x.operands[0] == operand
  ):
    return x.bytes
  if x.opcode == 'dynamic-update-slice' and x.operands[0] == operand:
    return 0
  return 1 << 62  # all of it


def parse(text: str) -> Program:
  """Returns a program from its text, as `compiled.as_text()` returns it."""
  lines = text.splitlines()
  computations: dict[str, Computation] = {}
  entry, current = '', None
  for line in lines[1:]:
    if current is None:
      if match := _HEAD.match(line):
        current = computations.setdefault(match[2], {})
        entry = match[2] if match[1] else entry
    elif line.startswith('}'):
      current = None
    elif x := _instruction(line):
      current[x.name] = x
  return Program(computations, entry, lines[0])


def _instruction(line: str) -> Instruction | None:
  match = _NAME.match(line)
  if not match:
    return None
  rest = line[match.end() :]
  end = _closing(rest, ' ')
  shape, call = rest[:end], rest[end + 1 :]
  opcode, _, inside = call.partition('(')
  end = _closing(inside, ')')
  operands, attributes = inside[:end], inside[end + 1 :]
  if opcode in ('parameter', 'constant'):
    names, attributes = (), f'{operands}){attributes}'
  else:
    names = tuple(re.findall(r'%([\w.-]+)', operands))
  return Instruction(match[2], shape, opcode, names, attributes, bool(match[1]))


def _closing(text: str, end: str) -> int:
  """Returns where `end` first is, outside of brackets."""
  depth = 0
  for n, letter in enumerate(text):
    if depth == 0 and letter == end:
      return n
    depth += (letter in '([{') - (letter in ')]}')
  return len(text)
