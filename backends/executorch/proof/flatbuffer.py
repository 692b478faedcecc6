"""Reads a flatbuffer exactly, given the text of its schema: tables become dictionaries, floats keep every bit.

executorch ships no reader for XNNPACK's graph, and its flatc prints floats with six digits, too few for an audit.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

_SCALARS = {
    "bool": "?",
    "byte": "b",
    "ubyte": "B",
    "short": "h",
    "ushort": "H",
    "int": "i",
    "uint": "I",
    "long": "q",
    "ulong": "Q",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float": "f",
    "double": "d",
    "float32": "f",
    "float64": "d",
}


@dataclass
class Schema:
    """Tables as (field name, type) in order; enums as type and labels by value; unions as (label, table), from 1."""

    tables: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    enums: dict[str, tuple[str, dict[int, str]]] = field(default_factory=dict)
    unions: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Schema:
        """The part of the schema language that XNNPACK's file uses. Raises ValueError: explicit field ids."""
        schema = cls()
        text = re.sub(r"//[^\n]*", "", text)
        for kind, name, base, body in re.findall(r"\b(table|enum|union)\s+(\w+)\s*(?::\s*(\w+)\s*)?\{([^}]*)\}", text):
            if kind == "table":
                if re.search(r"\bid\s*:\s*\d", body):
                    raise ValueError(f"table {name} numbers its fields, which this reader does not know")
                fields = re.findall(r"(\w+)\s*:\s*(\[?\s*\w+\s*\]?)[^;]*;", body)
                schema.tables[name] = [(label, type_.replace(" ", "")) for label, type_ in fields]
            elif kind == "enum":
                labels, value = {}, -1
                for label, number in re.findall(r"(\w+)\s*(?:=\s*(\d+))?\s*(?:,|$|\s)", body.strip()):
                    value = int(number) if number else value + 1
                    labels[value] = label
                schema.enums[name] = (base, labels)
            else:
                members = re.findall(r"(\w+)\s*(?::\s*(\w+))?\s*(?:,|$|\s)", body.strip())
                schema.unions[name] = [(label, table or label) for label, table in members]
        return schema


class Reader:
    """Reads tables of one buffer. A union field is the pair ``(label, table)``; absent fields are 0, "", [] or None."""

    def __init__(self, schema: Schema, data: bytes) -> None:
        self.schema, self.data = schema, data

    def root(self, table: str) -> dict[str, Any]:
        """The root table. Raises ValueError: the buffer is not of this schema."""
        try:
            return self._table(table, self._offset(0))
        except (struct.error, KeyError, IndexError, UnicodeDecodeError) as error:
            raise ValueError(f"not a {table} flatbuffer: {error}") from error

    def _scalar(self, code: str, place: int) -> Any:
        return struct.unpack_from("<" + code, self.data, place)[0]

    def _offset(self, place: int) -> int:
        return place + int(self._scalar("I", place))

    def _table(self, name: str, place: int) -> dict[str, Any]:
        vtable = place - int(self._scalar("i", place))
        size = int(self._scalar("H", vtable))
        slot, out = 4, {}

        def position() -> int:
            nonlocal slot
            offset = int(self._scalar("H", vtable + slot)) if slot < size else 0
            slot += 2
            return place + offset if offset else 0

        for label, kind in self.schema.tables[name]:
            if kind in self.schema.unions:
                which, at = position(), position()
                number = int(self._scalar("B", which)) if which else 0
                member = self.schema.unions[kind][number - 1] if number else None
                out[label] = (member[0], self._table(member[1], self._offset(at))) if member and at else None
            else:
                at = position()
                out[label] = self._value(kind, at) if at else self._absent(kind)
        return out

    def _absent(self, kind: str) -> Any:
        if kind in self.schema.enums:
            return self.schema.enums[kind][1].get(0, 0)
        return [] if kind.startswith("[") else "" if kind == "string" else 0 if kind in _SCALARS else None

    def _value(self, kind: str, at: int) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind], at)
        if kind in self.schema.enums:
            base, labels = self.schema.enums[kind]
            return labels[int(self._scalar(_SCALARS[base], at))]
        if kind == "string":
            start = self._offset(at)
            return self.data[start + 4 : start + 4 + int(self._scalar("I", start))].decode()
        if kind.startswith("["):
            start, inner = self._offset(at), kind[1:-1]
            count = int(self._scalar("I", start))
            if inner in _SCALARS:
                return list(struct.unpack_from(f"<{count}{_SCALARS[inner]}", self.data, start + 4))
            return [self._table(inner, self._offset(start + 4 + 4 * i)) for i in range(count)]
        return self._table(kind, self._offset(at))
