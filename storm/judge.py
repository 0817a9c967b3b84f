"""What is wrong with what was found, when everything has come to rest: pure counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Seen:
    """A record of a topic: which fact of which subject, under which id, with which bytes."""

    subject: str
    sequence: int
    id: str
    value: bytes


@dataclass(slots=True)
class Verdict:
    """How often each promise was broken, and how many records came twice (which is allowed: they carry the same id)."""

    events: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    duplicates: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Nothing lost, nothing doubled, nothing out of order."""
        return not (self.lost or self.doubled or self.disordered)

    def __iadd__(self, other: Verdict) -> Verdict:
        for name in ("events", "lost", "doubled", "disordered", "duplicates"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong += other.wrong
        return self


def judge_topic(name: str, records: Iterable[Seen], committed: Mapping[str, int]) -> Verdict:
    """A topic against what its publisher committed: per subject 1 … n without gaps, in order once repeats are left out.

    A repeat has the id and the bytes of the first; two ids for one place in the sequence are a fact announced twice.
    """
    verdict = Verdict()
    first: dict[str, Seen] = {}
    last: dict[str, int] = {}
    for record in records:
        verdict.events += 1
        if (known := first.get(record.id)) is not None:
            verdict.duplicates += 1
            if known != record:
                verdict.doubled += 1
                verdict.wrong.append(f"{name}: {record.subject} {record.sequence} came again with other content")
            continue
        first[record.id] = record
        expected = last.get(record.subject, 0) + 1
        if record.sequence < expected:
            verdict.doubled += 1
            verdict.wrong.append(f"{name}: {record.subject} {record.sequence} under a second id")
        elif record.sequence > expected:
            verdict.disordered += 1
            verdict.wrong.append(f"{name}: {record.subject} {record.sequence} where {expected} was due")
        last[record.subject] = max(record.sequence, last.get(record.subject, 0))
    present: dict[str, set[int]] = {}
    for record in first.values():
        present.setdefault(record.subject, set()).add(record.sequence)
    for subject, number in committed.items():
        missing = set(range(1, number + 1)) - present.get(subject, set())
        verdict.lost += len(missing)
        if missing:
            verdict.wrong.append(f"{name}: {subject} lacks {sorted(missing)[:5]}")
    for subject, numbers in present.items():
        if extra := numbers - set(range(1, committed.get(subject, 0) + 1)):
            verdict.doubled += len(extra)
            verdict.wrong.append(f"{name}: {subject} has {sorted(extra)[:5]}, which were never committed")
    return verdict


def judge_effects(committed: Mapping[str, int], heard: Mapping[str, tuple[int, int]]) -> Verdict:
    """What the hearing service made of it: by subject (how many it counted, how many came out of turn)."""
    verdict = Verdict()
    for subject in sorted({*committed, *heard}):
        expected, (counted, out_of_turn) = committed.get(subject, 0), heard.get(subject, (0, 0))
        verdict.lost += max(0, expected - counted)
        verdict.doubled += max(0, counted - expected)
        verdict.disordered += out_of_turn
        if counted != expected or out_of_turn:
            verdict.wrong.append(f"effects: {subject} counted {counted} of {expected}, {out_of_turn} out of turn")
    return verdict
