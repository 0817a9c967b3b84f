"""Logs: JSON lines on standard output, from our own code and from libraries, without personal data.

An exception is told by its class and our frames; its message is not, because messages repeat the input.
"""

from __future__ import annotations

import logging
import sys
import traceback
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


def without_personal_data(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    """Drop the fields that may hold personal data or secrets."""
    return {name: _cleaned(value) for name, value in line.items() if name.lower() not in PERSONAL}


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _cleaned(item) for name, item in value.items() if str(name).lower() not in PERSONAL}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    return value


def told_exception(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    """Replace an exception by its classes and frames: no message, no local variables."""
    info = line.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if not isinstance(error, BaseException):
        return line
    told = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{frame.filename.removeprefix(_HERE + '/')}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
        told.append({"class": f"{type(error).__module__}.{type(error).__qualname__}", "frames": places})
        error = error.__cause__ or error.__context__
    line["exception"] = told
    return line


def setup(*, service: str, role: str, version: str, level: str = "INFO") -> None:
    """Send every log line of this process, whoever writes it, through the same processors."""

    def identified(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
        return {"service": service, "role": role, "version": version, **line}

    def rendered(value: Any, **options: Any) -> str:
        return orjson.dumps(value, default=lambda item: type(item).__name__).decode()

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
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
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
