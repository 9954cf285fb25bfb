"""Scans pickles before they are loaded: what they refer to, how much they build, and how deep."""

from __future__ import annotations

import pickletools
from collections.abc import Sequence
from typing import IO

__all__ = ["MAX_PICKLE_BYTES", "CodeInPickleError", "PickleScan"]

MAX_PICKLE_BYTES = 64 << 20  # tensors excluded; 1,000 tensors take 100 kB
_MAX_OPERATIONS = 500_000  # 1,000 tensors take 30,000; an operation may take 250 bytes
_MAX_DEPTH = 200  # hashing a tuple that is nested some 10,000 times deep crashes Python
_MAX_LONG_INTS = 16  # of more than 64 bits: a thousand may have one hash, and slow down a dict
_MARK, _ALLOCATES = -1, -2  # in place of a depth
_GROWS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
_CALLS = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class CodeInPickleError(ValueError):
    """A pickle refers to something that is neither a tensor nor a plain value."""


class PickleScan:
    """Counts over all pickles of a file. Memory grows with the number of their operations."""

    def __init__(self) -> None:
        self._operations = 0
        self._long_ints = 0

    def check(self, pickled: IO[bytes]) -> None:
        """Read one pickle without loading it.

        Raises:
            CodeInPickleError: It refers to, or calls, something that torch would build although it
                is neither a tensor nor a plain value. For example, bytearray(N) takes N bytes of
                memory for a few bytes in the file.
            ValueError: It builds more objects than a state dict has, or is not a pickle.
        """
        nesting = _Nesting()
        for operation, argument, _ in pickletools.genops(pickled):
            self._count(argument)
            nesting.apply(operation, argument)

    def _count(self, argument: object) -> None:
        self._operations += 1
        self._long_ints += isinstance(argument, int) and argument.bit_length() > 64
        if self._operations > _MAX_OPERATIONS or self._long_ints > _MAX_LONG_INTS:
            raise ValueError("it builds more objects than a state dict has")


class _Nesting:
    """The stack of a pickle machine, with the depth of each object in place of the object."""

    def __init__(self) -> None:
        self._stack: list[int] = []
        self._memo: dict[object, int] = {}

    def apply(self, operation: pickletools.OpcodeInfo, argument: object) -> None:
        name = operation.name
        if name == "GLOBAL":
            self._stack.append(_global(*str(argument).split(" ", 1)))
        elif name == "MARK":
            self._stack.append(_MARK)
        elif name in _GETS:
            self._stack.append(self._memo.get(argument, 0))
        elif name in _PUTS:
            self._memo[argument] = self._top
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top
        else:
            popped = self._pop(operation.stack_before)
            if name in _CALLS and _ALLOCATES in popped[:1]:
                raise CodeInPickleError("it makes a tensor that is not in the file")
            depth = _depth(popped, grows=name in _GROWS)
            if depth > _MAX_DEPTH:
                raise ValueError("its values are nested deeper than those of a state dict")
            self._stack += [depth] * len(operation.stack_after)

    @property
    def _top(self) -> int:
        return self._stack[-1] if self._stack else 0

    def _pop(self, before: Sequence[pickletools.StackObject]) -> list[int]:
        if pickletools.markobject in before:
            start = len(self._stack) - 1
            while start >= 0 and self._stack[start] != _MARK:
                start -= 1
            start = max(start, 0) - list(before).index(pickletools.markobject)
        else:
            start = len(self._stack) - len(before)
        if start < 0:
            raise ValueError("it is not a torch.save file")
        popped = self._stack[start:]
        del self._stack[start:]
        return popped


def _depth(popped: Sequence[int], *, grows: bool) -> int:
    if not popped:
        return 0
    if grows:
        return max(popped[0], 1 + max(popped[1:], default=-1))
    return 1 + max(popped)


def _global(module: str, name: str = "") -> int:
    """The place on the stack of a global. Raises CodeInPickleError if it is not harmless."""
    if not _is_harmless(module, name):
        raise CodeInPickleError(f"it refers to {module}.{name}"[:113])
    return _ALLOCATES if name.endswith(("Storage", "Tensor")) else 0


def _is_harmless(module: str, name: str) -> bool:
    return module == "torch" or (module, name) in {
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage"),
        ("torch.serialization", "_get_layout"),
        ("torch.storage", "UntypedStorage"),
        ("torch.storage", "TypedStorage"),
    }
