"""`python -m ops.database`: begins the replica set and makes each service's user. Safe to repeat, and at once.

A service's user may read and write its own database, and nothing else. A password that was rotated is set here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import AutoReconnect, ConnectionFailure, OperationFailure

PATIENCE_SECONDS = 90
_NOT_YET, _ALREADY, _USER_EXISTS = 94, 23, 51003

Client = MongoClient[dict[str, Any]]


def begin(client: Client, members: list[str]) -> None:
    """Begin the replica set, unless it has begun."""
    try:
        client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code != _NOT_YET:
            raise
        told = {"_id": "rs0", "members": [{"_id": n, "host": host} for n, host in enumerate(members)]}
        try:
            client.admin.command("replSetInitiate", told)
        except OperationFailure as refused:
            if refused.code != _ALREADY:
                raise


def make_user(client: Client, service: str, password: str) -> None:
    """The service's user with this password, whether it was there or not."""
    roles = [{"role": "readWrite", "db": service}]
    try:
        client[service].command("createUser", service, pwd=password, roles=roles)
    except OperationFailure as error:
        if error.code != _USER_EXISTS:
            raise
        client[service].command("updateUser", service, pwd=password, roles=roles)


def main() -> int:
    folder = Path(os.environ.get("SECRETS_DIR", "/secrets"))
    uri = (folder / "mongo_admin_uri").read_text()
    users: dict[str, str] = json.loads((folder / "mongo_users").read_text())
    members = uri.rpartition("@")[2].partition("/")[0].split(",")
    first = uri.replace(",".join(members), members[0]) + "&directConnection=true"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client: Client
            with MongoClient(first, serverSelectionTimeoutMS=5000) as client:
                begin(client, members)
            with MongoClient(f"{uri}&replicaSet=rs0", serverSelectionTimeoutMS=5000) as client:
                for service, password in users.items():
                    make_user(client, service, password)
            break
        except (ConnectionFailure, AutoReconnect) as error:  # it has not begun to listen, or elects its first
            if time.monotonic() > deadline:
                print(f"database: away ({type(error).__name__})", file=sys.stderr)
                return 1
            time.sleep(1)
    print(f"database: the set has begun, {len(users)} users")
    return 0


if __name__ == "__main__":
    sys.exit(main())
