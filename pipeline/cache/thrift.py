"""Reads structs of Thrift's compact protocol, in which Parquet stores footers and page headers."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["BINARY", "I32", "I64", "LIST", "STRUCT", "Field", "Struct", "ThriftReader", "value_of"]

_TRUE, _FALSE, _BYTE, _I16, I32, I64, _DOUBLE, BINARY, LIST, _SET, _MAP, STRUCT = range(1, 13)
"""Types of the compact protocol."""

_DEPTH = 8


class Field(NamedTuple):
    """A field with its type. Lists and structs hold the values of their own fields."""

    kind: int
    value: Any


type Struct = dict[int, Field]
"""Field id -> field."""


def value_of(fields: Struct, number: int, kind: int, default: Any = None) -> Any:
    """The value of field ``number``; ``default`` if it is absent.

    Raises ValueError if it has another type, in which case other readers ignore it, or if it is
    absent without a default.
    """
    field = fields.get(number)
    if field is not None and field.kind == kind:
        return field.value
    if field is not None or default is None:
        raise ValueError(f"field {number} is absent or of another type")
    return default


class ThriftReader:
    """Reads structs from ``data``, from ``position`` on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def struct(self, depth: int = 0) -> Struct:
        """The next struct. Raises ValueError if it is not valid or has a field twice."""
        if depth > _DEPTH:
            raise ValueError("a struct is nested too deeply")
        fields: Struct = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 0x0F, head >> 4
            number = number + step if step else self._signed()
            if number in fields:  # other readers may use the other one
                raise ValueError(f"field {number} occurs twice in one struct")
            in_head = kind in (_TRUE, _FALSE)
            fields[number] = Field(kind, None if in_head else self._value(kind, depth))
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_I16, I32, I64):
            return self._signed()
        if kind == BINARY:
            length = self._unsigned()
            self._advance(length)
            return self._data[self.position - length : self.position]
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, _SET):
            return self._list(depth)
        if kind in (_TRUE, _FALSE, _BYTE, _DOUBLE):
            self._advance(8 if kind == _DOUBLE else 1)
            return None
        raise ValueError(f"a field of type {kind}")  # Parquet has no maps

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = self._unsigned() if head >> 4 == 15 else head >> 4
        if count > len(self._data) - self.position:  # an element takes at least one byte
            raise ValueError("a list is longer than its bytes")
        return [self._value(head & 0x0F, depth) for _ in range(count)]

    def _byte(self) -> int:
        self._advance(1)
        return self._data[self.position - 1]

    def _advance(self, count: int) -> None:
        self.position += count
        if self.position > len(self._data):
            raise ValueError("a struct does not end")

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a number does not end")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
