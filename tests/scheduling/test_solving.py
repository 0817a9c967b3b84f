"""The solver's process: a search is asked for, told of while it lasts, stopped, and becomes a draft; on a database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.scheduling import commands, domain
from services.scheduling.domain import Schedule, Search, SearchStatus, Trainer
from services.scheduling.solver.search import solve
from services.scheduling.solving import solve_searches
from shared.errors import IdTaken, NotFound, Unavailable
from shared.lease import Lease
from shared.mongo import Database, Transaction
from shared.service import Context
from tests.scheduling.story import BEFORE, Story, draft, group, know, staff, trainer_id
from tests.support import clock_at, settings_for, uid, until

pytestmark = pytest.mark.usefixtures("compiled")


@asynccontextmanager
async def solving(database: Database) -> AsyncIterator[Context]:
    """The solver at work for as long as the context lasts."""
    context = Context(database, settings_for(), None, asyncio.Event())  # type: ignore[arg-type]
    work = asyncio.create_task(solve_searches(context))
    try:
        yield context
    finally:
        context.stopping.set()
        await asyncio.wait_for(work, 20)


async def ask(database: Database, story: Story, seconds: int = 1, asked: str = "search") -> Search:
    return (await commands.ask_search(story.schedule_id, story.cohort_id, seconds, asked, database))[0]


async def over(database: Database, id: str) -> Search:
    async def ended() -> bool:
        found = await database.get(Search, id)
        return found is not None and found.over

    await until(ended, seconds=120)
    found = await database.get(Search, id)
    assert found is not None
    return found


async def test_a_search_becomes_a_draft_that_can_be_put_in_force(database: Database) -> None:
    story = Story()
    with clock_at(BEFORE):
        await know(database, story)
        await group(database, story)
        await staff(database)
        await ask(database, story)
        async with solving(database):
            search = await over(database, story.schedule_id)
        assert (search.status, search.adopted) == (SearchStatus.DONE, True)
        assert search.progress is not None and search.progress.clashes == 0 and search.progress.tries > 0
        found = await database.get(Schedule, story.schedule_id)
        assert found is not None and found.cost["S1"] == 0
        assert sum(found.cost.values()) == search.progress.cost
        await commands.publish(story.schedule_id, database)


async def test_a_draft_is_replaced_by_a_better_one_only(database: Database) -> None:
    story = Story()
    with clock_at(BEFORE):
        await know(database, story)
        await staff(database)
        simple = await draft(database, story)

        async def spoil(tx: Transaction) -> Schedule:
            return tx.save((await tx.require(Schedule, simple.id)).but(cost={**simple.cost, "S1": 8}))

        simple = await database.transaction(spoil)
        await ask(database, story)
        async with solving(database):
            first = await over(database, story.schedule_id)
            better = await database.get(Schedule, story.schedule_id)
            assert better is not None and first.adopted
            assert sum(better.cost.values()) < sum(simple.cost.values())
            await ask(database, story, seconds=2, asked="once more")
            again = await over(database, story.schedule_id)
        kept = await database.get(Schedule, story.schedule_id)
        assert kept is not None and sum(kept.cost.values()) <= sum(better.cost.values())
        assert again.adopted == (kept != better)


async def test_a_timetable_in_force_is_never_replaced(database: Database) -> None:
    story = Story()
    with clock_at(BEFORE):
        await know(database, story)
        await group(database, story)
        await staff(database)
        await draft(database, story)
        await ask(database, story)
        await commands.publish(story.schedule_id, database)
        in_force = await database.get(Schedule, story.schedule_id)
        async with solving(database):
            search = await over(database, story.schedule_id)
        assert (search.status, search.reason) == (SearchStatus.FAILED, "already-published")
        assert await database.get(Schedule, story.schedule_id) == in_force
        with pytest.raises(domain.AlreadyPublished):
            await ask(database, story, seconds=2, asked="after that")


async def test_a_timetable_put_in_force_during_a_search_is_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story()
    found, go_on = threading.Event(), threading.Event()

    def slow(problem: Any, **how: Any) -> Any:
        solved = solve(problem, **how)
        found.set()
        go_on.wait(30)
        return solved

    monkeypatch.setattr("services.scheduling.solving.solve", slow)
    with clock_at(BEFORE):
        await know(database, story)
        await group(database, story)
        await staff(database)
        await draft(database, story)
        await ask(database, story)
        async with solving(database):
            await asyncio.to_thread(found.wait, 60)
            await commands.publish(story.schedule_id, database)
            in_force = await database.get(Schedule, story.schedule_id)
            go_on.set()
            search = await over(database, story.schedule_id)
        assert (search.status, search.reason) == (SearchStatus.FAILED, "already-published")
        assert await database.get(Schedule, story.schedule_id) == in_force


async def test_where_time_was_too_short_it_does_not_say_that_there_is_no_timetable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hasty(problem: Any, *, seconds: float, **how: Any) -> Any:
        return solve(problem, steps=1, **how)

    monkeypatch.setattr("services.scheduling.solving.solve", hasty)
    story = Story()
    with clock_at(BEFORE):
        await know(database, story)
        await staff(database)
        await ask(database, story)
        async with solving(database):
            search = await over(database, story.schedule_id)
    assert (search.status, search.reason) == (SearchStatus.FAILED, "not-found-in-time")


async def test_it_tells_how_far_it_is_and_stops_when_asked_with_the_best_so_far(database: Database) -> None:
    story = Story()
    seen: list[Any] = []
    with clock_at(BEFORE):
        await know(database, story)
        await staff(database)
        await ask(database, story, seconds=600)
        async with solving(database):
            for _ in range(600):
                search = await database.get(Search, story.schedule_id)
                assert search is not None
                if search.progress is not None and search.progress not in seen:
                    seen.append(search.progress)
                if len([p for p in seen if p.phase == "searching"]) >= 3:
                    break
                await asyncio.sleep(0.05)
            stopped = await commands.stop_search(story.schedule_id, database)
            assert stopped.stopping and stopped.status is SearchStatus.SEARCHING
            search = await over(database, story.schedule_id)
        assert seen[0].phase == "compiling" and seen[-1].by_rule
        assert (search.status, search.adopted) == (SearchStatus.DONE, True)
        assert (await commands.stop_search(story.schedule_id, database)).status is SearchStatus.DONE


async def test_a_search_whose_process_died_is_done_by_the_next(database: Database) -> None:
    story = Story()
    with clock_at(BEFORE):
        await know(database, story)
        await staff(database)
        await ask(database, story)
        dead = Lease(database, f"search/{story.schedule_id}", 2.0)
        assert await dead.keep()
        async with solving(database):
            await asyncio.sleep(1)
            search = await database.get(Search, story.schedule_id)
            assert search is not None and search.status is SearchStatus.ASKED
            assert (await over(database, story.schedule_id)).status is SearchStatus.DONE


async def test_a_solver_that_is_ended_leaves_the_search_to_the_next(database: Database) -> None:
    story = Story()
    with clock_at(BEFORE):
        await know(database, story)
        await staff(database)
        await ask(database, story, seconds=3)
        async with solving(database):

            async def begun() -> bool:
                search = await database.get(Search, story.schedule_id)
                return search is not None and search.progress is not None

            await until(begun, seconds=30)
        left = await database.get(Search, story.schedule_id)
        assert left is not None and not left.over
        async with solving(database):
            assert (await over(database, story.schedule_id)).adopted


async def test_what_cannot_be_placed_says_why(database: Database) -> None:
    story = Story()
    with clock_at(BEFORE):
        await know(database, story)
        await staff(database)
        for number in range(2, 5):
            await commands.register_trainer(Trainer(id=trainer_id(number), modules=[]), database, None)
        await ask(database, story)
        async with solving(database):
            search = await over(database, story.schedule_id)
        assert (search.status, search.reason) == (SearchStatus.FAILED, "not-placeable")
        assert search.missing["shortages"][0]["short_by_jp"] == 16


async def test_a_calendar_that_is_too_short_is_explained_by_the_smallest_clash(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.scheduling.solving.EXPLAIN_SECONDS", 100.0)  # a busy machine needs more than 20
    story = replace(Story(), starts_on=Story().starts_on + timedelta(days=1))
    with clock_at(BEFORE):
        await know(database, story)
        await staff(database)
        await ask(database, story)
        async with solving(database):
            search = await over(database, story.schedule_id)
    assert (search.status, search.reason) == (SearchStatus.FAILED, "does-not-fit")
    assert search.missing["fewest"] is True
    assert "all of distance ends before any of workplace begins" in search.missing["clash"]


async def test_an_error_of_the_engine_ends_its_search_and_not_those_that_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, other = Story(), Story(n=2)

    def broken(problem: Any, **how: Any) -> Any:
        if how["seconds"] == 7:
            raise AssertionError("miscounted")
        return solve(problem, **how)

    monkeypatch.setattr("services.scheduling.solving.solve", broken)
    with clock_at(BEFORE):
        await know(database, story)
        await know(database, other)
        await staff(database)
        await ask(database, story, seconds=7)
        await ask(database, other)
        async with solving(database):
            first, second = await over(database, story.schedule_id), await over(database, other.schedule_id)
    assert (first.status, first.reason) == (SearchStatus.FAILED, "search-broken")
    assert (second.status, second.adopted) == (SearchStatus.DONE, True)


async def test_the_same_request_is_one_search_and_another_waits_for_its_end(database: Database) -> None:
    story, other = Story(), Story(n=2)
    with clock_at(BEFORE):
        await know(database, story)
        await know(database, other)
        first = await ask(database, story)
        assert (await ask(database, story)).asked_at == first.asked_at
        with pytest.raises(domain.SearchUnderWay):
            await ask(database, story, seconds=2, asked="another")
        with pytest.raises(IdTaken):
            await commands.ask_search(story.schedule_id, other.cohort_id, 1, "theirs", database)
        with pytest.raises(domain.CohortUnknown):
            await commands.ask_search(uid(77, 2), uid(77, 1), 1, "nobody's", database)
        with pytest.raises(NotFound):
            await commands.stop_search(uid(78, 2), database)


async def test_a_database_that_is_away_for_a_while_ends_no_search(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, refused = Story(), 0
    real = commands.note_progress

    async def away(*arguments: Any) -> bool:
        nonlocal refused
        if refused < 3:
            refused += 1
            raise Unavailable
        return await real(*arguments)

    monkeypatch.setattr(commands, "note_progress", away)
    with clock_at(BEFORE):
        await know(database, story)
        await staff(database)
        await ask(database, story, seconds=2)
        async with solving(database):
            assert (await over(database, story.schedule_id)).adopted
    assert refused == 3
