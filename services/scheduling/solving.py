"""The solver's process: takes searches that were asked for, one at a time, tells how far each is, drafts the result.

Nothing else loads the engine: it brings a compiler and needs a core of its own. A search whose process died is begun
again by the next that has time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from services.scheduling import commands, domain, store
from services.scheduling.commands import ToPlace
from services.scheduling.domain import Search, SearchProgress
from services.scheduling.solver.anneal import Impossible
from services.scheduling.solver.explain import explain
from services.scheduling.solver.problem import Plan, Problem
from services.scheduling.solver.search import Progress, Solved, solve
from shared.errors import Rejected
from shared.lease import Lease
from shared.mongo import AWAY
from shared.service import Context

LOOK_SECONDS = 0.5
TELL_SECONDS = 0.2
EXPLAIN_SECONDS = 20.0

log = structlog.get_logger("solver")


async def solve_searches(context: Context) -> None:
    """Until told to stop: search for what was asked for, the longest waiting first."""
    backoff = LOOK_SECONDS
    while not context.stopping.is_set():
        try:
            if not await _next(context):
                await _pause(context.stopping, LOOK_SECONDS)
            backoff = LOOK_SECONDS
        except AWAY as error:
            log.warning("searches.waiting", reason=type(error).__name__, seconds=round(backoff, 1))
            await _pause(context.stopping, backoff)
            backoff = min(30.0, backoff * 2)


async def _next(context: Context) -> bool:
    """Do one search of those that nobody does; returns whether there was one."""
    for seen in await store.open_searches(context.database):
        lease = Lease(context.database, f"search/{seen.id}", context.settings.lease_seconds)
        if await lease.keep():
            try:
                search = await context.database.get(Search, seen.id)  # another may have ended it meanwhile
                if search is not None and not search.over:
                    await _search(search, lease, context)
                    return True
            finally:
                await lease.release()
    return False


async def _search(search: Search, lease: Lease, context: Context) -> None:
    log.info("search.begun", schedule_id=search.id, seconds=search.seconds)
    try:
        given = await commands.to_place(search.cohort_id, context.database)
        solved = await _watched(search, given, lease, context)
        if context.stopping.is_set():
            return  # begun again by who comes next
        if solved.violations:
            ended = await context.database.get(Search, search.id)
            if ended is not None and ended.stopping:
                raise domain.SearchStopped
            raise await asyncio.to_thread(_why, given)
        adopted = await _adopted(search.id, given, solved.plan, lease, context)
        log.info("search.ended", schedule_id=search.id, adopted=adopted, tries=solved.moves, cost=solved.cost)
    except domain.DoesNotFit as refusal:
        season = await commands.calendar_of(search.cohort_id, context.database)
        clash = await asyncio.to_thread(_clash, season.problem, season.named)
        await commands.give_up(search.id, domain.DoesNotFit(**refusal.members, **clash), context.database)
    except Rejected as refusal:
        await commands.give_up(search.id, refusal, context.database)
        log.info("search.failed", schedule_id=search.id, reason=refusal.code)
    except AWAY:
        raise
    except Exception as error:  # begun again it would only fail again, and all others wait behind it
        log.error("search.broken", schedule_id=search.id, reason=type(error).__name__, exc_info=True)
        await commands.give_up(search.id, domain.SearchBroken(), context.database)


async def _adopted(id: str, given: ToPlace, plan: Plan, lease: Lease, context: Context) -> bool:
    """Make the result the draft, as soon as the database can take it; returns whether it was better."""
    while True:
        try:
            return await commands.adopt(id, given, plan, context.database)
        except AWAY:
            if context.stopping.is_set():
                raise
            log.warning("search.waiting", schedule_id=id)
            await _pause(context.stopping, LOOK_SECONDS)
            with suppress(*AWAY):
                await lease.keep()


async def _watched(search: Search, given: ToPlace, lease: Lease, context: Context) -> Solved:
    """Search in threads, and tell of it from here until it ends, is stopped, or this process is."""
    seen: list[Progress] = []
    stop = threading.Event()

    def told(progress: Progress) -> bool:
        seen.append(progress)
        return not stop.is_set()

    work = asyncio.create_task(asyncio.to_thread(solve, given.problem, seconds=search.seconds, told=told))
    try:
        while not work.done():
            await asyncio.wait([work], timeout=TELL_SECONDS)
            with suppress(*AWAY):  # a database that is away stops no search; the result waits for it
                await lease.keep()
                if seen and not await commands.note_progress(search.id, _told(seen[-1]), context.database):
                    stop.set()
            if context.stopping.is_set():
                stop.set()
            del seen[:-1]
        solved = await work
    except Impossible as error:
        raise domain.NotPlaceable(clash=[str(error)]) from None
    finally:
        stop.set()
    if seen and not context.stopping.is_set():
        await commands.note_progress(search.id, _told(seen[-1]), context.database)
    return solved


def _told(progress: Progress) -> SearchProgress:
    return SearchProgress(
        phase="compiling" if progress.compiling else "searching",
        seconds=round(progress.seconds, 2),
        clashes=progress.clashes,
        cost=progress.cost // 100,
        by_rule=progress.by_rule,
        tries=progress.moves,
    )


def _why(given: ToPlace) -> Rejected:
    """Why there is no timetable, in words; that there is none is said only where it was shown."""

    def named(slot: int) -> str:
        return given.grid.days[slot // given.problem.slots_per_day][0].isoformat()

    clash = _clash(given.problem, named)
    return domain.NotPlaceable(**clash) if clash["clash"] else domain.NotFoundInTime()


def _clash(problem: Problem, named: Callable[[int], str]) -> dict[str, Any]:
    reason = explain(problem, seconds=EXPLAIN_SECONDS)
    return {"clash": [rule.words(named) for rule in reason.rules], "fewest": reason.smallest}


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
