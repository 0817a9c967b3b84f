"""Backup and restore as an operator does it: by the two scripts, from one installation into another that is empty."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from stack import PROJECT
from tests.compose.installation import Installation


@pytest.fixture(scope="module")
def empty(image: str) -> Iterator[Installation]:
    made = Installation(image)
    try:
        yield made
    finally:
        made.down()


def script(name: str, folder: Path, installation: Installation, seconds: float) -> str:
    done = subprocess.run(
        [PROJECT / "ops" / name, str(folder)],
        cwd=PROJECT,
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def test_an_installation_is_saved_and_put_back_whole_and_mails_nobody_twice(
    played: str, installation: Installation, empty: Installation, tmp_path: Path, count: Callable[[str], None]
) -> None:
    saved = tmp_path / "saved"
    script("backup.sh", saved, installation, 240)
    told = script("restore.sh", saved, empty, 420)
    assert "put back" in told and "mail release" in told
    assert empty.secrets() | {"certificate-kafka": "", "certificate-gateway": ""} == installation.secrets() | {
        "certificate-kafka": "",
        "certificate-gateway": "",
    }
    for there in (installation, empty):
        findings = json.loads(
            there.compose("run", "--rm", "-T", "--no-deps", "ops", "doctor", "--json", check=False).stdout
        )
        assert [one for one in findings["findings"] if one["state"] == "bad"] == []
    assert events(empty) == events(installation)
    heard = empty.compose("exec", "-T", "console", "listen", "--timeout-ms", "20000", check=False, seconds=60).stdout
    assert len(re.findall(r"ce_specversion:1\.0", heard)) == 214
    mailbox = f"http://127.0.0.1:{empty.ports['MAIL_PORT']}/api/v1/messages"
    assert httpx.get(mailbox).json()["total"] == 0
    assert "e-mail goes out" in empty.run("ops", "mail", "release", "--yes")
    sizes = {file.name: f"{file.stat().st_size:,} bytes" for file in sorted(saved.iterdir())}
    count(f"{len(events(empty)):,} events put back; {sizes}")


def events(installation: Installation) -> list[tuple[str, str]]:
    told = installation.run("ops", "events", "tail", "--last", "10000", "--json")
    found = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    return sorted((event["id"], json.dumps(event["data"], sort_keys=True)) for event in found if event.get("data"))
