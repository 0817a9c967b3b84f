"""The secrets of a compose installation: made when absent, kept, and handed to each part in a volume of its own.

`python -m ops.init` runs before everything else, at every start. What was drawn once lies in `kept/secrets.json`; every
other file is derived from it and from the settings, so running it again changes nothing, and mends what was taken away.
`rotate NAME` draws one anew, `set NAME` takes one from standard input.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ops import realm
from stack import SERVICES
from stack.broker import copies, node

AUTHORITY_DAYS, CERTIFICATE_DAYS, RENEW_DAYS = 3650, 398, 60
ROTATED = tuple(f"{kind}-{service}" for kind in ("kafka", "mongo", "client") for service in SERVICES)
"""What `rotate` and `set` may change: `prepare` and `ops.database` bring these to broker and database."""
GIVEN = ("smtp-password",)
"""What others draw: only `set`."""


PLAIN = (
    "ENVIRONMENT", "KAFKA_BOOTSTRAP", "KAFKA_REPLICATION", "KAFKA_CA_FILE", "OIDC_ISSUER", "CLOCK_SOURCE", "MAIL_FROM",
    "SMTP_HOST", "SMTP_PORT", "SMTP_SECURITY", "SMTP_USERNAME", "ENROLLMENT_INTERNAL_URL", "CREDENTIALS_DIR",
)  # fmt: skip
"""The settings that are no secrets, which operators' commands need as well."""


