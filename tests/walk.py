"""`make walk`: the agent killed at every moment of every step of all that it does, or at random times.

On a platform of its own; each line says where it was killed and what the app has settled on. It takes its
time: the tests kill at every step once.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from flipside_testbed import places, tools
from flipside_testbed.blog import Blog
from flipside_testbed.host import Host
from flipside_testbed.platform import ASSIGNED, Platform, app_pillar, remove_everything
from flipside_testbed.walk import MOMENTS, Walk, Way


def everywhere(walk: Walk, names: list[str], twice: bool) -> Iterator[tuple[str, str]]:
    """Each step of each way: killed before, during and after it, and once more while that is ended."""
    ways = walk.ways()
    walked: set[str] = set()
    for way in [ways[name] for name in names or ways]:
        walk.prepare(way)
        steps = walk.steps(way)
        walked |= set(steps)
        for step in steps:
            for moment in MOMENTS:
                walk.prepare(way)
                yield (
                    f"{way.name} {step} {moment}",
                    walk.kill_at(way, step, moment, pause=pause(step, moment)),
                )
            if twice:
                walk.prepare(way)
                again = f"{step}:exit:undo"
                yield f"{way.name} {step} twice", walk.kill_at(way, step, "during", again=again)
    left = set(walk.every_step()) - walked
    if not names and left:
        raise AssertionError(f"no way has the steps {sorted(left)}: they were not walked")


def pause(step: str, moment: str) -> float:
    """A third of the killed agents are started only after a while."""
    return 2.0 if (len(step) + MOMENTS.index(moment)) % 3 == 0 else 0


def harmed(walk: Walk) -> Iterator[tuple[str, str]]:
    """Other processes killed in the middle of a deploy."""
    for name, step in (("hot", "migrate"), ("hot", "switch"), ("cold", "switch"), ("held", "migrate")):
        way = walk.ways()[name]
        for victim in ("worker", "master", "holder", "follower"):
            if name == "held" and victim != "follower":
                continue  # There are no workers then.
            walk.prepare(way)
            yield f"{victim} killed in {step} of {name}", walk.harm_at(way, step, victim)


def full_disk(walk: Walk) -> Iterator[tuple[str, str]]:
    """The disk of the apps, then that of the agent's state, full from each step on."""
    way = walk.ways()["hot"]
    walk.prepare(way)
    for step in walk.steps(way):
        for name in ("apps", "state"):
            walk.prepare(way)
            yield f"no room in {name} from {step} on", walk.fill_at(way, step, getattr(walk.host, name))


@contextmanager
def small_disks(host: Host) -> Iterator[None]:
    """Gives the host's apps and state a small file system each."""
    folders = [host.apps, host.state]
    for folder in folders:
        folder.mkdir(parents=True, mode=0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "walk", str(folder)], check=True)
    try:
        yield
    finally:
        for folder in folders:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def anywhen(walk: Walk, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Killed at random times of deploys there and back; a third of the time the next agent is killed, too."""
    dice = random.Random(seed)
    ways = walk.ways()
    usual = {name: measured(walk, ways[name]) for name in ("hot", "cold", "held", "rollback")}
    for number in range(count):
        there = ways[dice.choice(["hot", "hot", "cold", "held"])]
        away = walk.host.current("blog") == there.target
        way = Way("rollback", ("rollback", "blog", walk.v1), walk.v2, walk.v1) if away else there
        fresh = not away and dice.random() < 0.4
        if fresh:
            walk.forget(there.target)
        after = dice.random() * 1.15 * usual["hot" if fresh else way.name]
        again = dice.random() * 2 if dice.random() < 0.3 else None
        settled = walk.kill_after(way, after, again, pause=dice.choice([0, 0, 1.5]))
        yield f"{number + 1:3} {way.name} after {after:.2f} s, again after {again or 0:.2f} s", settled


def measured(walk: Walk, way: Way) -> float:
    """How long a way takes here where nobody is killed: the hot one with a release to build."""
    walk.prepare(way)
    begun = time.monotonic()
    with walk.load(way):
        out, _ = walk.begin(way).communicate(timeout=300)
    if '"deployed"' not in out:
        raise RuntimeError(out)
    return time.monotonic() - begun


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N kills at random times")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--full-disk", action="store_true", help="no kills, but disks that are full (root)")
    parser.add_argument("--harm", action="store_true", help="kill what the agent works with instead")
    parser.add_argument("--twice", action="store_true", help="kill the agent that ends it, too")
    parser.add_argument("ways", nargs="*", help="such as hot, held, first; all when none is named")
    args = parser.parse_args()
    tools.debian_packages()
    root = places.testbed_root("walk")
    remove_everything(root)
    platform = Platform(root)
    host = platform.hosts["web1"]
    begun, count = time.monotonic(), 0
    with small_disks(host) if args.full_disk else nullcontext():
        try:
            walk = walking(platform, host)
            print(f"seed {args.seed}" if args.random else "every step", flush=True)
            if args.full_disk:
                walked = full_disk(walk)
            elif args.harm:
                walked = harmed(walk)
            elif args.random:
                walked = anywhen(walk, args.random, args.seed)
            else:
                walked = everywhere(walk, args.ways, args.twice)
            for where, settled in walked:
                count += 1
                print(f"  {where}: {settled or 'nothing, as before'}", flush=True)
        finally:
            platform.stop()
    platform.down()
    print(
        f"{count} times, {time.monotonic() - begun:.0f} s: nothing was lost, each ended one way or the other"
    )
    return 0


def walking(platform: Platform, host: Host) -> Walk:
    """A platform with the example at its first release."""
    platform.assign(ASSIGNED, {app: app_pillar(app) for app in ("blog", "shop")})
    platform.up(faults=True)
    platform.publish("blog", "v1")
    said = platform.salted.salt(host.name, "flipside.deploy", "blog")
    if said.code:
        raise RuntimeError(said.text)
    return Walk(Blog(platform, host, platform.root / "walk"), platform.root / "walk")


if __name__ == "__main__":
    sys.exit(main())
