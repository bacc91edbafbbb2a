"""`make demo APP=DIR`: your own Django project, as it is: deployed, upgraded, rolled back under load."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flipside_testbed import web
from flipside_testbed.platform import MINIONS, Platform
from flipside_testbed.report import Report, claim
from flipside_testbed.tools import Missing
from flipside_testbed.traffic import traffic

# A fresh project has no page at / once DEBUG is off; its admin redirects to a login.
CANDIDATES = ("/", "/admin/", "/admin/login/", "/accounts/login/", "/login/", "/api/")


def tell_own(platform: Platform, report: Report, keep: Path, folder: Path) -> None:
    """Publishes, deploys, asks; then each way in which an app changes, under load."""
    if not any((folder / name).is_file() for name in ("manage.py", "pyproject.toml")):
        raise Missing(
            f"{folder} holds neither a manage.py nor a pyproject.toml: APP= names a project's folder"
        )
    minion = MINIONS[0]
    host, salt = platform.hosts[minion], platform.salted.salt
    release = app = path = ""
    with report.step("a Salt master, two minions, an agent, nginx and memcached for each") as step:
        platform.up()
        step.say(f"below {platform.root}")
    if not report.ok:
        return
    with report.step(f"flipside publish {folder}"):
        release = platform.publish_folder(folder)
        app = next(platform.store.glob(f"*/{release}")).parent.name
    if not report.ok:
        return
    with report.step(f"salt {minion} flipside.deploy {app}") as step:
        options = {"domains": [f"{app}.localhost", "127.0.0.1", "localhost"], "release_header": True}
        pillar = {"template": "python-django-sqlite", "tag": "latest", "options": options}
        pillar["runtime"] = platform.runtime
        platform.assign({minion: (app,)}, {app: pillar})
        answer = salt(minion, "flipside.deploy", app)
        said = answer.app(app)
        claim(said["result"] and said["state"] == "deployed", answer.text)
        claim(host.current(app) == release, f"current is {host.current(app)}")
        step.say(", ".join(f"{one['name']} {one['ms']} ms" for one in said["steps"]))
    if not report.ok:
        return
    with report.step("a page through nginx") as step:
        pages = {candidate: web.get(host, app, candidate) for candidate in CANDIDATES}
        good = [candidate for candidate, page in pages.items() if page.status < 400]
        claim(good, f"none answers with 2xx or 3xx: { {name: page.status for name, page in pages.items()} }")
        path = good[0]
        step.say(f"{path} answers {pages[path].status}, served by {pages[path].release}")
    if not report.ok:
        return
    load = partial(traffic, host.port, f"{app}.localhost", requests=("--get", path), rate=60)
    with report.step("the same project under another version: a second release"):
        version = release.rpartition("-")[0]
        version += ".again" if "+" in version else "+again"
        second = platform.publish_folder(folder, "again", version=version)
        claim(second != release, f"{second} is the first one")
    if not report.ok:
        return
    for verb, wanted in (("deploy", second), ("rollback", release)):
        with report.step(f"{verb}, under load") as step:
            with load(keep=keep / verb) as seen:
                answer = salt(minion, f"flipside.{verb}", app, *(["tag=again"] if verb == "deploy" else []))
            said = answer.app(app)
            claim(said["result"] and host.current(app) == wanted, answer.text)
            claim(web.get(host, app, path).release == wanted, f"{path} is not served by {wanted}")
            step.loaded(seen.figures)
    for verb in ("reload", "restart"):
        with report.step(f"{verb}, under load") as step:
            with load(keep=keep / verb) as seen:
                answer = salt(minion, f"flipside.{verb}", app)
            claim(answer.app(app)["result"], answer.text)
            step.loaded(seen.figures)
    with report.step("the same deploy once more is unchanged"):
        answer = salt(minion, "flipside.deploy", app)
        claim(answer.app(app)["state"] == "unchanged", answer.text)
