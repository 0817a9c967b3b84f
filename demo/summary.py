"""What became of the play: every line read back from services, topics and mailbox, none from the script's memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from demo.story import Story
from demo.topics import Listener, events_of, everything
from shared import reference
from shared.cloudevents import Envelope, Record
from shared.contracts import REGISTRY
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

    def say(self, name: str, value: str, holds: bool = True) -> None:
        self.lines.append((name, value))
        if not holds:
            self.failed.append(f"{name}: {value}")


async def read_back(
    story: Story, endpoints: dict[str, Any], admin: Kafka, listeners: Sequence[Listener], http: httpx.AsyncClient
) -> Summary:
    """Ask everybody."""
    summary = Summary()
    call, organiser = story._gateway.call, story.organiser
    cohort = story.cohort_id

    composition = await call(organiser, "GET", f"/enrollment/v1/cohorts/{cohort}/composition")
    given = {group.kind.value: group.count.value for group in story.scenario.agencies}
    wanted = sum(given.values())
    groups = [composition[name] for name in ("ministries", "non_ministry", "local_governments")]
    summary.say(
        "composition",
        f"{composition['participants']} participants"
        f" = {groups[0]} Kementerian + {groups[1]} LPNK and LTN + {groups[2]} Pemda",
        composition["participants"] == wanted == sum(groups) and groups[0] == given.get("ministry", 0),
    )

    await _timetable(summary, story)
    await _outcomes(summary, story)

    deliveries = await _pages(story, f"/notification/v1/deliveries?limit=500&cohort_id={cohort}")
    by_channel = Counter((d["channel"], d["status"]) for d in deliveries)
    told = ", ".join(f"{channel} {status} {n}" for (channel, status), n in sorted(by_channel.items()))
    mails = (await http.get(endpoints["mail"]["http"] + "/messages")).json()
    message_ids = {mail["headers"].get("Message-ID") for mail in mails}
    emails = by_channel["email", "sent"]
    summary.say("messages by channel", told, {status for _, status in by_channel} == {"sent"})
    summary.say("mailbox", f"{len(mails)} e-mails arrived", len(mails) == len(message_ids) == emails)

    topics = await everything(admin)
    await _topics(summary, topics, listeners)
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
    first_group = sorted({group for session in sessions for group in session["group_ids"]})[0]
    hours: Counter[str] = Counter()
    for session in sessions:
        if first_group in session["group_ids"]:
            hours[session["mode"]] += session["jp"]
    asynchronous = sum(module["jp_asynchronous"] for module in schedule["modules"])
    curriculum = reference.curriculum(schedule["curriculum_version"])
    on_campus = hours["distance"] + hours["classical"] + asynchronous
    summary.say("sessions", ", ".join(f"{mode} {n}" for mode, n in sorted(modes.items())))
    summary.say(
        "training hours",
        f"{hours['distance']} JP distance + {asynchronous} JP self-study + {hours['classical']} JP classical"
        f" = {on_campus} JP (curriculum {curriculum.jp_on_campus.value})"
        f" + {curriculum.jp_workplace.value} JP declared for the workplace",
        on_campus == curriculum.jp_on_campus.value,
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
    summary.say("certificates", str(len(certificates)), len(certificates) == len(decided))
    shown = await call(NOBODY, "GET", f"/assessment/v1/verify/{certificates[0]}")
    summary.say(
        "a certificate, verified in public", f"{shown['number']}: {shown['kind']}, {shown['holder']}, {shown['jp']} JP"
    )
    summary.participant = graduates[0]["id"]


async def _topics(summary: Summary, topics: dict[str, list[Record]], listeners: Sequence[Listener]) -> None:
    dead = sum(len(records) for name, records in topics.items() if name.endswith(".dlq"))
    ids: set[str] = set()
    repeated = 0
    for name, records in topics.items():
        if name.endswith(".dlq") or name.startswith("training.agency."):
            continue
        events = events_of(records)
        for record, event in zip(records, events, strict=True):
            fact = REGISTRY[event.type].model_validate_json(record.value or b"")
            if getattr(fact, "enrollment_id", None) == summary.participant and event.source != RESTRICTED:
                summary.facts.append((event.time, event.type, getattr(fact, "module_id", "")))
            repeated += event.id in ids
            ids.add(event.id)
        summary.events += events
        summary.say(f"events on {name}", str(len(events)), bool(events))
    summary.digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]
    summary.say("digest of all event ids", f"{summary.digest} ({len(ids)} events, {repeated} sent twice)")
    summary.say("dead letters", str(dead), dead == 0)
    for listener in listeners:
        on_topic = len(topics[listener.topic])
        own = Counter(event.type.rpartition(".")[0].rpartition(".")[2] for event in listener.heard)
        most = ", ".join(f"{name} {n}" for name, n in own.most_common(4))
        summary.say(
            f"agency {listener.code} heard",
            f"{len(listener.heard)} facts of its own topic, no gap, none twice ({most}, …)",
            bool(listener.heard) and not listener.faults and len(listener.heard) == on_topic,
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
