"""Attributes on the wire: what we write can be read, and no record whatever stops a consumer."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cloudevents import Record, Unreadable, event_id, read
from shared.inbox import Consumer
from shared.mongo import Database
from tests.shared.sample import COHORT, confirmed
from tests.support import START, record, uid


def changed(**headers: str | bytes | None) -> Record:
    """A good record with some headers set, or with `None` for gone."""
    good = record(confirmed(30), 1)
    kept = {name: value for name, value in good.headers if name not in headers}
    given = {name: value.encode() if isinstance(value, str) else value for name, value in headers.items()}
    told = kept | {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(good, headers=tuple(told.items()))


def test_a_record_tells_its_attributes() -> None:
    envelope = read(record(confirmed(30), 7))
    assert (envelope.subject, envelope.partitionkey, envelope.sequence) == (COHORT, COHORT, 7)
    assert (envelope.source, envelope.agencyid, envelope.time) == ("/training/enrollment", "-", START)
    assert envelope.id == event_id("/training/enrollment", envelope.type, COHORT, 7)


def test_an_attribute_that_we_do_not_know_disturbs_nobody() -> None:
    good = record(confirmed(30), 1)
    more = (("ce_new", b"\xff"), ("ce_new", None), ("", b""), *good.headers)
    assert read(dataclasses.replace(good, headers=more)) == read(good)


UNREADABLE: dict[str, tuple[Record, str]] = {
    "no id": (changed(ce_id=None), "missing-ce_id"),
    "an empty subject": (changed(ce_subject=""), "missing-ce_subject"),
    "a person as subject": (changed(ce_subject="Peserta 01, NIP 198001012005011001"), "subject"),
    "words as type": (changed(ce_type="Peserta 01 terdaftar"), "type"),
    "words as source": (changed(ce_source="/training/Peserta 01"), "source"),
    "words as correlation": (changed(ce_correlationid="198001012005011001"), "correlationid"),
    "words as cause": (changed(ce_causationid="peserta-01@example.go.id"), "causationid"),
    "another version": (changed(ce_specversion="0.3"), "specversion"),
    "an id that is none": (changed(ce_id="196503281990031001"), "id"),
    "an id with a personal number in it": (changed(ce_id=" " * 14 + "196503281990031001"), "id"),
    "a personal number between noughts": (changed(ce_id="00000000-0000-0019-6503-281990031001"), "id"),
    "a cause in no usual form": (changed(ce_causationid="{" + uid(1) + "}"), "causationid"),
    "a type not in UTF-8": (changed(ce_type=b"\xff"), "not-utf8-ce_type"),
    "sequence nought": (changed(ce_sequence="0000000000"), "sequence"),
    "a short sequence": (changed(ce_sequence="1"), "sequence"),
    "a signed sequence": (changed(ce_sequence="+000000001"), "sequence"),
    "Arabic digits": (changed(ce_sequence="٠٠٠٠٠٠٠٠٠١"), "sequence"),
    "no time": (changed(ce_time="yesterday"), "time"),
    "a time in no zone": (changed(ce_time="2022-02-21T01:00:00"), "time"),
    "a time before the first day": (changed(ce_time="0001-01-01T00:00:00+23:59"), "time"),
    "a time after the last day": (changed(ce_time="9999-12-31T23:59:59-23:59"), "time"),
    "recorded after the last day": (changed(ce_recordedtime="9999-12-31T23:59:59-00:01"), "recordedtime"),
    "another key": (changed(ce_partitionkey=uid(2)), "key-differs-from-partitionkey"),
    "no key": (dataclasses.replace(changed(ce_partitionkey=None), key=None), "no-key"),
    "an empty key": (dataclasses.replace(changed(ce_partitionkey=""), key=b""), "no-key"),
    "a key not in UTF-8": (dataclasses.replace(changed(), key=b"\xff"), "key"),
    "a null header": (dataclasses.replace(changed(), headers=(("ce_id", None),)), "null-ce_id"),
    "no headers at all": (dataclasses.replace(changed(), headers=()), "missing-ce_specversion"),
}


@pytest.mark.parametrize(("bad", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_record_that_is_no_event_says_by_a_code_why(bad: Record, reason: str) -> None:
    with pytest.raises(Unreadable) as told:
        read(bad)
    assert told.value.reason == reason


def test_an_attribute_given_twice_is_not_chosen_from() -> None:
    good = record(confirmed(30), 1)
    with pytest.raises(Unreadable, match="duplicate-ce_id"):
        read(dataclasses.replace(good, headers=(*good.headers, ("ce_id", uid(1).encode()))))


HEADERS = [name for name, _ in record(confirmed(30), 1).headers]
TEXT = st.text(max_size=40).map(lambda text: text.encode("utf-8", "ignore"))
ODD = st.one_of(st.none(), st.binary(max_size=40), TEXT)
INSTANTS = st.one_of(st.datetimes(), st.sampled_from([datetime.min, datetime.max]))
OFFSETS = st.sampled_from(["Z", "+23:59", "-23:59", "+00:00", "-12:00", "", "+99:99"])
TIMES = st.builds(lambda instant, offset: (instant.isoformat() + offset).encode(), INSTANTS, OFFSETS)


@given(name=st.sampled_from(HEADERS), value=ODD, time=TIMES, key=ODD, data=ODD)
def test_no_record_whatever_brings_the_consumer_down(
    name: str, value: bytes | None, time: bytes, key: bytes | None, data: bytes | None
) -> None:
    """Anything but a reason would leave the offset where it is, and the partition would wait for ever."""
    good = record(confirmed(30), 1)
    headers: Any = tuple((n, value if n == name else v) for n, v in good.headers)
    for odd in (
        changed(ce_time=time),
        dataclasses.replace(good, headers=headers),
        dataclasses.replace(good, key=key),
        dataclasses.replace(good, headers=headers, key=key, value=data),
    ):
        try:
            assert read(odd).time.tzinfo is UTC
        except Unreadable as error:
            assert error.reason.isascii() and len(error.reason) < 40


async def test_a_record_out_of_time_is_parked_and_the_next_is_handled(database: Database) -> None:
    consumer, heard = Consumer("scheduling"), []

    @consumer.on(type(confirmed(1)))
    async def hear(event: Any, tx: Any) -> None:
        heard.append(event.size)

    fates = await consumer.receive([changed(ce_time="9999-12-31T23:59:59-12:00"), record(confirmed(31), 2)], database)
    assert (fates.parked, fates.handled, heard) == (1, 1, [31])
