"""What became of the play: every line read back from services, topics and mailbox, none from the script's memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from demo.place import Mail
from demo.scenario import Incidents
from demo.story import Story
from demo.topics import Listener, events_of, everything
from shared import reference
from shared.cloudevents import Envelope, Record
from shared.contracts import REGISTRY, Event
from shared.contracts.assessment import CredentialIssued, ModuleCompleted, ProgrammeCompleted
from shared.contracts.enrollment import (
    NominationRejected,
    NominationSubmitted,
    ParticipantEnrolled,
    ParticipantWithdrawn,
)
from shared.contracts.notification import NotificationSent
from shared.contracts.scheduling import AttendanceRecorded, AttendanceStatus, SessionScheduled
from shared.kafka import Kafka

NOBODY = ("", None, ())
RESTRICTED = "/training/assessment-restricted"


@dataclass
class Summary:
    """Lines to show, checks that failed, and what the report draws."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    events: list[Envelope] = field(default_factory=list)
    digest: str = ""
    participant: str = ""
    facts: list[tuple[datetime, str, str]] = field(default_factory=list)
    """The facts about one participant: instant, type, and the module it is about, if any."""
    told: dict[str, int] = field(default_factory=dict)
    """What the services say when asked, to be compared with what they announced."""

    def say(self, name: str, value: str, holds: bool = True) -> None:
        self.lines.append((name, value))
        if not holds:
            self.failed.append(f"{name}: {value}")


async def read_back(
    story: Story,
    endpoints: dict[str, Any],
    admin: Kafka,
    listeners: Sequence[Listener],
    http: httpx.AsyncClient,
    mails: Sequence[Mail],
) -> Summary:
    """Ask everybody."""
    summary = Summary()
    call, organiser = story._gateway.call, story.organiser
    cohort = story.cohort_id

    composition = await call(organiser, "GET", f"/enrollment/v1/cohorts/{cohort}/composition")
    given = Counter({group.kind.value: group.count.value for group in story.scenario.agencies})
    wanted = [given["ministry"], given["lpnk"] + given["ltn"], given["province"] + given["regency"] + given["city"]]
    groups = [composition[name] for name in ("ministries", "non_ministry", "local_governments")]
    summary.say(
        "composition",
        f"{composition['participants']} participants"
        f" = {groups[0]} Kementerian + {groups[1]} LPNK and LTN + {groups[2]} Pemda",
        groups == wanted and composition["participants"] == sum(wanted),
    )

    await _timetable(summary, story)
    await _outcomes(summary, story)

    deliveries = await _pages(story, f"/notification/v1/deliveries?limit=500&cohort_id={cohort}")
    by_channel = Counter((d["channel"], d["status"]) for d in deliveries)
    told = ", ".join(f"{channel} {status} {n}" for (channel, status), n in sorted(by_channel.items()))
    message_ids = {mail.message_id for mail in mails}
    emails = by_channel["email", "sent"]
    summary.say("messages by channel", told, {status for _, status in by_channel} == {"sent"})
    once = len(mails) == len(message_ids) or any(listener.patient for listener in listeners)
    summary.say("mailbox", f"{len(mails)} e-mails arrived", once and len(message_ids) == emails)

    summary.told["messages"] = sum(n for (_, status), n in by_channel.items() if status == "sent")

    topics = await everything(admin)
    facts = facts_of(topics)
    tell_incidents(summary, facts, story.scenario.incidents, composition["participants"])
    compare(summary, facts)
    tell_topics(summary, topics, facts, listeners)
    await _workers(summary, endpoints, http)
    return summary


