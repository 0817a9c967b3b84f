"""What every kept state has: an id, the version at which it was read, and the counters that make its events gapless."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import IdTaken, PreconditionFailed
from shared.ids import Id


class State(BaseModel):
    """Something a service keeps and decides upon. Immutable: a decision returns a changed copy, which `save` writes.

    `collection` names where it is kept; `editable` names the fields that the resource's own PUT or PATCH can set
    (only those move `revision`, from which the ETag is made).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    collection: ClassVar[str]
    editable: ClassVar[frozenset[str]] = frozenset()

    id: Id
    version: int = Field(default=0, description="0 until first saved; grows with every save")
    revision: int = Field(default=0, description="grows when an editable field changes")
    pos: int = Field(default=0, description="outbox position of the last save")
    sequences: dict[str, int] = Field(default_factory=dict, description="events so far, per source")
    event_key: str | None = Field(default=None, description="partition key of this subject's events, for life")
    event_agency: str | None = Field(default=None, description="agency of this subject's events, for life")

    def but(self, **changes: object) -> Self:
        """This state with some fields changed, validated."""
        return self.model_validate({**self.__dict__, **changes})


def same_request(known: str, asked: str) -> None:
    """A PUT that creates was sent before: the same digest is the same request. Raises `IdTaken` for any other."""
    if known != asked:
        raise IdTaken


Seen = int | Literal["*"] | None
"""The revision that a caller says it has seen: `*` is whichever there is, None says nothing."""


def expect_revision(state: State | None, if_match: Seen) -> None:
    """The caller edits the revision it has seen. Raises `PreconditionFailed` when that is not the current one, or

    when there is none (RFC 9110, 13.1.1).
    """
    if if_match is not None and state is None:
        raise PreconditionFailed
    if state is not None and if_match not in (None, "*", state.revision):
        raise PreconditionFailed(revision=state.revision)


class Timer(State):
    """Something that will happen at an instant of domain time, once, whatever restarts in between."""

    collection: ClassVar[str] = "timers"

    kind: str
    key: str
    due_at: datetime
    ids: dict[str, str] = Field(default_factory=dict)
    correlationid: str | None = None
    causationid: str | None = None
    failures: int = 0
    failed: bool = Field(default=False, description="gave up after repeated failures; an operator must look")