class Installation:
    """One installation: what was drawn for it, and the folders from which its parts read."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._file = folder / "kept" / "secrets.json"
        self._kept: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}

    # what is drawn once

    def draw(self) -> None:
        """Draw what is absent."""
        kept = self._kept
        kept.setdefault("cluster-id", base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("="))
        kept.setdefault("mongo-keyfile", base64.b64encode(secrets.token_bytes(192)).decode())
        kept.setdefault("installation-key", secrets.token_hex(32))
        kept.setdefault("certificate-key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        for name in (*ROTATED, "client-portal", "kafka-admin", "mongo-admin", "issuer-admin", "generated-people"):
            kept.setdefault(name, secrets.token_hex(24))
        if "authority" not in kept:
            kept["authority"] = _authority()
        for name, hosts in self._hosts().items():
            if not _serves(kept.get(f"certificate-{name}", ""), hosts):
                kept[f"certificate-{name}"] = _certificate(kept["authority"], hosts)
        self._keep()

    def replace(self, name: str, value: str) -> None:
        """Put another value in the place of one that may be changed. Raises `SystemExit` for any other name."""
        if name not in (*ROTATED, *GIVEN):
            raise SystemExit(f"init: {name} is not changed this way; these are: {', '.join((*ROTATED, *GIVEN))}")
        if (
            (len(value) < 16 and name not in GIVEN)
            or not value
            or not value.isascii()
            or not value.isprintable()
            or " " in value
        ):
            raise SystemExit(f"init: {name}: sixteen or more printable characters of ASCII, no blank, no quote")
        self._kept[name] = value
        self._keep()

    def _keep(self) -> None:
        _write(self._file, json.dumps(self._kept, indent=1))

    def _hosts(self) -> dict[str, list[str]]:
        """Who is served by which certificate, by the names under which clients know it."""
        env = self._environment
        nodes = [name for name, _ in self._nodes()]
        return {
            "kafka": [*nodes, "localhost", *_listed(env.get("AGENCIES_HOST", "localhost"))],
            "gateway": ["gateway", "localhost", *_listed(env.get("GATEWAY_HOST", "localhost"))],
        }

    def _nodes(self) -> list[tuple[str, int]]:
        """The broker's machines by name, with the port at which agencies reach each from outside."""
        names = _listed(self._environment.get("KAFKA_NODES", "kafka"))
        ports = [self._environment.get(f"AGENCIES_PORT{n}", str(9094 + i)) for i, n in enumerate(("", "_2", "_3"))]
        return [(name, int(port)) for name, port in zip(names, ports, strict=False)]

    # what each part is given

    def hand_out(self) -> None:
        """Write for each part what it needs, and nothing of what others need."""
        kept = self._kept
        ca = kept["authority"].partition("-----BEGIN PRIVATE KEY")[0]
        self._give("kafka", self._broker() | {"ca.pem": ca})
        self._give("mongo", {"keyfile": kept["mongo-keyfile"], "admin-password": kept["mongo-admin"]})
        key, chain = _split(kept["certificate-gateway"])
        self._give("gateway", {"key.pem": key, "certificate.pem": chain, "ca.pem": ca})
        for service in SERVICES:
            self._give(service, self._settings(service) | {"ca.pem": ca})
        self._give("admin", self._administrator() | {"mongo_users": json.dumps(self._users())})
        authorities = Path(certifi.where()).read_text() + ca
        told = {f"{service}.env": self._operators(service) for service in SERVICES}
        database = f"{self._administrator()['mongo_admin_uri']}&replicaSet=rs0"
        self._give("operator", told | {"authorities.pem": authorities, "database-admin": database})
        self._give("issuer", {"admin-password": kept["issuer-admin"], "realm.json": self._realm()})
        played = {"people_password": kept["generated-people"], "portal_secret": kept["client-portal"]}
        self._give("play", played | self._administrator() | {"ca.pem": ca})

    def give_authority(self, folder: Path) -> None:
        """Beside the agencies' credentials lies what they trust the broker by."""
        _write(folder / "ca.pem", self._kept["authority"].partition("-----BEGIN PRIVATE KEY")[0])

    def _give(self, part: str, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            _write(self._folder / part / name, content)

    def _broker(self) -> dict[str, str]:
        """Each node's configuration, and how its storage is formatted at its first start."""
        kept, nodes = self._kept, self._nodes()
        files = {
            "cluster-id": kept["cluster-id"],
            "format.arguments": f"--add-scram\nSCRAM-SHA-512=[name=admin,password={kept['kafka-admin']}]\n",
            "keystore.pem": kept["certificate-kafka"] + kept["authority"].partition("-----BEGIN PRIVATE KEY")[0],
            "admin.properties": "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n"
            "ssl.truststore.type=PEM\nssl.truststore.location=/secrets/ca.pem\n"
            "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required"
            f' username="admin" password="{kept["kafka-admin"]}";\n',
        }
        outside = _listed(self._environment.get("AGENCIES_HOST", "localhost"))[0]
        for number, (name, port) in enumerate(nodes, start=1):
            settings = (
                node("admin", kept["kafka-admin"])
                | copies(len(nodes))
                | {
                    "process.roles": "broker,controller",
                    "node.id": str(number),
                    "controller.quorum.voters": ",".join(
                        f"{n}@{host}:9093" for n, (host, _) in enumerate(nodes, start=1)
                    ),
                    "listeners": "CLIENT://:9092,CONTROLLER://:9093,AGENCIES://:9094",
                    "advertised.listeners": f"CLIENT://{name}:9092,AGENCIES://{outside}:{port}",
                    "listener.security.protocol.map": "CLIENT:SASL_SSL,CONTROLLER:SASL_SSL,AGENCIES:SASL_SSL",
                    "listener.name.agencies.sasl.enabled.mechanisms": "SCRAM-SHA-512",
                    "listener.name.agencies.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram"
                    ".ScramLoginModule required;",
                    "ssl.keystore.type": "PEM",
                    "ssl.keystore.location": "/secrets/keystore.pem",
                    "ssl.truststore.type": "PEM",
                    "ssl.truststore.location": "/secrets/ca.pem",
                    "log.dirs": "/var/lib/kafka/data/log",
                }
            )
            files[f"{name}.properties"] = "".join(f"{key}={value}\n" for key, value in settings.items())
        return files

    def _settings(self, service: str) -> dict[str, str]:
        """A service's secret settings, by the names that `shared.settings` reads below SECRETS_DIR."""
        kept = self._kept
        hosts = self._environment.get("MONGO_HOSTS", "mongo:27017")
        password = quote(kept[f"mongo-{service}"], safe="")
        files = {
            "mongo_uri": f"mongodb://{service}:{password}@{hosts}/?replicaSet=rs0&authSource={service}",
            "kafka_username": service,
            "kafka_password": kept[f"kafka-{service}"],
            "client_id": service,
            "client_secret": kept[f"client-{service}"],
            "installation_key": kept["installation-key"],
        }
        if service == "assessment":
            files["certificate_key"] = kept["certificate-key"]
        if service == "notification" and "smtp-password" in kept:
            files["smtp_password"] = kept["smtp-password"]
        return files

    def _administrator(self) -> dict[str, str]:
        hosts, password = self._environment.get("MONGO_HOSTS", "mongo:27017"), self._kept["mongo-admin"]
        return {
            "kafka_admin_username": "admin",
            "kafka_admin_password": self._kept["kafka-admin"],
            "mongo_admin_uri": f"mongodb://admin:{password}@{hosts}/?authSource=admin",
        }

    def _users(self) -> dict[str, str]:
        return {service: self._kept[f"mongo-{service}"] for service in SERVICES}

    def _operators(self, service: str) -> str:
        """All settings of a service in one file, as `shared.ops` takes them: the administrator's among them."""
        settings = {name: self._environment[name] for name in PLAIN if self._environment.get(name)}
        given = self._settings(service) | self._administrator()
        settings |= {name.upper(): value for name, value in given.items() if name != "mongo_admin_uri"}
        return "".join(f"{name}='{value}'\n" for name, value in settings.items())

    def _realm(self) -> str:
        clients = {service: self._kept[f"client-{service}"] for service in SERVICES}
        return json.dumps(realm.realm(clients, self._kept["generated-people"], self._kept["client-portal"]))


def _listed(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _write(file: Path, content: str) -> None:
    """Whole or not at all; the group may read it, which the container that it is for is given."""
    if file.exists() and file.read_text() == content:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".draft")
    draft.touch(mode=0o640)
    draft.write_text(content)
    draft.chmod(0o440)
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(file)


# --- certificates ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        chain = self.certificate.public_bytes(serialization.Encoding.PEM)
        form = serialization.PrivateFormat.PKCS8
        key = self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return (chain + key).decode()

    @classmethod
    def of(cls, pem: str) -> _Pair:
        key = serialization.load_pem_private_key(_split(pem)[0].encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(x509.load_pem_x509_certificate(pem.encode()), key)


def _split(pem: str) -> tuple[str, str]:
    """The key, and the certificate."""
    chain, mark, key = pem.partition("-----BEGIN PRIVATE KEY")
    return mark + key, chain


def _authority() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Angkatan installation authority")])
    made = (
        _blank(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Pair(made.sign(key, hashes.SHA256()), key).pem


def _certificate(authority: str, hosts: list[str]) -> str:
    by = _Pair.of(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    made = (
        _blank(name, by.certificate.subject, key, CERTIFICATE_DAYS)
        .add_extension(x509.SubjectAlternativeName([_named(host) for host in dict.fromkeys(hosts)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), critical=False)
    )
    return _Pair(made.sign(by.key, hashes.SHA256()), key).pem


def _blank(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _serves(pem: str, hosts: list[str]) -> bool:
    """Whether a certificate names these hosts and will hold for a while yet."""
    if not pem:
        return False
    certificate = x509.load_pem_x509_certificate(pem.encode())
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    fresh = certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=RENEW_DAYS)
    return fresh and set(named) == {_named(host) for host in hosts}


# --- the virtual clock -------------------------------------------------------------------------------------------


def _set_clock(source: str | None) -> None:
    """A demonstration's clock is the system's until a scenario is played."""
    if source and not Path(source).exists():
        Path(source).write_text("system\n")


def main() -> int:
    installation = Installation(Path(os.environ.get("SECRETS", "/secrets")), os.environ)
    installation.draw()
    match sys.argv[1:]:
        case []:
            pass
        case ["rotate", name] if name not in GIVEN:
            installation.replace(name, secrets.token_hex(24))
        case ["set", name]:
            installation.replace(name, sys.stdin.read().strip())
        case _:
            raise SystemExit("usage: python -m ops.init [rotate NAME | set NAME]")
    installation.hand_out()
    credentials = os.environ.get("CREDENTIALS_DIR")
    if credentials:
        installation.give_authority(Path(credentials))
    _set_clock(os.environ.get("CLOCK_SOURCE"))
    print("init: every part has its secrets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
