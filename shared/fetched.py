"""Whatever a producer wrote into its records' headers, what a fetch brought can be read.

No broker checks the name of a header. aiokafka wants UTF-8 and, without it, stops at that record for ever: the record
never gets to where it would be parked, nor does anything behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


class _Bytes(bytearray):
    """What is no UTF-8 in it is told by its numbers."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Bytes(found) if isinstance(at, slice) else found

    def decode(self, *strictly: Any) -> str:
        return bytes(self).decode("utf-8", "backslashreplace")


class _Batch:
    """A batch of records; read a second time, slower, where the library cannot."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self._batch = DefaultRecordBatch(raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            leniently = _DefaultRecordBatchPy(self._raw)
            leniently._maybe_uncompress()
            leniently._buffer = _Bytes(leniently._buffer)
            return iter(list(leniently))


class _Records(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of one fetch from one partition."""

    def next_batch(self) -> Any:
        raw, batch = self._next_slice, super().next_batch()
        return _Batch(raw) if isinstance(batch, DefaultRecordBatch) else batch


def read_leniently() -> None:
    """From now on, in every consumer of this process."""
    fetcher.MemoryRecords = _Records
