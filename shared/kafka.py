"""How this process reaches the broker: one set of connection settings for producer, consumers and administration."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any, Literal

from faststream.security import BaseSecurity, SASLScram512

from shared import fetched

fetched.read_leniently()

Protocol = Literal["PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL"]


@dataclass(frozen=True, slots=True)
class Kafka:
    """Where the broker is and as whom we speak to it."""

    bootstrap: str
    protocol: Protocol = "PLAINTEXT"
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None

    @property
    def servers(self) -> list[str]:
        return self.bootstrap.split(",")

    def _ssl(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca_file) if self.protocol == "SASL_SSL" else None

    def aiokafka(self) -> dict[str, Any]:
        """Arguments for aiokafka's clients."""
        arguments: dict[str, Any] = {"bootstrap_servers": self.servers, "security_protocol": self.protocol}
        if self.protocol != "PLAINTEXT":
            arguments |= {
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
                "ssl_context": self._ssl(),
            }
        return arguments

    def faststream(self) -> BaseSecurity | None:
        """The security argument of FastStream's broker."""
        if self.protocol == "PLAINTEXT":
            return None
        context = self._ssl()
        return SASLScram512(self.username or "", self.password or "", ssl_context=context, use_ssl=context is not None)

    def librdkafka(self) -> dict[str, str | int | float | bool]:
        """Configuration for confluent-kafka, which alone can create users and ACLs."""
        configuration: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.protocol,
        }
        if self.protocol != "PLAINTEXT":
            configuration |= {
                "sasl.mechanisms": "SCRAM-SHA-512",
                "sasl.username": self.username or "",
                "sasl.password": self.password or "",
            }
        if self.ca_file:
            configuration["ssl.ca.location"] = self.ca_file
        return configuration
