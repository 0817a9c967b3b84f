"""The reference cohort and its neighbours on the calendar: where the curriculum fits, how, and why it does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from services.scheduling import timetable
from services.scheduling.solver.check import check
from services.scheduling.solver.placement import NoPlacement
from services.scheduling.solver.problem import Plan, Problem
from services.scheduling.timetable import Dated, Grid, NoRoomInCalendar, Room, StageDays, Trainer
from shared import reference
from tests.scheduling.story import CURRICULUM, MODULES, SEVENTEEN_WEEKS, START
from tests.support import printed_by_processes

HOLIDAYS = reference.holidays("id", 2022)
JAKARTA = ZoneInfo("Asia/Jakarta")
TRAINERS = [Trainer(f"trainer-{n}", frozenset(MODULES)) for n in range(4)]
ROOMS = [Room(f"video-{n}", True, 40) for n in range(2)] + [Room(f"class-{n}", False, 40) for n in range(2)]


def stages(holidays: frozenset[date] = HOLIDAYS, start: date = START) -> list[StageDays]:
    return timetable.stages(CURRICULUM, start, start + SEVENTEEN_WEEKS, holidays)


def reference_case() -> tuple[Grid, Problem, Plan, list[Dated]]:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    given = timetable.problem(grid, size=37, trainers=TRAINERS, rooms=ROOMS, taken={})
    plan = timetable.solve(given)
    return grid, given, plan, timetable.dated(grid, given, plan)


# --- the calendar ------------------------------------------------------------------------------------------------


def test_the_reference_cohort_has_36_training_days_60_days_at_work_and_5_classical_days() -> None:
    distance, workplace, classical = stages()
    assert (distance.first, distance.last, len(distance.days)) == (date(2022, 2, 21), date(2022, 4, 13), 36)
    assert (workplace.first, workplace.last) == (date(2022, 4, 14), date(2022, 6, 12))
    assert (workplace.last - workplace.first).days + 1 == 60 and workplace.days == ()
    assert classical.days == tuple(date(2022, 6, day) for day in range(13, 18))
    assert all(day.weekday() < 5 and day not in HOLIDAYS for day in (*distance.days, *classical.days))


def test_the_curriculum_declares_290_hours_on_campus_and_540_at_the_workplace() -> None:
    hours = [module.jp.value for module in CURRICULUM.modules]
    assert sum(h.total for h in hours) == CURRICULUM.jp_on_campus.value == 290
    assert CURRICULUM.jp_workplace.value == 540
    creative = next(module for module in CURRICULUM.modules if module.code == "berpikir-kreatif")
    assert creative.jp.value.total == 18
    assert [agenda.number for agenda in CURRICULUM.agendas] == ["0", "I", "II", "III", "IV"]


@pytest.mark.parametrize("closed", [*stages()[0].days, *stages()[2].days])
def test_one_more_closed_weekday_of_a_taught_stage_is_refused_with_stage_days_and_reason(closed: date) -> None:
    with pytest.raises(NoRoomInCalendar) as refusal:
        stages(HOLIDAYS | {closed})
    assert (refusal.value.stage, refusal.value.short_by_days) == ("classical", 5)  # a week later: until Friday 24 June
    assert refusal.value.last_day == date(2022, 6, 19)
    assert closed in refusal.value.closed


def test_one_more_closed_weekday_at_the_workplace_changes_nothing() -> None:
    workplace = stages()[1]
    usual = stages()
    for offset in range(60):
        assert stages(HOLIDAYS | {workplace.first + timedelta(days=offset)}) == usual


def test_with_a_holiday_less_the_cohort_gains_a_day_for_the_workplace_and_ends_no_later() -> None:
    distance, workplace, classical = stages(HOLIDAYS - {date(2022, 3, 3)})
    assert distance.last == date(2022, 4, 12)
    assert classical.first >= workplace.last + timedelta(days=1)
    assert classical.last <= date(2022, 6, 17)


def test_the_stage_that_first_runs_out_of_days_is_named() -> None:
    with pytest.raises(NoRoomInCalendar) as refusal:
        timetable.stages(CURRICULUM, START, date(2022, 4, 8), HOLIDAYS)
    assert refusal.value.stage == "distance"
    with pytest.raises(NoRoomInCalendar) as refusal:
        timetable.stages(CURRICULUM, START, date(2022, 6, 1), HOLIDAYS)
    assert refusal.value.stage == "workplace"


def test_a_classical_block_is_never_torn_over_a_weekend() -> None:
    for shift in range(0, 70, 7):
        start = START + timedelta(days=shift)
        try:
            classical = stages(frozenset({start + timedelta(days=99)}), start)[2]
        except NoRoomInCalendar:
            continue
        assert classical.first.weekday() == 0
        assert classical.last - classical.first == timedelta(days=4)


# --- the plan ----------------------------------------------------------------------------------------------------


def test_every_declared_hour_with_a_clock_time_is_placed_once_for_every_group() -> None:
    _, given, plan, dated = reference_case()
    assert check(given, plan) == []
    for group in (1, 2):
        placed: Counter[str] = Counter()
        for session in dated:
            if group in session.groups:
                placed[session.module] += session.jp
        assert placed == {module.code: module.placed_jp for module in CURRICULUM.modules}


def test_no_distance_day_has_more_than_6_hours_and_no_classical_day_more_than_8() -> None:
    load: Counter[tuple[str, int, date]] = Counter()
    for session in reference_case()[3]:
        for group in session.groups:
            load[session.mode, group, session.day] += session.jp
    assert max(jp for (mode, _, _), jp in load.items() if mode == "distance") <= 6
    assert max(jp for (mode, _, _), jp in load.items() if mode == "classical") <= 8


def test_a_session_is_45_minutes_an_hour_and_crosses_no_break() -> None:
    templates = {
        mode: [
            (datetime.strptime(clock, "%H:%M").replace(tzinfo=UTC).time(), jp)
            for clock, jp in CURRICULUM.day_templates[mode].value
        ]
        for mode in ("distance", "classical")
    }
    for session in reference_case()[3]:
        starts_at, ends_at = session.starts_at.astimezone(JAKARTA), session.ends_at.astimezone(JAKARTA)
        assert ends_at - starts_at == timedelta(minutes=45 * session.jp)
        assert starts_at.date() == session.day
        blocks = [
            (datetime.combine(session.day, clock, JAKARTA), datetime.combine(session.day, clock, JAKARTA))
            for clock, _ in templates[session.mode]
        ]
        lengths = [timedelta(minutes=45 * jp) for _, jp in templates[session.mode]]
        assert any(
            begins <= starts_at and ends_at <= begins + length
            for (begins, _), length in zip(blocks, lengths, strict=True)
        )


def test_every_training_day_has_a_session_or_self_study_to_do() -> None:
    _, _, _, dated = reference_case()
    placed = stages()
    windows = timetable.asynchronous_windows(CURRICULUM, placed, dated).values()
    held = {session.day for session in dated}
    for stage in placed:
        for day in stage.days:
            assert day in held or any(first <= day <= last for first, last in windows)


def test_every_module_with_self_study_has_a_window_inside_its_stage() -> None:
    _, _, _, dated = reference_case()
    placed = {found.stage.code: found for found in stages()}
    windows = timetable.asynchronous_windows(CURRICULUM, list(placed.values()), dated)
    assert set(windows) == {module.code for module in CURRICULUM.modules if module.jp.value.asynchronous}
    for module in CURRICULUM.modules:
        if module.code in windows:
            first, last = windows[module.code]
            assert placed[module.stage].first <= first <= last <= placed[module.stage].last


def test_self_study_fills_the_days_that_an_early_plan_leaves_empty() -> None:
    _, _, _, dated = reference_case()
    placed = stages()
    for last in range(1, 12):
        empty = {*placed[0].days[-last:], *placed[0].days[: last // 3]}
        early = [session for session in dated if session.day not in empty]
        windows = timetable.asynchronous_windows(CURRICULUM, placed, early).values()
        held = {session.day for session in early}
        assert all(day in held or any(a <= day <= b for a, b in windows) for day in placed[0].days)


def test_an_agenda_begins_when_the_one_before_it_is_over() -> None:
    _, _, _, dated = reference_case()
    ends: list[tuple[datetime, datetime]] = []
    for agenda in CURRICULUM.agendas:
        own = [s for s in dated if s.module in {m.code for m in agenda.modules if m.stage == "distance"}]
        ends.append((min(s.starts_at for s in own), max(s.ends_at for s in own)))
    assert all(before[1] <= after[0] for before, after in pairwise(ends))


def test_learning_groups_meet_apart_where_the_curriculum_says_so_and_in_parallel_where_staff_allows() -> None:
    _, _, _, dated = reference_case()
    grouped = {module.code for module in CURRICULUM.modules if module.grouping == "group"}
    assert {s.module for s in dated if len(s.groups) == 1} == grouped
    parallel = Counter((s.module, s.starts_at) for s in dated if s.module in grouped)
    assert max(parallel.values()) == 2
    by_slot = {(s.starts_at, s.trainer) for s in dated}
    assert len(by_slot) == len(dated)


def test_the_same_question_has_the_same_answer() -> None:
    _, _, first, _ = reference_case()
    _, _, again, _ = reference_case()
    assert first == again


def test_the_same_question_has_the_same_answer_in_every_process() -> None:
    program = (
        "from tests.scheduling.test_timetable import reference_case, early_case; "
        "print([sorted(plan.items()) for plan in (reference_case()[2], early_case()[1])])"
    )
    assert len(printed_by_processes(program)) == 1


def test_a_virtual_session_gets_a_virtual_room_and_a_classical_one_a_room_with_enough_seats() -> None:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    rooms = [Room("video", True, 40), Room("video-2", True, 20), Room("small", False, 19), Room("hall", False, 37)]
    rooms += [Room("class", False, 20)]
    given = timetable.problem(grid, size=37, trainers=TRAINERS, rooms=rooms, taken={})
    dated = timetable.dated(grid, given, timetable.solve(given))
    for session in dated:
        room = next(room for room in rooms if room.id == session.room)
        assert room.virtual == (session.mode == "distance")
        assert room.seats >= (37 if len(session.groups) == 2 else 19)


def test_who_is_away_or_taken_leads_nothing_meanwhile() -> None:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    march = (datetime(2022, 2, 28, 17, tzinfo=UTC), datetime(2022, 3, 31, 17, tzinfo=UTC))
    trainers = [replace(TRAINERS[0], unavailable=(march,)), *TRAINERS[1:]]
    given = timetable.problem(grid, size=37, trainers=trainers, rooms=ROOMS, taken={"trainer-1": [march]})
    dated = timetable.dated(grid, given, timetable.solve(given))
    leading = {s.trainer for s in dated if s.day.month == 3}
    assert leading == {"trainer-2", "trainer-3"}


def test_a_trainer_who_is_there_only_at_the_end_of_an_agenda_still_gets_a_place() -> None:
    """The one who leads it is there on few days of the agenda: the others must make room."""
    given, plan, grid = early_case()
    assert check(given, plan) == []
    dated = timetable.dated(grid, given, plan)
    days = stages()[0].days
    assert {s.day for s in dated if s.trainer == "alone"} <= {days[5], days[6]}


def early_case() -> tuple[Problem, Plan, Grid]:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    days = stages()[0].days
    instants = [datetime.combine(day, datetime.min.time(), JAKARTA).astimezone(UTC) for day in days]
    away = ((instants[0], instants[5]), (instants[7], instants[-1] + timedelta(days=1)))
    alone = Trainer("alone", frozenset({"berpikir-kreatif"}), away)
    trainers = [replace(t, modules=t.modules - {"berpikir-kreatif"}) for t in TRAINERS]
    given = timetable.problem(grid, size=37, trainers=[*trainers, alone], rooms=ROOMS, taken={})
    return given, timetable.solve(given), grid


# --- refusals ----------------------------------------------------------------------------------------------------


def test_a_module_that_nobody_may_lead_is_named() -> None:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    trainers = [replace(t, modules=t.modules - {"manajemen-mutu"}) for t in TRAINERS]
    given = timetable.problem(grid, size=37, trainers=trainers, rooms=ROOMS, taken={})
    assert timetable.unstaffed(given) == ["manajemen-mutu"]


def test_modules_for_which_every_room_is_too_small_are_named() -> None:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    rooms = [room for room in ROOMS if room.virtual] + [Room("class", False, 19)]
    given = timetable.problem(grid, size=37, trainers=TRAINERS, rooms=rooms, taken={})
    assert timetable.unhoused(given) == ["berbagi-hasil", "rencana-tindak-lanjut"]


def test_too_few_hours_of_a_trainer_are_named_with_how_many_are_missing() -> None:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    days = stages()[0].days
    from_third_day = datetime.combine(days[1], datetime.min.time(), JAKARTA).astimezone(UTC)
    alone = Trainer("alone", frozenset({"diagnosa-organisasi"}), ((from_third_day, from_third_day + timedelta(99)),))
    trainers = [replace(t, modules=t.modules - {"diagnosa-organisasi"}) for t in TRAINERS]
    given = timetable.problem(grid, size=37, trainers=[*trainers, alone], rooms=ROOMS, taken={})
    shortage = timetable.shortages(given)
    assert [(s.rule, s.name, s.slots) for s in shortage] == [("H5", "diagnosa-organisasi", 6)]  # 2 of 4 sessions
    with pytest.raises(NoPlacement) as refusal:
        timetable.solve(given)
    assert refusal.value.cls == "diagnosa-organisasi"


def test_two_groups_with_one_trainer_meet_one_after_the_other() -> None:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    distance = frozenset(m.code for m in CURRICULUM.modules if m.stage == "distance")
    trainers = [Trainer("alone", distance), *(replace(t, modules=t.modules - distance) for t in TRAINERS)]
    given = timetable.problem(grid, size=37, trainers=trainers, rooms=ROOMS, taken={})
    plan = timetable.solve(given)
    assert check(given, plan) == []
    starts = Counter(plan[event.id].start for event in given.events if event.cls in distance)
    assert set(starts.values()) == {1}


def test_one_trainer_for_two_groups_in_five_classical_days_is_refused_by_the_missing_hours() -> None:
    grid = Grid.of(CURRICULUM, "Asia/Jakarta", stages())
    given = timetable.problem(grid, size=37, trainers=TRAINERS[:1], rooms=ROOMS, taken={})
    (shortage,) = timetable.shortages(given)
    assert (shortage.rule, shortage.slots) == ("H5", 2 * 16 + 16 + 8 - 5 * 8)
    assert shortage.name == "berbagi-hasil+rencana-tindak-lanjut+seminar-hasil"
    with pytest.raises(NoPlacement):
        timetable.solve(given)
