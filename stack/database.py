"""The embedded database as a process: `python -m stack.database PORT FOLDER USERS_FILE LIFETIME`.

Its own command line has no flag for the lifetime of transactions, so it is started from here.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import pymongo
from pymongo.errors import OperationFailure
from secantus import SecantusDBServer

_USER_EXISTS = 51003


def main() -> None:
    port, folder, users_file, lifetime = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    made = folder / "users-made"
    storage = folder / "storage"
    storage.mkdir(parents=True, exist_ok=True)

    def server(auth: bool, port: int) -> SecantusDBServer:
        return SecantusDBServer(
            port=port,
            storage_path=str(storage),
            require_auth=auth,
            sync_on_commit=True,
            transaction_lifetime_seconds=lifetime,
            enable_test_commands=False,
        )

    if not made.exists():
        # Users can only be made while nobody is asked who he is; on a port that nobody knows.
        unguarded = server(False, 0)
        unguarded.start()
        _make_users(unguarded.uri, users_file)
        unguarded.stop()
        made.touch()
    guarded = server(True, port)
    guarded.start()
    print("ready", flush=True)
    stopping.wait()
    guarded.stop()


def _make_users(uri: str, users_file: Path) -> None:
    """Make the users; those that a start which was cut short had made already are left as they are."""
    client: pymongo.MongoClient[dict[str, object]]
    with pymongo.MongoClient(uri, directConnection=True) as client:
        for user in json.loads(users_file.read_text()):
            roles = [{"role": user["role"], "db": user["database"]}]
            try:
                client[user["database"]].command("createUser", user["username"], pwd=user["password"], roles=roles)
            except OperationFailure as error:
                if error.code != _USER_EXISTS:
                    raise


if __name__ == "__main__":
    main()
