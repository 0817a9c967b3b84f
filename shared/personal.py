"""Where personal data may be kept: these collections and no others, each with its purpose and its end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PersonalCollection:
    """A collection that holds personal data."""

    service: str
    collection: str
    purpose: str
    retention: str


COLLECTIONS = (
    PersonalCollection(
        "enrollment",
        "people",
        "to nominate, enroll and reach people",
        "until the person is erased",
    ),
    PersonalCollection(
        "assessment",
        "sealed_certificates",
        "to prove a certificate: the name as printed, encrypted",
        "archive duty; survives the erasure of the person",
    ),
    PersonalCollection(
        "notification",
        "messages",
        "the in-app inbox: a message as it was rendered",
        "90 days",
    ),
)
