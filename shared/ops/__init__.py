"""Operators' hands: what an installation is, read from the same settings as its processes.

One service is reached by the environment of its container; a whole installation by a folder of such environments. What
a service declares (topics, rights, groups, timers) is its own `app.py`, loaded by the service's name.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AclBinding
from dotenv import dotenv_values

from shared import broker
from shared.inbox import Consumer
from shared.kafka import Kafka
from shared.mongo import Database
from shared.service import Service
from shared.settings import Settings, from_environment


class Misplaced(Exception):
    """What the operator named is not there; the message says what is."""


@dataclass(frozen=True)
class Site:
    """One service where it runs: what it declares, and the settings by which its neighbours are reached.

    `wrong` is the line that names what is wrong with its settings; then there are none.
    """

    service: Service
    settings: Any = None
    wrong: str = ""

    @property
    def name(self) -> str:
        return self.service.name

    def database(self) -> Database:
        return self.service.database(self.settings)

    @property
    def has_admin(self) -> bool:
        """Whether the broker's administrator is known here; without authentication everybody is."""
        return self.settings.kafka_admin_username is not None or self.settings.kafka_security_protocol == "PLAINTEXT"

    def kafka(self) -> Kafka:
        """The broker as the most privileged user that is known here."""
        settings: Settings = self.settings
        return settings.kafka(admin=settings.kafka_admin_username is not None)

    @property
    def topics(self) -> list[broker.Topic]:
        return broker.topics_of(self.service.name, self.service.consumers)

    @property
    def rights(self) -> list[AclBinding]:
        """None where the broker asks nobody who he is."""
        if self.settings.kafka_security_protocol == "PLAINTEXT":
            return []
        user = self.settings.kafka_username or ""
        return broker.rights_of(user, self.topics, self.service.consumers, self.service.writes_prefix)

    async def differences(self) -> list[broker.Difference]:
        """What on the broker is not as this service declares it."""
        return await broker.differences(self.kafka(), self.topics, self.rights, self.service.writes_prefix)

    async def mend(self, found: Sequence[broker.Difference]) -> None:
        """Make it so as far as that can be done without taking anything away."""
        await broker.apply(self.kafka(), found, self.settings.kafka_replication)


def known_services() -> list[str]:
    """The services of this distribution, by name."""
    package = importlib.import_module("services")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg)


def declared(name: str) -> Service:
    """What the service of this name is. Raises `Misplaced`."""
    if name not in known_services():
        raise Misplaced(f"there is no service {name!r}; there are {', '.join(known_services())}")
    service: Service = importlib.import_module(f"services.{name}.app").service
    return service


def sites(environments: Path | None, names: Sequence[str]) -> list[Site]:
    """The services that the operator means, each by its own settings. Raises `Misplaced`.

    `environments` is a folder with a file `<service>.env` for each; without it the process's own environment is that
    of the one service named.
    """
    if environments is None:
        if len(names) != 1:
            raise Misplaced(
                "name the service whose settings this environment holds (--service, or SERVICE), "
                "or a folder with a file of settings for each service (--environments, or ENVIRONMENTS)"
            )
        return [_site(declared(names[0]), dict(os.environ))]
    files = {file.stem: file for file in sorted(environments.glob("*.env"))}
    if not files:
        raise Misplaced(f"{environments}: no <service>.env there")
    if missing := [name for name in names if name not in files]:
        raise Misplaced(f"{environments}: no {missing[0]}.env; there are {', '.join(files)}")
    found = []
    for name in names or files:
        given = dotenv_values(files[name], interpolate=False)
        found.append(_site(declared(name), {key: value for key, value in given.items() if value is not None}))
    return found


def _site(service: Service, environment: dict[str, str]) -> Site:
    try:
        return Site(service, from_environment(service.settings, environment))
    except SystemExit as error:
        return Site(service, wrong=str(error))


def group_of(sites: Sequence[Site], group: str) -> tuple[Site, Consumer]:
    """The consumer of this group, and whose it is. Raises `Misplaced`."""
    there = {consumer.group: (site, consumer) for site in sites for consumer in site.service.consumers}
    if group not in there:
        raise Misplaced(f"there is no group {group!r} here; there are {', '.join(there) or 'none'}")
    return there[group]
