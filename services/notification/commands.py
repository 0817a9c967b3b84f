"""What the outside may ask of notification."""

from __future__ import annotations

from services.notification import domain, feed
from services.notification.domain import AgencyContact, AgencySubscription, Message
from shared import clock
from shared.errors import NotFound
from shared.mongo import Database, Transaction


async def subscribe(agency_id: str, database: Database) -> AgencySubscription:
    """The agency's own facts shall go to its own topic. Asking twice subscribes once. Raises `AgencyUnknown`."""

    async def work(tx: Transaction) -> AgencySubscription:
        agency = await tx.load(AgencyContact, agency_id)
        if agency is None:
            raise domain.AgencyUnknown
        if known := await tx.load(AgencySubscription, agency_id):
            return known
        subscription = tx.save(AgencySubscription(id=agency_id, since=clock.now()))
        await feed.subscribe(subscription, tx)
        return subscription

    return await database.transaction(work, key="subscriptions")


async def name_coordinator(agency_id: str, person_id: str, database: Database) -> AgencyContact:
    """This person coordinates the agency's training and gets its mail. Asking twice changes nothing.

    Raises `AgencyUnknown`, also in the moment between the agency's registration and its arrival here.
    """

    async def work(tx: Transaction) -> AgencyContact:
        if (known := await tx.load(AgencyContact, agency_id)) is None:
            raise domain.AgencyUnknown
        if person_id in known.coordinator_ids:
            return known
        return tx.save(known.but(coordinator_ids=[*known.coordinator_ids, person_id]))

    return await database.transaction(work)


async def read_message(message_id: str, person_id: str | None, database: Database) -> Message:
    """Mark a message of one's own inbox as read."""

    async def work(tx: Transaction) -> Message:
        message = await tx.require(Message, message_id)
        if message.recipient_id != person_id:
            raise NotFound
        return message if message.read else tx.save(message.but(read=True))

    return await database.transaction(work)
