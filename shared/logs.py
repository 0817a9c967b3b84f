"""Logs: JSON lines on standard output, from our own code and from libraries, without personal data.

An exception is told by its class and our frames; its message is not, because messages repeat the input.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

PERSONAL = frozenset(
    (
        *("name", "full_name", "email", "phone", "nip", "nik", "nrp", "birth_date", "birth_place", "address", "gender"),
        *(
            "photo",
            "title",
            "body",
            "text",
            "subject",
            "recipient",
            "to",
            "password",
            "token",
            "authorization",
            "secret",
        ),
    )
)
"""Fields that never reach a log line, at any depth."""

_HERE = str(Path(__file__).resolve().parents[1])


_PERSONAL_WORDS = frozenset(
    ("name", "email", "phone", "nip", "nik", "nrp", "birth", "address", "photo", "password", "secret", "token")
)
_PERSONAL_TEXT = re.compile(r"[^\s@\"']+@[^\s@\"']+|\d{16,}|\d{8} \d{6} \d \d{3}")
_CODE = re.compile(r"[\w.:/-]{1,120}")


def without_personal_data(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    """Drop the fields that may hold personal data or secrets, and what looks like an address or a personal number."""
    return {name: _cleaned(value) for name, value in line.items() if not _personal(name)}


def _personal(name: object) -> bool:
    told = str(name).lower()
    return told in PERSONAL or not _PERSONAL_WORDS.isdisjoint(told.split("_"))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _PERSONAL_TEXT.sub("[removed]", value)
    if isinstance(value, dict):
        return {name: _cleaned(item) for name, item in value.items() if not _personal(name)}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    return value


def from_a_library(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    """What a library says: its own words with numbers and codes. Its exceptions and objects are told by class alone.

    Of several lines only the first is kept: in the others asyncio repeats the message of an exception.
    """
    words = str(line["event"]).partition("\n")[0]
    given = line.pop("positional_args", None)
    if given:
        with suppress(TypeError, ValueError, KeyError):
            if isinstance(given, dict):
                words = words % {k: type(v).__name__ if _personal(k) else _plain(v) for k, v in given.items()}
            else:
                words = words % tuple(map(_plain, given))
    if isinstance(info := line.get("exc_info"), tuple) and (message := str(info[1])):
        words = words.replace(message, type(info[1]).__name__)
    return {**line, "event": words, "logger": line["_record"].name}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and _CODE.fullmatch(value):
        return value
    return type(value).__name__


def told_exception(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    """Replace an exception by its classes and frames: no message, no local variables."""
    line.pop("stack_info", None)
    info = line.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if not isinstance(error, BaseException):
        return line
    told = []
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        if (error := left.pop(0)) is None or id(error) in seen:
            continue
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{frame.filename.removeprefix(_HERE + '/')}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
        told.append({"class": f"{type(error).__module__}.{type(error).__qualname__}", "frames": places})
        if isinstance(error, BaseExceptionGroup):
            left.extend(error.exceptions)
        left.append(error.__cause__ or error.__context__)
    line["exception"] = told
    return line


def rendered(line: Any, **options: Any) -> str:
    """A line as JSON, whatever is in it."""

    def named(value: Any) -> str:
        return type(value).__name__

    try:
        return orjson.dumps(line, default=named).decode()
    except TypeError:  # a number beyond 64 bits, half a character, a key that is no text
        return json.dumps(line, default=named, skipkeys=True)


class _Output(logging.StreamHandler[Any]):
    """Standard output. A line that cannot be written is told of; the standard way would print what was to be in it."""

    def handleError(self, record: logging.LogRecord) -> None:
        reason = type(sys.exc_info()[1]).__name__
        with suppress(OSError, ValueError):
            self.stream.write(rendered({"event": "log.unwritable", "logger": record.name, "reason": reason}) + "\n")


class _Sparing(logging.Filter):
    """Lets one kind of line of a library pass once in a while: its clients tell every try to reach a broker."""

    SECONDS = 10.0

    def __init__(self) -> None:
        super().__init__()
        self._told_at: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] != "aiokafka":
            return True
        kind, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._told_at.get(kind, -self.SECONDS) < self.SECONDS:
            return False
        self._told_at[kind] = now
        return True


def setup(*, service: str, role: str, version: str, level: str = "INFO") -> None:
    """Send every log line of this process, whoever writes it, through the same processors."""

    def identified(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
        return {"service": service, "role": role, "version": version, **line}

    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        told_exception,
        without_personal_data,
        identified,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Output(sys.stdout)
    handler.addFilter(_Sparing())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[from_a_library, *common],
            use_get_message=False,
            pass_foreign_args=True,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=rendered),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "faststream", "aiokafka", "pymongo", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("uvicorn", "aiokafka", "pymongo", "httpx", "httpcore", "faststream", "training.kafka"):
        logging.getLogger(name).setLevel("WARNING")
    _catch_the_rest()


def _catch_the_rest() -> None:
    """What nobody catches, and what Python warns of, become lines as well; on standard error they tell messages."""
    log = structlog.get_logger("process")

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if isinstance(error, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        log.critical("process.failed", exc_info=error)

    def in_thread(told: threading.ExceptHookArgs) -> None:
        log.critical("thread.failed", exc_info=told.exc_value)

    def warned(message: Any, category: type[Warning], filename: str, lineno: int, *more: Any, **options: Any) -> None:
        place = f"{filename.removeprefix(_HERE + '/')}:{lineno}"
        log.warning("python.warned", reason=category.__name__, place=place)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    warnings.showwarning = warned
