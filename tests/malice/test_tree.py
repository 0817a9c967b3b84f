"""What is committed: no secret in any file, and a bill of materials that names every locked requirement."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import PROJECT

OF_TESTS = {"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "mongodb://user:canary@"}
"""What opens nothing: it stands in tests."""

_KNOWN_FORMS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\\n]*[A-Za-z0-9+/=]{16}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bpypi-[A-Za-z0-9_-]{40,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"  # a signed token
    r"|[a-z][a-z0-9+]*://[^\s/:@{}]+:[^\s/:@{}]{4,}@"  # a password in an address
)
_NAMED = re.compile(
    r"""(?i)(?:password|passwd|secret|api_?key|private_?key|access_?key|\btoken|[a-z]_key)["']?\s*[:=]\s*["']?"""
    r"""([A-Za-z0-9+/_=.-]{16,})"""
)
_LOOSE = re.compile(r"""["']([A-Za-z0-9+/_-]{24,}={0,2})["']""")


def entropy(text: str) -> float:
    """Bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def secrets_in(text: str) -> Iterator[str]:
    """What looks like a secret: known forms, and what is random and either called one or mixes letters and digits."""
    yield from {found[0] for found in _KNOWN_FORMS.finditer(text)} - OF_TESTS
    for found in _NAMED.finditer(text):
        if entropy(found[1]) > 3.2 and re.search(r"\d", found[1]) and found[1] not in OF_TESTS:
            yield found[0]
    for found in _LOOSE.finditer(text):
        mixed = all(re.search(kind, found[1]) for kind in ("[a-z]", "[A-Z]", r"\d"))
        if mixed and entropy(found[1]) > 4.0 and found[1] not in OF_TESTS:
            yield found[0]


def committed() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    files = [name for name in listed.split("\0") if name and (PROJECT / name).is_file()]
    assert len(files) > 200
    return files


def test_every_file_of_the_tree_is_text_and_lies_in_a_place_that_the_readme_names() -> None:
    """No database, picture or archive gets in by `git add`: what is committed is read by people."""
    readme = (PROJECT / "README.md").read_text()
    for name in committed():
        assert b"\0" not in (PROJECT / name).read_bytes(), name
        folder = name.split("/")[0]
        assert "/" not in name or folder.startswith(".") or f"{folder}/" in readme, name


def test_no_file_of_the_tree_holds_a_secret() -> None:
    found = {
        name: told
        for name in committed()
        if not name.startswith("requirements/")  # digests of packages
        and (told := list(secrets_in((PROJECT / name).read_text(errors="replace"))))
    }
    assert found == {}


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN PRIVATE " + "KEY-----\nMIIEvQIBADANBgkq",
        "MONGO_URI=mongodb://admin:" + "hunter22@db/",
        "password: " + "'9f86d081884c7d659a2feaa0c55ad015'",
        "CLIENT_SECRET=" + "b1946ac92492d2347c6235b4d2611184",
        '"Zm9yIHRlc3Rz' + 'IG9ubHkgMTIzNDU2Nzg5MA=="',
        "Bearer ey" + "JhbGciOiJSUzI1NiJ9.ey" + "JzdWIiOiJ4In0x." + "c2lnbmF0dXJlIQ",
    ],
)
def test_what_looks_like_a_secret_is_found(secret: str) -> None:
    assert list(secrets_in(secret))


def test_the_bill_of_materials_names_what_the_services_run_with(tmp_path: Path) -> None:
    """`make sbom` writes it; whatever is locked for the services is in it, in its version, and nothing else."""
    command = re.search(r"^\t\$\(BIN\)/(cyclonedx-py .*)$", (PROJECT / "Makefile").read_text(), re.M)
    assert command is not None
    program, *arguments = command[1].replace("var/sbom.cdx.json", str(tmp_path / "sbom.json")).split()
    subprocess.run([Path(sys.executable).with_name(program), *arguments], cwd=PROJECT, check=True)
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "angkatan"
    locked = re.findall(r"^([a-z0-9][a-z0-9.\[\]_-]*)==(\S+)", (PROJECT / "requirements/runtime.txt").read_text(), re.M)
    assert len(locked) > 30
    named = {(part["name"].lower(), part["version"]) for part in bill["components"]}
    assert named == {(name.partition("[")[0], version) for name, version in locked}
    assert all(part["purl"].startswith("pkg:pypi/") for part in bill["components"])
