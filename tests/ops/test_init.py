"""The first start of an installation: what is drawn once, what each part is given, and what may be changed later."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ops import init, realm
from ops.init import ROTATED, Installation
from services.assessment.app import service as assessment
from services.notification.app import service as notification
from shared.settings import from_environment
from stack import SERVICES

SETTINGS = {
    "ENVIRONMENT": "production",
    "OIDC_ISSUER": "https://issuer.example.go.id/realms/training",
    "KAFKA_BOOTSTRAP": "kafka:9092",
    "MAIL_FROM": "training@example.go.id",
    "SMTP_HOST": "mail.example.go.id",
    "ENROLLMENT_INTERNAL_URL": "http://enrollment-api:8001",
}


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Start with these settings; returns every file that was handed out, by its path."""

    def start(change: Callable[[Installation], None] | None = None, **settings: str) -> dict[str, str]:
        installation = Installation(tmp_path, SETTINGS | settings)
        installation.draw()
        if change is not None:
            change(installation)
        installation.hand_out()
        return {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*") if file.is_file()}

    return start


def test_a_second_start_changes_nothing(started: Callable[..., dict[str, str]]) -> None:
    assert started() == started()


def test_what_was_taken_away_is_handed_out_again(started: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    before = started()
    (tmp_path / "scheduling" / "kafka_password").unlink()
    (tmp_path / "kafka" / "kafka.properties").unlink()
    assert started() == before


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    kept = []
    for name in ("one", "other"):
        made = Installation(tmp_path / name, SETTINGS)
        made.draw()
        kept.append(json.loads((tmp_path / name / "kept" / "secrets.json").read_text()))
    assert kept[0].keys() == kept[1].keys() and not set(kept[0].values()) & set(kept[1].values())


def test_each_part_is_given_its_own_secrets_and_no_others(started: Callable[..., dict[str, str]]) -> None:
    files = started()
    kept = json.loads(files["kept/secrets.json"])
    whose = {f"{kind}-{service}": {service} for kind in ("kafka", "mongo", "client") for service in SERVICES}
    whose |= {f"mongo-{service}": {service, "admin"} for service in SERVICES}
    whose |= {f"client-{service}": {service, "issuer"} for service in SERVICES}
    whose |= {
        "certificate-key": {"assessment"}, "installation-key": set(SERVICES), "kafka-admin": {"kafka", "admin", "play"},
        "mongo-admin": {"mongo", "admin", "play"}, "mongo-keyfile": {"mongo"}, "issuer-admin": {"issuer"},
        "generated-people": {"issuer", "play"}, "client-portal": {"issuer", "play"}, "cluster-id": {"kafka"},
    }  # fmt: skip
    for name, secret in kept.items():
        if name.startswith(("certificate-kafka", "certificate-gateway", "authority")):
            secret = secret[secret.index("-----BEGIN PRIVATE KEY") :].strip()
        holders = {path.partition("/")[0] for path, text in files.items() if secret in text}
        wanted = {"certificate-kafka": {"kafka"}, "certificate-gateway": {"gateway"}, "authority": set()} | whose
        # An operator's commands hold what a service's own container holds.
        assert holders - {"kept", "operator"} == wanted[name], name


def test_nobody_but_owner_and_group_reads_what_is_handed_out(
    started: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    started()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) == 0o440, file


def test_what_a_service_is_given_are_settings_that_it_takes(
    started: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    started()
    for service in (assessment, notification):
        given = SETTINGS | {"SECRETS_DIR": f"{tmp_path / service.name}:{tmp_path / 'admin'}"}
        settings = from_environment(service.settings, given)
        assert settings.kafka_username == service.name and settings.kafka_admin_username == "admin"


def test_a_rotated_password_reaches_the_service_and_its_neighbour(started: Callable[..., dict[str, str]]) -> None:
    before = started()
    after = started(lambda installation: installation.replace("mongo-scheduling", "a@drawn/password-of-24"))
    changed = {path for path in after if after[path] != before[path]}
    user, _, rest = after["scheduling/mongo_uri"].removeprefix("mongodb://").partition(":")
    written, _, host = rest.partition("@")
    assert user == "scheduling"
    assert unquote(written) == "a@drawn/password-of-24" and host.startswith("mongo:27017/")
    assert changed == {"kept/secrets.json", "scheduling/mongo_uri", "admin/mongo_users", "operator/scheduling.env"}


@pytest.mark.parametrize("name", ["kafka-admin", "mongo-admin", "certificate-key", "authority", "no-such"])
def test_what_cannot_simply_be_replaced_is_not(started: Callable[..., dict[str, str]], name: str) -> None:
    with pytest.raises(SystemExit, match="not changed this way"):
        started(lambda installation: installation.replace(name, "a-drawn-password-of-24"))
    assert name not in ROTATED


@pytest.mark.parametrize("value", ["short", "", "with blanks in it, and more", "ütf-8-is-not-taken-here"])
def test_a_password_that_would_not_be_taken_everywhere_is_refused(
    started: Callable[..., dict[str, str]], value: str
) -> None:
    with pytest.raises(SystemExit, match="sixteen"):
        started(lambda installation: installation.replace("mongo-scheduling", value))


def test_the_mail_servers_password_is_given_and_never_drawn(started: Callable[..., dict[str, str]]) -> None:
    assert "notification/smtp_password" not in started()
    after = started(lambda installation: installation.replace("smtp-password", "its-own"))
    assert after["notification/smtp_password"] == "its-own"


def test_certificates_name_their_hosts_and_are_renewed_in_time(
    started: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = started(AGENCIES_HOST="events.example.go.id,10.0.0.7", GATEWAY_HOST="portal.example.go.id")
    kafka = x509.load_pem_x509_certificate(before["kafka/keystore.pem"].encode())
    names = kafka.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kafka", "localhost", "events.example.go.id"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    by = x509.load_pem_x509_certificate(before["kafka/ca.pem"].encode())
    kafka.verify_directly_issued_by(by)
    assert isinstance(by.public_key(), ec.EllipticCurvePublicKey)
    renamed = started(AGENCIES_HOST="events.example.go.id,10.0.0.7", GATEWAY_HOST="other.example.go.id")
    assert renamed["kafka/keystore.pem"] == before["kafka/keystore.pem"]
    assert renamed["gateway/certificate.pem"] != before["gateway/certificate.pem"]
    later = datetime.now(UTC) + timedelta(days=init.CERTIFICATE_DAYS - init.RENEW_DAYS + 1)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return later

    monkeypatch.setattr(init, "datetime", Later)
    renewed = started(AGENCIES_HOST="events.example.go.id,10.0.0.7", GATEWAY_HOST="other.example.go.id")
    assert renewed["kafka/keystore.pem"] != before["kafka/keystore.pem"]
    assert renewed["kafka/ca.pem"] == before["kafka/ca.pem"]


def test_a_cluster_has_a_file_for_each_node_and_a_port_for_each_towards_agencies(
    started: Callable[..., dict[str, str]],
) -> None:
    files = started(KAFKA_NODES="kafka,kafka-2,kafka-3", AGENCIES_HOST="events.example.go.id")
    for number, name in enumerate(("kafka", "kafka-2", "kafka-3"), start=1):
        told = dict(line.split("=", 1) for line in files[f"kafka/{name}.properties"].splitlines())
        assert told["node.id"] == str(number)
        assert told["advertised.listeners"] == f"CLIENT://{name}:9092,AGENCIES://events.example.go.id:{9093 + number}"
        assert told["controller.quorum.voters"] == "1@kafka:9093,2@kafka-2:9093,3@kafka-3:9093"
        assert told["min.insync.replicas"] == "2" and told["default.replication.factor"] == "3"


def test_the_demonstrations_people_are_generated_and_carry_what_a_token_needs() -> None:
    made = realm.realm(dict.fromkeys(SERVICES, "s" * 20), "p" * 20, "q" * 20)
    assert len(made["users"]) == 129
    for user in made["users"]:
        assert "(generated)" in user["firstName"] and user["email"].endswith("@example.go.id")
        assert re.fullmatch(r"[0-9a-f-]{36}", user["attributes"]["person_id"][0])
        assert user["attributes"]["roles"]
    coordinators = [u for u in made["users"] if u["attributes"]["roles"] == ["coordinator"]]
    assert len(coordinators) == 37 and all(len(u["attributes"]["agency_ids"]) == 1 for u in coordinators)
    for client in made["clients"]:
        audiences = {m["config"].get("included.custom.audience") for m in client["protocolMappers"]}
        assert set(SERVICES) <= audiences and client["fullScopeAllowed"] is False
