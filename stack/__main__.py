"""`python -m stack up|down|reset|status|logs|token|rotate-keys|endpoints`"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime

from stack import NEIGHBOURS, SERVICES, Missing, NotStarted, Stack

_PARTS = (*NEIGHBOURS, *SERVICES, "gateway")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m stack",
        description="The embedded stack.",
        epilog="STACK_HOME is the folder that keeps it (var/stack); PORT_GATEWAY, PORT_KAFKA and so on set a port.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start what does not run")
    some = up.add_mutually_exclusive_group()
    some.add_argument("--only", metavar="PARTS", help=f"these, separated by commas: {', '.join(_PARTS)}")
    some.add_argument("--without-services", action="store_true", help="broker, database, mail and issuer")
    up.add_argument("--with-solver", action="store_true", help="also the process that looks for better timetables")
    up.add_argument(
        "--virtual-clock",
        type=datetime.fromisoformat,
        metavar="ISO",
        help="play from this instant (UTC unless it says)",
    )
    commands.add_parser("down", help="stop everything")
    commands.add_parser("reset", help="stop everything and forget all data")
    commands.add_parser("status", help="which parts run; 1 when one has crashed or none runs")
    logs = commands.add_parser("logs", help="last lines of one part, or of all")
    logs.add_argument("part", nargs="?", choices=_PARTS)
    logs.add_argument("--lines", type=int, default=50)
    token = commands.add_parser("token", help="a token for trying the API")
    token.add_argument("--role", action="append", default=[], required=True)
    token.add_argument("--person-id")
    token.add_argument("--agency-id", action="append", default=[])
    token.add_argument("--audience", action="append", choices=SERVICES)
    commands.add_parser("rotate-keys", help="sign with a new key from now on")
    commands.add_parser("endpoints", help="every address and where each credential lies")
    arguments = parser.parse_args()
    # Told to end, it cleans up as if interrupted, instead of leaving half a stack.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(arguments, Stack())
    except (Missing, NotStarted) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace, stack: Stack) -> int:
    match arguments.command:
        case "up":
            began = time.monotonic()
            for part, state in stack.status().items():
                if state == "crashed":
                    print(f"{part} had crashed; its last lines:\n{stack.processes.tail(part)}\n", file=sys.stderr)
            parts = NEIGHBOURS if arguments.without_services else None
            if arguments.only:
                parts = tuple(arguments.only.split(","))
            started = stack.up(parts, virtual_clock=arguments.virtual_clock)
            if arguments.with_solver:
                stack.start_part("scheduling-solver")
                started.append("scheduling-solver")
            seconds = time.monotonic() - began
            print(f"started {', '.join(started)} in {seconds:.1f} s" if started else "everything runs already")
            print(f"gateway {stack.endpoints['gateway']}; all addresses: {stack.home / 'endpoints.json'}")
        case "down":
            stack.down()
        case "reset":
            stack.reset_data()
        case "status":
            states = stack.status()
            for part, state in states.items():
                print(f"{part:13} {state}")
                if state == "crashed":
                    print(stack.processes.tail(part))
            return int("crashed" in states.values() or "running" not in states.values())
        case "logs":
            for part in [arguments.part] if arguments.part else _PARTS:
                if arguments.part is None:
                    print(f"== {part}")
                print(stack.processes.tail(part, arguments.lines))
        case "token":
            client, secret = stack.credentials("client-scenario")
            asked = {
                "grant_type": "client_credentials",
                "client_id": client,
                "client_secret": secret,
                "audience": " ".join(arguments.audience or SERVICES),
                "roles": " ".join(arguments.role),
                "agency_ids": " ".join(arguments.agency_id),
            }
            if arguments.person_id:
                asked["person_id"] = arguments.person_id
            body = urllib.parse.urlencode(asked).encode()
            try:
                with urllib.request.urlopen(stack.endpoints["issuer"] + "/token", body, timeout=10) as answer:
                    print(json.load(answer)["access_token"])
            except urllib.error.URLError as error:
                raise NotStarted(f"the issuer does not answer ({error.reason}): make up") from None
        case "rotate-keys":
            from stack.issuer import Keys  # here only: it would make every other command wait for its imports

            stack.credentials("client-scenario")  # says so where there never was a stack
            Keys(stack.home / "data-of-issuer").rotate()
        case "endpoints":
            print(json.dumps(stack.endpoints, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
