"""What an operator sets, from the environment. A wrong or missing setting stops the process with one line naming it."""

from __future__ import annotations

import socket
from typing import Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.kafka import Kafka, Protocol


class Settings(BaseSettings):
    """Settings that every service has. Each is read from the environment variable of its name in upper case,

    or from a file of its name under `SECRETS_DIR`.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    environment: Literal["development", "production"] = "production"
    """In development a virtual clock and unprotected connections are allowed."""
    mongo_uri: SecretStr
    """Connection string of the service's own user."""
    mongo_database: str = ""
    """Database of this service; by default its name."""
    mongo_driver: Literal["motor", "pymongo"] = "motor"
    """Which driver speaks to MongoDB."""
    kafka_bootstrap: str
    """host:port of one or more brokers, separated by commas."""
    kafka_security_protocol: Protocol = "SASL_SSL"
    """How the broker is spoken to."""
    kafka_username: str | None = None
    """The service's SCRAM user."""
    kafka_password: SecretStr | None = None
    """The password of that user."""
    kafka_ca_file: str | None = None
    """Certificate authority that signed the broker's certificate."""
    kafka_admin_username: str | None = None
    """A user that may create topics, users and ACLs; only `prepare` uses it."""
    kafka_admin_password: SecretStr | None = None
    """The password of that user."""
    kafka_replication: int = Field(default=1, ge=1)
    """Replication factor of topics that `prepare` creates."""
    http_host: str = "127.0.0.1"
    """Address on which the gateway reaches this service."""
    http_port: int = Field(default=8000, ge=0, le=65535)
    """Port on which the gateway reaches this service."""
    internal_host: str = "127.0.0.1"
    """Address of health, metrics and internal routes; the gateway does not know it."""
    internal_port: int = Field(default=8001, ge=0, le=65535)
    """Port of health, metrics and internal routes."""
    oidc_issuer: str
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
    gateway_url: str = ""
    """Address of the gateway as its callers see it."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.environment != "development":
            if self.clock_source:
                raise ValueError("CLOCK_SOURCE: a virtual clock is refused outside development")
            if self.kafka_security_protocol == "PLAINTEXT":
                raise ValueError("KAFKA_SECURITY_PROTOCOL: PLAINTEXT is refused outside development")
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


def from_environment(cls: type[C]) -> C:
    """The settings, or `SystemExit` with one line that names everything that is wrong, and no value."""
    import os

    try:
        return cls(_secrets_dir=os.environ.get("SECRETS_DIR"))
    except ValidationError as error:
        wrong = []
        for issue in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in issue["loc"]).upper()
            wrong.append(f"{name}: {issue['msg']}" if name else issue["msg"].removeprefix("Value error, "))
        raise SystemExit("settings: " + "; ".join(wrong)) from None
