"""`make demo`: sets everything up, runs the main job under load, and says what held."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from flipside_testbed import build, places, tools
from flipside_testbed.own import tell_own
from flipside_testbed.platform import MINIONS, Platform, remove_everything
from flipside_testbed.report import Report
from flipside_testbed.story import Story

FOLDER = places.CHECKOUT / ".demo"


def up(args: argparse.Namespace) -> int:
    """Runs the demo; 0 only when all that it claims held."""
    root = places.testbed_root("demo")
    remove_everything(root)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    report = Report(FOLDER / "report.json")
    tools.debian_packages()
    if args.runtime == "docker":
        tools.docker()
    platform = Platform(root, args.salt, args.runtime)
    try:
        if args.app:
            tell_own(platform, report, FOLDER, Path(args.app).resolve())
        else:
            Story(platform, report, FOLDER).tell()
        if args.keep:
            (FOLDER / "env").write_text(environment(platform))
            print(f"left running: . {FOLDER}/env; stop it with: make demo-down")
            for url in urls(platform):
                print(f"  {url}")
    finally:
        if not report.ok and platform.salted.logs.exists():
            shutil.copytree(platform.salted.logs, FOLDER / "log", dirs_exist_ok=True)
            print(f"what everything logged is kept in {FOLDER}/log")
        if not args.keep:
            platform.down()
    print("all that was claimed held" if report.ok else "something did not hold: see the lines marked FAIL")
    return 0 if report.ok else 1


def urls(platform: Platform) -> list[str]:
    """Where a browser finds the apps."""
    assigned = platform.assigned.items()
    return [
        f"http://{app}.localhost:{platform.hosts[minion].port}/" for minion, apps in assigned for app in apps
    ]


def environment(platform: Platform) -> str:
    """The file to source."""
    first, second = (platform.hosts[name] for name in MINIONS)
    salted = platform.salted
    start = [tools.PYTHON, str(Path(__file__).resolve()), "start-agent", first.name]
    publishing = ["/usr/bin/env", *(f"{name}={value}" for name, value in build.environment().items())]
    values = {
        "SALT": salted.command("salt"),
        "SALT_CALL": salted.command("salt-call", first.name),
        "SALT_RUN": salted.command("salt-run"),
        "SALT_CP": salted.command("salt-cp"),
        "MINION": first.name,
        "MINION2": second.name,
        "FLIPSIDE": shlex.join(
            ["/usr/bin/env", *publishing, *first.command(), "--store", str(platform.store)]
        ),
        "URL": first.url,
        "URL2": second.url,
        "PILLAR_ROOT": str(salted.pillar),
        "FILE_ROOT": str(salted.files),
        "STORE": str(platform.store),
        "AGENT_PID_FILE": str(first.agent.pid_file),
        "AGENT_START": shlex.join(start),
        "AGENT_SOCKET": str(first.socket),
        "NGINX_PID_FILE": str(first.nginx_home / "nginx.pid"),
        "LOG_DIR": str(salted.logs),
        "STATE_DIR": str(first.state),
        "APP_DATA": str(first.apps),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def down(_: argparse.Namespace) -> int:
    """Ends what was left running."""
    remove_everything(places.testbed_root("demo"))
    (FOLDER / "env").unlink(missing_ok=True)
    return 0


def start_agent(args: argparse.Namespace) -> int:
    """Starts the agent of a demo that was left running."""
    Platform(places.testbed_root("demo")).hosts[args.minion].start_agent()
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("up", help="run the demo")
    verb.add_argument("--app", help="a Django project of your own")
    verb.add_argument("--keep", action="store_true", help="leave it running")
    verb.add_argument("--salt", default="3006", choices=sorted(tools.SALT), help="the Salt series")
    verb.add_argument(
        "--runtime", default="process", choices=("process", "docker"), help="what runs the apps"
    )
    verb.set_defaults(do=up)
    verbs.add_parser("down", help="stop what was left running").set_defaults(do=down)
    verb = verbs.add_parser("start-agent", help="start a minion's agent again")
    verb.add_argument("minion", choices=MINIONS)
    verb.set_defaults(do=start_agent)
    args = parser.parse_args()
    try:
        return args.do(args)
    except tools.Missing as missing:
        print(missing, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
