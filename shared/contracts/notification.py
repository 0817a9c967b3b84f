"""What notification announces on `training.notification`: what became of each message, never what it said."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from shared.contracts import Code, Event, Id, Instant


class Channel(StrEnum):
    """By which way a message reaches its recipient."""

    EMAIL = "email"
    INBOX = "inbox"


class NotificationSent(Event):
    """A message left for its recipient (e-mail: the mail server took it; inbox: it can be read)."""

    type: ClassVar[str] = "id.go.lan.training.notification.notification-sent.v1"
    topic: ClassVar[str] = "training.notification"
    subject_field: ClassVar[str] = "notification_id"
    key_field: ClassVar[str] = "recipient_id"

    notification_id: Id
    recipient_id: Id
    channel: Channel
    template: Code
    cause_event_id: Id
    sent_at: Instant


class NotificationFailed(Event):
    """A message could not be delivered and will not be tried again."""

    type: ClassVar[str] = "id.go.lan.training.notification.notification-failed.v1"
    topic: ClassVar[str] = "training.notification"
    subject_field: ClassVar[str] = "notification_id"
    key_field: ClassVar[str] = "recipient_id"

    notification_id: Id
    recipient_id: Id
    channel: Channel
    template: Code
    cause_event_id: Id
    reason_code: Code
    failed_at: Instant


class NotificationSuppressed(Event):
    """A message was deliberately not sent."""

    type: ClassVar[str] = "id.go.lan.training.notification.notification-suppressed.v1"
    topic: ClassVar[str] = "training.notification"
    subject_field: ClassVar[str] = "notification_id"
    key_field: ClassVar[str] = "recipient_id"

    notification_id: Id
    recipient_id: Id
    channel: Channel
    template: Code
    cause_event_id: Id
    reason_code: Code
    suppressed_at: Instant
