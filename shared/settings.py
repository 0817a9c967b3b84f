"""What an operator sets, from the environment. A wrong or missing setting stops the process with one line naming it."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pymongo import uri_parser
from pymongo.errors import PyMongoError

from shared import clock
from shared.kafka import Kafka, Protocol


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("not an http or https URL")
    return value


def _brokers(value: str) -> str:
    for broker in value.split(","):
        found = re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", broker)
        if found is None or not 0 < int(found[1]) < 65_536:
            raise ValueError("not host:port, or several of them separated by commas")
    return value


def _mongo_uri(value: SecretStr) -> SecretStr:
    uri = value.get_secret_value()
    try:
        if uri.startswith("mongodb+srv://"):  # what it stands for is asked of the network, which may be away
            sound = bool(urlsplit(uri).hostname)
        else:
            sound = bool(uri_parser.parse_uri(uri))
    except (PyMongoError, ValueError):
        sound = False
    if not sound:
        raise ValueError("not a connection string of MongoDB")
    return value


def _certificates(value: str) -> str:
    try:
        ssl.create_default_context(cafile=value)
    except OSError:
        raise ValueError("not a file of certificates") from None
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""An address that is spoken to by HTTP."""
Port = Annotated[int, Field(ge=0, le=65_535)]
"""A port of TCP; 0 is any that is free."""


class Settings(BaseSettings):
    """Settings that every service has. Each is read from the environment variable of its name in upper case,

    or from a file of its name in one of the folders that `SECRETS_DIR` names, separated by colons.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    environment: Literal["development", "production"] = "production"
    """In development a virtual clock and unprotected connections are allowed."""
    mongo_uri: Annotated[SecretStr, AfterValidator(_mongo_uri)]
    """Connection string of the service's own user."""
    mongo_database: str = Field(default="", pattern=r'^[^/\\. "$*<>:|?\x00]{0,63}$')
    """Database of this service; by default its name."""
    mongo_driver: Literal["motor", "pymongo"] = "motor"
    """Which driver speaks to MongoDB."""
    kafka_bootstrap: Annotated[str, AfterValidator(_brokers)]
    """host:port of one or more brokers, separated by commas."""
    kafka_security_protocol: Protocol = "SASL_SSL"
    """How the broker is spoken to."""
    kafka_username: str | None = None
    """The service's SCRAM user."""
    kafka_password: SecretStr | None = None
    """The password of that user."""
    kafka_ca_file: Annotated[str, AfterValidator(_certificates)] | None = None
    """Certificate authority that signed the broker's certificate."""
    kafka_admin_username: str | None = None
    """A user that may create topics, users and ACLs; only `prepare` uses it."""
    kafka_admin_password: SecretStr | None = None
    """The password of that user."""
    kafka_replication: int = Field(default=1, ge=1)
    """Replication factor of topics that `prepare` creates."""
    http_host: str = "127.0.0.1"
    """Address on which the gateway reaches this service."""
    http_port: Port = 8000
    """Port on which the gateway reaches this service."""
    internal_host: str = "127.0.0.1"
    """Address of health, metrics and internal routes; the gateway does not know it."""
    internal_port: Port = 8001
    """Port of health, metrics and internal routes."""
    oidc_issuer: HttpUrl
    """URL of the issuer of tokens (OpenID Connect discovery below it)."""
    client_id: str | None = None
    """This service's own client at the issuer, to call other services."""
    client_secret: SecretStr | None = None
    """The secret of that client."""
    installation_key: SecretStr = Field(min_length=16)
    """Secret of this installation; turns machine callers' subjects into opaque ids."""
    clock_source: str | None = None
    """File that holds the virtual instant of a played scenario. Development only."""
    instance: str = Field(default_factory=socket.gethostname)
    """Name of this worker among the workers of its service; stable over restarts, different for each."""
    lease_seconds: float = Field(default=6.0, gt=0.1)
    """How long a worker that vanished keeps the others from publishing in its place."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log lines that are written."""
    otlp_endpoint: str | None = None
    """Collector to which traces are sent by OTLP over HTTP, as http://host:4318; without, nothing is traced."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.environment != "development":
            if self.clock_source:
                raise ValueError("CLOCK_SOURCE: a virtual clock is refused outside development")
            if self.kafka_security_protocol == "PLAINTEXT":
                raise ValueError("KAFKA_SECURITY_PROTOCOL: PLAINTEXT is refused outside development")
        if self.clock_source:
            try:
                clock.instant_in(Path(self.clock_source))
            except (OSError, ValueError):
                raise ValueError("CLOCK_SOURCE: not a file that holds an instant") from None
        if self.kafka_security_protocol != "PLAINTEXT" and not (self.kafka_username and self.kafka_password):
            raise ValueError("KAFKA_USERNAME, KAFKA_PASSWORD: both are needed with " + self.kafka_security_protocol)
        return self

    def kafka(self, *, admin: bool = False) -> Kafka:
        """How to reach the broker, as this service or as the administrator."""
        password = self.kafka_admin_password if admin else self.kafka_password
        return Kafka(
            self.kafka_bootstrap,
            self.kafka_security_protocol,
            self.kafka_admin_username if admin else self.kafka_username,
            password.get_secret_value() if password else None,
            self.kafka_ca_file,
        )


C = TypeVar("C", bound=Settings)


def _apart(cls: type[C]) -> type[C]:
    """The same settings, read from what they are given and from secrets' files, not from the process's environment."""

    class Apart(cls):  # type: ignore[misc, valid-type]
        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, **sources: Any) -> tuple[Any, ...]:
            return sources["init_settings"], sources["file_secret_settings"]

    return Apart


def from_environment(cls: type[C], environment: Mapping[str, str] | None = None) -> C:
    """The settings, or `SystemExit` with one line that names everything that is wrong, and no value.

    An environment that is given stands in the place of the process's own, nothing of which then counts.
    """
    named = (os.environ if environment is None else environment).get("SECRETS_DIR", "")
    secrets = [Path(folder) for folder in named.split(os.pathsep) if folder]
    if not all(folder.is_dir() for folder in secrets):
        raise SystemExit("settings: SECRETS_DIR: not a folder")
    try:
        if environment is None:
            return cls(_secrets_dir=secrets or None)
        given: dict[str, Any] = {
            name: environment[name.upper()] for name in cls.model_fields if name.upper() in environment
        }
        return _apart(cls)(_secrets_dir=secrets or None, **given)
    except ValidationError as error:
        wrong = []
        for issue in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in issue["loc"]).upper()
            wrong.append(f"{name}: {issue['msg']}" if name else issue["msg"].removeprefix("Value error, "))
        raise SystemExit("settings: " + "; ".join(wrong)) from None
