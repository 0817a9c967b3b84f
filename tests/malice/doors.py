"""Both ports of a service, without their sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from shared.identity import routes_of
from shared.mongo import Database
from shared.service import Service
from tests.malice.worlds import SETTINGS
from tests.support import api, settings_for


@asynccontextmanager
async def doors(service: Service, database: Database) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """For every route that the service serves a client of the port that serves it."""
    settings = SETTINGS.get(service.name, {})
    made = settings_for(service.settings, **settings)
    apps = (service.public_app(database, made), service.internal_app(database, made))
    async with (
        api(service, database, **settings) as public,
        api(service, database, internal=True, **settings) as internal,
    ):
        yield {
            f"{method} {route.path}": client
            for app, client in zip(apps, (public, internal), strict=True)
            for route in routes_of(app)
            for method in route.methods or ()
        }
