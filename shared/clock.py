"""What time it is in the training's own time: the system clock, or the one virtual clock of a played scenario.

Domain time only (`now`, `ce_time`, `due_at`). Leases, positions, retention and tokens run on real time: `real_now`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

_fixed: ContextVar[datetime | None] = ContextVar("fixed_instant", default=None)


SYSTEM = "system"
"""What the file says while nothing is played: the system's clock counts."""


class _FileSource:
    """A file that holds one instant and is replaced atomically. Read again whenever it changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._instant: datetime | None = None

    def now(self) -> datetime | None:
        status = self.path.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._instant = instant_in(self.path)
            self._stamp = stamp
        return self._instant


_source: _FileSource | None = None


def _milliseconds(instant: datetime) -> datetime:
    """MongoDB keeps no more; cutting here keeps what was decided equal to what is read back."""
    return instant.astimezone(UTC).replace(microsecond=instant.microsecond // 1000 * 1000)


def instant_in(file: Path) -> datetime | None:
    """The instant that a file holds, or None where it names the system's clock. Raises `OSError`, `ValueError`."""
    told = file.read_text().strip()
    return None if told == SYSTEM else _milliseconds(datetime.fromisoformat(told))


def use(source: str | None) -> None:
    """Take the time from this file from now on; `None` is the system clock."""
    global _source
    _source = _FileSource(Path(source)) if source else None


def virtual() -> bool:
    """Whether a scenario is being played, so that the time may jump."""
    return _source is not None and _source.now() is not None


def now() -> datetime:
    """The present instant of domain time, in UTC, cut to milliseconds."""
    if (instant := _fixed.get()) is not None:
        return instant
    return (_source.now() if _source else None) or real_now()


def real_now() -> datetime:
    """The present instant of the machine, in UTC, cut to milliseconds."""
    return _milliseconds(datetime.now(UTC))


@contextmanager
def at(instant: datetime) -> Iterator[None]:
    """Inside, it is this instant: a timer sees the moment at which it was due."""
    token = _fixed.set(_milliseconds(instant))
    try:
        yield
    finally:
        _fixed.reset(token)
