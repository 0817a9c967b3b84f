"""Resolves pyproject.toml's ranges into hashed files, one per install set; `--check` tells whether they are current.

No file records a download address. Needs `uv` to resolve (`pip install uv`); checking needs nothing.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
SETS = {
    "runtime": [],
    "solver": ["--extra", "solver"],
    "dev": ["--extra", "stack", "--extra", "solver", "--extra", "dev"],
}


def wanted() -> str:
    """The digest of everything that decides a resolution."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    told = repr((project["requires-python"], project["dependencies"], project["optional-dependencies"]))
    return hashlib.sha256(told.encode()).hexdigest()


def main() -> int:
    first = f"# resolved from pyproject.toml {wanted()}\n"
    if "--check" in sys.argv:
        stale = [name for name in SETS if not (HERE / f"{name}.txt").read_text().startswith(first)]
        if stale:
            print(f"requirements: {', '.join(stale)} no longer fit pyproject.toml: make lock", file=sys.stderr)
        return int(bool(stale))
    for name, extras in SETS.items():
        command = ["uv", "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"]
        command += ["--no-emit-index-url", "--no-header", *extras, str(HERE.parent / "pyproject.toml")]
        target = HERE / f"{name}.txt"
        target.write_text(first + subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