async def _pages(story: Story, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await story._gateway.call(story.organiser, "GET", path + after)
        items += page["items"]
        if page["next"] is None:
            return items
        after = f"&after={page['next']}"


async def _timetable(summary: Summary, story: Story) -> None:
    call, organiser = story._gateway.call, story.organiser
    sessions = await call(organiser, "GET", f"/scheduling/v1/cohorts/{story.cohort_id}/sessions")
    schedule = await call(organiser, "GET", f"/scheduling/v1/schedules/{story.schedule_id}")
    summary.sessions = sessions
    modes = Counter(session["mode"] for session in sessions)
    asynchronous = sum(module["jp_asynchronous"] for module in schedule["modules"])
    curriculum = reference.curriculum(schedule["curriculum_version"])
    hours: dict[str, Counter[str]] = {group: Counter() for session in sessions for group in session["group_ids"]}
    for session in sessions:
        for group in session["group_ids"]:
            hours[group][session["mode"]] += session["jp"]
    one = next(iter(hours.values()), Counter())
    on_campus = sum(one.values()) + asynchronous
    summary.told["sessions"] = len(sessions)
    summary.say("sessions", ", ".join(f"{mode} {n}" for mode, n in sorted(modes.items())))
    summary.say(
        "training hours",
        f"{one['distance']} JP distance + {asynchronous} JP self-study + {one['classical']} JP classical"
        f" = {on_campus} JP (curriculum {curriculum.jp_on_campus.value}) in each of {len(hours)} groups"
        f" + {curriculum.jp_workplace.value} JP declared for the workplace",
        bool(hours)
        and all(sum(own.values()) + asynchronous == curriculum.jp_on_campus.value for own in hours.values()),
    )
    moved = [session for session in sessions if session["ical_sequence"]]
    summary.say(
        "sessions moved", str(len(moved)), len(moved) == int(story.scenario.incidents.session_moved is not None)
    )


async def _outcomes(summary: Summary, story: Story) -> None:
    call, organiser = story._gateway.call, story.organiser
    results = await call(organiser, "GET", f"/assessment/v1/cohorts/{story.cohort_id}/results")
    passed = {(r["enrollment_id"], r["module_id"]) for r in results if r["outcome"] == "passed"}
    second = [r for r in results if r["attempt"] == 2 and r["outcome"] == "passed"]
    modules = len(reference.curriculum(story.scenario.cohort.curriculum_version.value).modules)
    summary.told["modules completed"] = len(passed)
    summary.say("modules completed", f"{len(passed)} (of {modules} × {len({r['enrollment_id'] for r in results})})")
    summary.say(
        "at the second attempt",
        str(len(second)),
        len(second) == int(story.scenario.incidents.second_attempt is not None),
    )
    decided = await call(organiser, "GET", f"/assessment/v1/cohorts/{story.cohort_id}/graduation")
    graduates = [record for record in decided if record["graduated"]]
    others = [record for record in decided if not record["graduated"]]
    reasons = ", ".join(sorted({code for record in others for code in record["reason_codes"]}))
    expected = int(story.scenario.incidents.not_graduating is not None)
    summary.say(
        "graduates", f"{len(graduates)}; not graduated {len(others)} ({reasons or 'none'})", len(others) == expected
    )
    certificates = [record["credential_id"] for record in decided if record["credential_id"]]
    summary.told["graduates"], summary.told["certificates"] = len(graduates), len(certificates)
    summary.say("certificates", str(len(certificates)), 0 < len(certificates) == len(decided))
    summary.participant = next((record["id"] for record in graduates), "")
    if not certificates:
        return
    shown = await call(NOBODY, "GET", f"/assessment/v1/verify/{certificates[0]}")
    names = {person.name for person in story.cast.people}
    summary.say(
        "a certificate, verified in public",
        f"{shown['number']}: {shown['status']}, {shown['kind']}, {shown['jp']} JP, holder {shown['holder']}",
        shown["status"] == "valid" and not any(name in str(value) for name in names for value in shown.values()),
    )


Facts = list[tuple[Envelope, Event]]


def facts_of(topics: Mapping[str, Sequence[Record]]) -> dict[str, Facts]:
    """What the services announced, by topic: no dead letters, and no copies of facts on the agencies' topics."""
    return {
        name: [
            (envelope, REGISTRY[envelope.type].model_validate_json(record.value or b""))
            for record, envelope in zip(records, events_of(records), strict=True)
        ]
        for name, records in topics.items()
        if not name.endswith(".dlq") and not name.startswith("training.agency.")
    }


def _once(facts: Mapping[str, Facts]) -> list[Event]:
    """Each fact once, however often it was sent."""
    return list({envelope.id: fact for own in facts.values() for envelope, fact in own}.values())


def tell_incidents(summary: Summary, facts: Mapping[str, Facts], incidents: Incidents, participants: int) -> None:
    """What went otherwise than planned on the way, as it was announced, against what the scenario gives."""
    known = _once(facts)
    submitted = sum(isinstance(fact, NominationSubmitted) for fact in known)
    rejected = [fact for fact in known if isinstance(fact, NominationRejected)]
    rules = ", ".join(sorted({rule for fact in rejected for rule in fact.rule_ids}))
    summary.say(
        "nominations",
        f"{submitted}; rejected {len(rejected)}" + (f" (not met: {rules})" if rules else ""),
        len(rejected) == int(incidents.not_eligible is not None) and all(fact.rule_ids for fact in rejected),
    )
    enrolled = sum(isinstance(fact, ParticipantEnrolled) for fact in known)
    withdrawn = sum(isinstance(fact, ParticipantWithdrawn) for fact in known)
    summary.say(
        "seats",
        f"{enrolled} given, {withdrawn} withdrawn",
        withdrawn == int(incidents.withdraws is not None) and enrolled - withdrawn == participants,
    )
    attendance = [fact for fact in known if isinstance(fact, AttendanceRecorded)]
    statuses = Counter(fact.status for fact in attendance)
    ill = {fact.enrollment_id for fact in attendance if fact.status is AttendanceStatus.SICK}
    summary.say(
        "attendance",
        f"{len(attendance)} recorded: "
        + ", ".join(f"{status.value} {statuses[status]}" for status in AttendanceStatus if statuses[status]),
        len(ill) == int(incidents.ill is not None)
        and statuses.keys() <= {AttendanceStatus.PRESENT, AttendanceStatus.SICK},
    )


def compare(summary: Summary, facts: Mapping[str, Facts]) -> None:
    """Whether the services announced exactly what they tell when asked."""
    counted = Counter(type(fact) for fact in _once(facts))
    announced = {
        "sessions": counted[SessionScheduled],
        "modules completed": counted[ModuleCompleted],
        "graduates": counted[ProgrammeCompleted],
        "certificates": counted[CredentialIssued],
        "messages": counted[NotificationSent],
    }
    summary.say(
        "announced as told",
        ", ".join(f"{name} {n}" for name, n in announced.items()),
        announced == summary.told,
    )


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def tell_topics(
    summary: Summary,
    topics: Mapping[str, Sequence[Record]],
    facts: Mapping[str, Facts],
    listeners: Sequence[Listener],
) -> None:
    """How much lies on each topic, that nothing was parked, and what the agencies heard of it."""
    dead = sum(len(records) for name, records in topics.items() if name.endswith(".dlq"))
    ids: set[str] = set()
    repeated = 0
    for name, own in facts.items():
        for event, fact in own:
            if getattr(fact, "enrollment_id", None) == summary.participant and event.source != RESTRICTED:
                summary.facts.append((event.time, event.type, getattr(fact, "module_id", "")))
            repeated += event.id in ids
            ids.add(event.id)
        summary.events += [event for event, _ in own]
        summary.say(f"events on {name}", str(len(own)), bool(own))
    summary.digest = _digest(ids)
    summary.say("digest of all event ids", f"{summary.digest} ({len(ids)} events, {repeated} sent twice)")
    said = {f"{e.id} {e.time.isoformat()} {fact.model_dump_json()}" for own in facts.values() for e, fact in own}
    summary.say("digest of what they say", f"{_digest(said)} (data and domain time)", len(said) == len(ids))
    summary.say("dead letters", str(dead), dead == 0)
    for listener in listeners:
        on_topic = len(topics[listener.topic])
        kinds = Counter(event.type.rpartition(".")[0].rpartition(".")[2] for event in listener.heard)
        most = ", ".join(f"{name} {n}" for name, n in kinds.most_common(4))
        faults = f"; not as it should be: {', '.join(listener.faults[:3])}" if listener.faults else ""
        summary.say(
            f"agency {listener.code} heard",
            f"{len(listener.heard)} of {on_topic} facts on its own topic ({most}, …)"
            + (faults or f"; no gap, {listener.repeats or 'none'} twice"),
            bool(listener.heard)
            and not listener.faults
            and (listener.patient or not listener.repeats)
            and len(listener.heard) + listener.repeats == on_topic,
        )


async def _workers(summary: Summary, endpoints: dict[str, Any], http: httpx.AsyncClient) -> None:
    duplicates = outbox = 0
    for addresses in endpoints["services"].values():
        text = (await http.get(addresses["internal"] + "/metrics")).text
        for family in text_string_to_metric_families(text):
            if family.name == "training_events":
                duplicates += int(sum(s.value for s in family.samples if s.labels.get("fate") == "duplicate"))
        outbox += (await http.get(addresses["internal"] + "/internal/v1/quiet")).json()["outbox"]
    summary.say("duplicates answered", str(duplicates))
    summary.say("outbox rows", str(outbox), outbox == 0)
