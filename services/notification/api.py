"""Notification's HTTP API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from services.notification import commands, domain, feed, store
from services.notification.domain import AgencyContact, AgencySubscription
from shared.contracts.notification import Channel
from shared.errors import NotFound
from shared.http import Db, Page, Paging, problems
from shared.identity import Caller, Role, act_for_agency, allow
from shared.ids import Id

router = APIRouter()

Organiser = Annotated[Caller, allow(Role.ORGANISER)]
Coordination = Annotated[Caller, allow(Role.ORGANISER, Role.COORDINATOR)]
Anyone = Annotated[Caller, allow(*(role for role in Role if role is not Role.SERVICE))]


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


# --- agencies ----------------------------------------------------------------------------------------------------


class SubscriptionView(BaseModel):
    agency_id: Id
    topic: str
    since: datetime


@router.put(
    "/v1/agencies/{agency_id}/subscription", responses=problems(NotFound, domain.AgencyUnknown), tags=["agencies"]
)
async def subscribe(agency_id: Id, caller: Coordination, db: Db) -> SubscriptionView:
    """Have the agency's own facts sent to its own topic. An operator makes its user once, by `prepare --agency`."""
    act_for_agency(caller, agency_id)
    return await _subscription(await commands.subscribe(agency_id, db), db)


async def _subscription(subscription: AgencySubscription, db: Db) -> SubscriptionView:
    agency = await db.get(AgencyContact, subscription.id)
    if agency is None:
        raise NotFound
    return SubscriptionView(agency_id=subscription.id, topic=feed.topic_of(agency.code), since=subscription.since)


@router.get("/v1/agencies/{agency_id}/subscription", responses=problems(NotFound), tags=["agencies"])
async def subscription(agency_id: Id, caller: Coordination, db: Db) -> SubscriptionView:
    """The agency's subscription."""
    act_for_agency(caller, agency_id)
    if (found := await db.get(AgencySubscription, agency_id)) is None:
        raise NotFound
    return await _subscription(found, db)


class CoordinatorsView(BaseModel):
    agency_id: Id
    coordinator_ids: list[Id]


@router.put(
    "/v1/agencies/{agency_id}/coordinators/{person_id}", responses=problems(domain.AgencyUnknown), tags=["agencies"]
)
async def name_coordinator(agency_id: Id, person_id: Id, caller: Organiser, db: Db) -> CoordinatorsView:
    """Who coordinates the agency's training, and so gets the mail about its nominees."""
    kept = await commands.name_coordinator(agency_id, person_id, db)
    return CoordinatorsView(agency_id=kept.id, coordinator_ids=kept.coordinator_ids)


# --- messages ----------------------------------------------------------------------------------------------------


class MessageView(View):
    id: Id
    subject: str
    text: str
    sent_at: datetime
    read: bool


@router.get("/v1/inbox", tags=["messages"])
async def inbox(caller: Anyone, paging: Paging, db: Db) -> Page[MessageView]:
    """One's own messages."""
    if caller.person_id is None:
        return Page(items=[])
    items, after = await store.inbox_of(db, caller.person_id, paging.limit, paging.after)
    return Page(items=[MessageView.model_validate(message) for message in items], next=after)


@router.put("/v1/inbox/{message_id}/read", responses=problems(NotFound), tags=["messages"])
async def read_message(message_id: Id, caller: Anyone, db: Db) -> MessageView:
    """Mark one of one's own messages as read."""
    return MessageView.model_validate(await commands.read_message(message_id, caller.person_id, db))


@router.get("/v1/rules", tags=["rules"])
async def rules(caller: Anyone) -> list[domain.Rule]:
    """Which events are told to whom, by which channels."""
    return list(domain.rules().values())


class DeliveryView(View):
    """What became of one message, without its words."""

    id: Id
    event_id: Id
    recipient_id: Id
    channel: Channel
    template: str
    status: domain.DeliveryStatus
    reason_code: str | None


@router.get("/v1/deliveries", tags=["messages"])
async def deliveries(caller: Organiser, paging: Paging, db: Db, cohort_id: Id | None = None) -> Page[DeliveryView]:
    """Who was told of what, by which channel, and who was not; of one cohort or all."""
    items, after = await store.deliveries(db, cohort_id, paging.limit, paging.after)
    return Page(items=[DeliveryView.model_validate(item) for item in items], next=after)
