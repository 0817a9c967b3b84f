"""`python -m benchmarks.roles ROLE`: one process of a run, ours or a floor's. Told what it needs on standard input."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import time
from typing import Any

from benchmarks.world import CALLER, SERVICES, Called, Full, seating
from shared.kafka import Kafka
from shared.mongo import Database
from shared.service import Work


async def _ready() -> None:
    print("ready", file=sys.__stdout__, flush=True)


async def _input_ends() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def _service(told: dict[str, Any]) -> None:
    from shared import logs

    service = SERVICES[told["service"]]
    sys.stdout = sys.stderr  # the log goes where the floor's goes; standard output is spoken to the parent
    logs.setup(service=service.name, role=told["as"], version="0", level="INFO")
    stopping = asyncio.Event()
    made = service.public_app

    def trusting(database: Database, settings: Any) -> Any:
        app = made(database, settings)
        app.state.verifier.trust(told["jwks"])
        return app

    object.__setattr__(service, "public_app", trusting)
    async with service.running(told["as"], service.settings(**told["settings"]), stopping) as work:
        while isinstance(work, Work) and not work.intakes.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await _ready()
        await _input_ends()
        stopping.set()


async def _endpoint(told: dict[str, Any]) -> None:
    import uvicorn

    from benchmarks.floors.endpoint import endpoint
    from benchmarks.site import ISSUER

    app = endpoint(told["mongo_uri"], told["database"], Called.topic, told["jwks"], ISSUER, CALLER)
    log: Any = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    log["handlers"]["access"]["stream"] = "ext://sys.stderr"  # a line a request, as ours; nobody reads our output
    server = uvicorn.Server(uvicorn.Config(app, port=told["port"], lifespan="off", log_config=log))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await _ready()
    await _input_ends()
    server.should_exit = True
    await serving


async def _listener(told: dict[str, Any]) -> None:
    from benchmarks.floors.inbox import listen

    kafka = Kafka(**told["kafka"]).aiokafka()
    listening = asyncio.create_task(
        listen(told["mongo_uri"], told["database"], kafka, told["topic"], told["group"], None, 100)
    )
    await _ready()
    await _input_ends()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def _racer(told: dict[str, Any]) -> None:
    """Waits for its start, then runs all its commands at once; tells how many got a seat, and how long it took."""
    from benchmarks.floors.race import at_once

    database = Database(told["mongo_uri"], told["database"], service=CALLER)
    await database.ping()
    await _ready()
    await asyncio.to_thread(sys.stdin.readline)

    async def one(number: int) -> int:
        work = seating(told["cohort_id"], number)
        try:
            if told["naive"]:
                await at_once(database, work)
            else:
                await database.transaction(work, key=told["cohort_id"], patience=120)
        except Full:
            return 0
        return 1

    began = time.perf_counter()
    seated = await asyncio.gather(*(one(number) for number in told["numbers"]))
    print(json.dumps({"seconds": time.perf_counter() - began, "seated": sum(seated)}), flush=True)
    await database.close()


ROLES = {"service": _service, "endpoint": _endpoint, "listener": _listener, "racer": _racer}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1].partition("-")[0]](json.loads(sys.stdin.readline())))
