"""The failures of a request or of a handled event. The class alone decides status, retry and whether someone is woken.

The fifth failure has no class: any other exception is a bug (500; retried, then parked).
"""

from __future__ import annotations

import re
from typing import ClassVar

_OF_EVERY_PROBLEM = frozenset({"type", "title", "status", "detail", "instance", "correlation_id", "errors"})


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


class Failure(Exception):
    """What every refusal carries: a stable `code`, a one-line `title`, and members that the caller may see.

    Members are codes, numbers, ids and dates. They are shown to the caller and kept out of logs and dead letters; none
    may have the name of a member that every problem document has.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "failure"
    title: ClassVar[str] = "The request failed"

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            cls.code = _kebab(cls.__name__)
        if "title" not in cls.__dict__ and cls.__doc__:
            cls.title = cls.__doc__.strip().splitlines()[0].rstrip(".")

    def __init__(self, **members: object) -> None:
        super().__init__(self.code)
        if taken := _OF_EVERY_PROBLEM & set(members):
            raise TypeError(f"{type(self).__name__}: {', '.join(sorted(taken))} belong to every problem document")
        self.members = members


class Rejected(Failure):
    """The rules of training do not allow it now."""

    status = 409


class NotFound(Failure):
    """There is no such thing, or it is not yours."""

    status = 404


class Stale(Failure):
    """Somebody changed it since it was read."""

    status = 409


class PreconditionFailed(Stale):
    """The ETag given in If-Match is no longer the current one."""

    status = 412


class Unavailable(Failure):
    """A neighbour that this needs is away; try again."""

    status = 503
    retry_after_seconds: ClassVar[int] = 2


class Contended(Unavailable):
    """Too many want to change the same thing at this moment; try again."""


class Impaired(Unavailable):
    """A neighbour answers and cannot do it now: no space, no rights, ill within; try again later."""

    retry_after_seconds = 10


class IdTaken(Rejected):
    """This id already names something else, or the same thing asked for with other content."""
