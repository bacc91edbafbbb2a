"""
Flipside: deploy and run web applications on this host, through its agent.

``salt web1 flipside.deploy blog`` compiles the pillar afresh, resolves it with the app's template into a
spec, finds the release that the tag names, fetches its files, and hands both to the agent on its UNIX socket.
The agent owns the command from then on: a client that leaves cancels nothing, and asking again under the
same job id joins what runs. Every function returns one shape; its ``result`` gives Salt's return code.
"""

import functools
import getpass
import inspect
import logging
import pwd
import uuid

from salt.exceptions import CommandExecutionError, SaltException

try:
    import flipside_answer as answer
    import flipside_arguments as arguments
    import flipside_client as client
    import flipside_package as package
    from flipside_minion import Minion
    from flipside_refused import Refused

    MISSING = ""
except ImportError as error:
    MISSING = f"flipside's own modules are not here yet ({error}): run saltutil.sync_all"

log = logging.getLogger(__name__)
__virtualname__ = "flipside"
__func_alias__ = {"reload_": "reload"}
# A first migration may take long, and so may each hook of a deploy; the agent has a deadline for every one.
COMMAND_SECONDS = 4 * 3600
QUESTION_SECONDS = 60
NO_AGENT = "start it: systemctl start flipside-agent, or see its log; the apps run on without it"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


def deploy(app=None, tag=None, release=None, test=False, wait=900, cold=False, allow=None, **kwargs):
    """
    Makes a release of an app current; without ``app`` every app that pillar assigns to this host.

    Migrations that lose data, or that the code of before cannot live with, need ``allow=destructive``.

    CLI Example: ``salt web1 flipside.deploy blog tag=latest``
    """
    options = {"test": test, "cold": cold, "wait": wait, "allow": arguments.listed(allow)}
    work = functools.partial(_deploy, tag=tag, release=release, options=options)
    return _each("deploy", app, kwargs, work, options, assigned=True)


def plan(app=None, tag=None, release=None, cold=False, allow=None, **kwargs):
    """
    What a deploy would do; changes nothing.

    CLI Example: ``salt web1 flipside.plan blog``
    """
    return deploy(app, tag=tag, release=release, test=True, wait=0, cold=cold, allow=allow, **kwargs)


def rollback(app, release=None, test=False, wait=900, with_data=False, with_env=False, allow=None, **kwargs):
    """
    Makes an earlier release current again: the one before, or ``release``.

    Code only, with the environment of now, unless ``with_env`` takes the one that the release had.
    ``with_data`` puts the databases back to before the deploy; without ``allow=data`` it only says what would
    be lost.

    CLI Example: ``salt web1 flipside.rollback blog``
    """
    fields = {"release": release, "test": test, "wait": wait, "with_data": with_data, "with_env": with_env}
    fields["allow"] = arguments.listed(allow)
    return _each("rollback", app, kwargs, functools.partial(_plain, verb="rollback", fields=fields), fields)


def releases(app=None, **kwargs):
    """The releases of an app on this host, newest first. CLI Example: ``salt web1 flipside.releases``"""
    return _each(
        "releases", app, kwargs, functools.partial(_plain, verb="releases", seconds=QUESTION_SECONDS)
    )


def history(app=None, limit=20, **kwargs):
    """What was done to an app, by whom. CLI Example: ``salt web1 flipside.history blog limit=5``"""
    fields = {"limit": limit}
    work = functools.partial(_plain, verb="history", fields=fields, seconds=QUESTION_SECONDS)
    return _each("history", app, kwargs, work, fields)


def reload_(app=None, wait=900, **kwargs):
    """Restarts the workers one by one; no request is lost. CLI Example: ``salt web1 flipside.reload blog``"""
    return _locked("reload", app, wait, kwargs)


def restart(app=None, wait=900, **kwargs):
    """Starts a fresh instance and retires the old one. CLI Example: ``salt web1 flipside.restart blog``"""
    return _locked("restart", app, wait, kwargs)


def stop(app, wait=900, **kwargs):
    """Stops an app gently. CLI Example: ``salt web1 flipside.stop blog``"""
    return _locked("stop", app, wait, kwargs)


def start(app=None, wait=900, **kwargs):
    """Starts an app that was stopped. CLI Example: ``salt web1 flipside.start blog``"""
    return _locked("start", app, wait, kwargs)


def remove(app, wait=900, **kwargs):
    """
    Stops an app and forgets it; its data folder and its backups stay.

    CLI Example: ``salt web1 flipside.remove blog``
    """
    return _locked("remove", app, wait, kwargs)


def env(app=None, wait=900, **kwargs):
    """
    Writes environment and configuration files from fresh pillar, and reloads the app if they changed.

    CLI Example: ``salt web1 flipside.env blog``
    """
    return _each("env", app, kwargs, functools.partial(_env, wait=wait), {"wait": wait}, assigned=True)


def status(app=None, **kwargs):
    """The state of this host's apps, as the agent last saw it. CLI Example: ``salt '*' flipside.status``"""
    return _agent("status", kwargs, app)


def logs(app=None, lines=20, grep=None, since=None, **kwargs):
    """The newest lines of an app's log. CLI Example: ``salt web1 flipside.logs blog lines=50 grep=Error``"""
    fields = {"lines": lines, "grep": grep, "since": since}
    return _each("logs", app, kwargs, functools.partial(_logs, fields=fields), fields)


def run(app, *command, stdin=None, timeout=0, **kwargs):
    """
    Runs a command in the app's release and environment; its exit code is Salt's.

    ``--`` keeps salt from taking the command's options for its own. An argument with ``=`` in it is a keyword
    to Salt: give the whole command as one list then.

    CLI Example: ``salt web1 flipside.run blog -- django-admin check --deploy`` or
    ``salt web1 flipside.run blog '["django-admin", "loaddata", "a=b.json"]'``
    """
    if len(command) == 1 and isinstance(command[0], list):
        command = command[0]
    fields = {"command": list(command), "timeout": timeout, "stdin": stdin}
    return _each("run", app, kwargs, functools.partial(_run, fields=fields), fields)


def maintenance(app, on, **kwargs):
    """Shows the maintenance page, or no longer. CLI Example: ``salt web1 flipside.maintenance blog on``"""
    words = {"on": True, "off": False, "true": True, "false": False}
    on = words.get(on.lower(), on) if isinstance(on, str) else on
    fields = {"on": on}
    return _each(
        "maintenance", app, kwargs, functools.partial(_plain, verb="maintenance", fields=fields), fields
    )


def backup(app=None, **kwargs):
    """Takes the databases' newest state to the store. CLI Example: ``salt web1 flipside.backup blog``"""
    return _each("backup", app, kwargs, functools.partial(_plain, verb="backup"))


def backups(app=None, **kwargs):
    """What the store can restore. CLI Example: ``salt web1 flipside.backups blog``"""
    return _each("backups", app, kwargs, functools.partial(_plain, verb="backups"))


def backup_check(app=None, **kwargs):
    """Proves what can be proven of the backups. CLI Example: ``salt web1 flipside.backup_check blog``"""
    return _each("backup_check", app, kwargs, functools.partial(_plain, verb="backup_check"))


def restore(app, timestamp=None, database=None, wait=900, **kwargs):
    """
    Puts the databases back to an earlier state.

    It decrypts with the identity that the host's owner left there. An identity is a secret, so it is no
    argument here: without one on the host, restore with ``flipside restore``.

    CLI Example: ``salt web1 flipside.restore blog timestamp=2026-01-31T12:00:00Z``
    """
    fields = {"timestamp": timestamp, "database": database, "wait": wait}
    return _each("restore", app, kwargs, functools.partial(_plain, verb="restore", fields=fields), fields)


def ping(**kwargs):
    """Is the agent there? CLI Example: ``salt '*' flipside.ping``"""
    return _agent("ping", kwargs)


def version(**kwargs):
    """Versions of the agent and of the contract. CLI Example: ``salt '*' flipside.version``"""
    return _agent("version", kwargs)


# Rendered by _output/flipside.py where the master has it; else as Salt's nested output.
__outputter__ = {
    name: "flipside"
    for name, value in list(globals().items())
    if inspect.isfunction(value) and name[0] != "_"
}


def layout(flipside=None):
    """
    What SLS files render: this host's settings, and of each app its vhost's values, or why it is refused.

    Two apps that claim one domain are an error. ``flipside`` is pillar's, where it is at hand.
    """
    try:
        return Minion(__opts__, __grains__, __salt__, flipside).layout()
    except Refused as refusal:
        raise CommandExecutionError(f"flipside: {refusal}; {refusal.hint}") from refusal


def nginx_reload(test=False):
    """For the state ``flipside.nginx_reloaded``: ``result``, ``changed`` and ``comment``."""
    try:
        return Minion(__opts__, __grains__, __salt__).reload_nginx(test)
    except Refused as refusal:
        return {"result": False, "changed": False, "comment": str(refusal)}


# Below: what the functions share.


class _Call:
    """One call: the minion of now, and who asks."""

    def __init__(self, kwargs):
        self.minion = Minion(__opts__, __grains__, __salt__)
        user = kwargs.get("__pub_user") or __opts__.get("user") or getpass.getuser()
        # One id for all of a call: asking again after a broken connection joins the command that runs.
        jid = kwargs.get("__pub_jid") or f"call-{uuid.uuid4().hex}"
        self.who = {"via": "salt", "user": str(user), "id": str(jid)}

    def ask(self, verb, seconds=COMMAND_SECONDS, **fields):
        return client.ask(self.minion.host["socket"], {"verb": verb, **fields}, self.who, seconds)


def _begin(verb, app, kwargs, fields):
    """The call; raises :class:`Refused` for what makes no sense."""
    problems = arguments.problems(verb, app, fields, kwargs)
    if problems:
        raise Refused(problems)
    try:
        return _Call(kwargs)
    except SaltException as error:
        raise Refused([f"the pillar could not be compiled: {error}"]) from error


def _each(verb, app, kwargs, work, fields=None, assigned=False):
    """Runs ``work(call, name)`` for the app, or for each of pillar's, and gathers the one answer."""
    try:
        call = _begin(verb, app, kwargs, fields or {})
    except Refused as refusal:
        return _end(answer.never("; ".join(part for part in (str(refusal), refusal.hint) if part)))
    minion = call.minion
    names = [app] if app is not None else sorted(minion.apps, key=str)
    if assigned and app is not None and app not in minion.apps:
        return _end(answer.nothing(f"pillar assigns no app {app} to this host"))
    if not minion.agent_installed():
        return _end(answer.nothing("no agent is installed on this host: flipside.agent installs it"))
    if not names:
        return _end(answer.nothing("pillar assigns no app to this host"))
    apps = {str(name): said for name in names if (said := _one(call, name, work)) is not None}
    return _end(answer.whole(apps, "" if apps else f"this host has no app {app}"))


def _one(call, name, work):
    """The entry of one app; ``None`` when it is neither pillar's nor the agent's."""
    try:
        said = work(call, name)
    except Refused as refusal:
        return answer.refused(refusal)
    except client.NoAgent as error:
        return answer.no_agent(error, NO_AGENT)
    except client.BadAnswer as error:
        return answer.bad("failed", "host", str(error), "flipside.version shows what the agent speaks")
    except (SaltException, OSError) as error:
        return answer.bad("failed", "host", f"{type(error).__name__}: {error}")
    except Exception as error:
        # A fault of ours with one app must not keep the others from being served.
        log.exception("flipside: %s", name)
        return answer.bad(
            "failed", "host", f"the module failed: {type(error).__name__}", "see the minion's log"
        )
    unknown = (said["error"] or {}).get("code") == "not_found"
    return None if unknown and name not in call.minion.apps and not said["release"] else said


def _plain(call, name, verb, fields=None, seconds=COMMAND_SECONDS):
    fields = fields or {}
    return answer.entry(call.ask(verb, seconds + fields.get("wait", 0), app=name, **fields))


def _locked(verb, app, wait, kwargs):
    fields = {"wait": wait}
    return _each(verb, app, kwargs, functools.partial(_plain, verb=verb, fields=fields), fields)


def _logs(call, name, fields):
    outcome = call.ask("logs", QUESTION_SECONDS, app=name, **fields)
    return {**answer.entry(outcome), "lines": [line for _, line in outcome.get("lines", [])]}


def _run(call, name, fields):
    stdin = fields["stdin"]
    outcome = call.ask("run", app=name, **{**fields, "stdin": None if stdin is None else stdin.encode()})
    said, lines = answer.entry(outcome), outcome.get("lines", [])
    for stream in ("stdout", "stderr"):
        said[stream] = "\n".join(line for step, line in lines if step == stream)
    data = outcome.get("data")
    code = data.get("code") if isinstance(data, dict) else None
    if isinstance(code, int) and code:
        said["result"] = False
        __context__["flipside.code"] = code
    return said


def _env(call, name, wait):
    spec, _ = call.minion.resolve(name)
    fields = {"env": spec["env"], "files": spec.get("files", {}), "wait": wait}
    return answer.entry(call.ask("env", COMMAND_SECONDS + wait, app=name, **fields))


def _deploy(call, name, tag, release, options):
    minion = call.minion
    spec, vhost = minion.resolve(name)
    minion.check_domains(name, vhost)
    chosen = minion.release(name, tag, release)
    known = call.ask("releases", QUESTION_SECONDS, app=name).get("data")
    installed = isinstance(known, list) and any(one.get("release") == chosen for one in known)
    if options["test"] and spec.get("user") and not _is_user(spec["user"]):
        # On a host that flipside.app has never seen a plan can still be told: it runs nothing.
        spec["user"] = "nobody"
    folder = package.fetch(minion.cache_file, name, chosen, wheels=not installed)
    note = minion.ensure_vhost(name, vhost, options["test"])
    target = {"release": chosen, "dir": str(folder)}
    seconds = COMMAND_SECONDS + options["wait"]
    said = answer.entry(call.ask("deploy", seconds, spec=spec, package=target, **options))
    if note:
        said["comment"] = "; ".join(part for part in (said.get("comment", ""), note) if part)
    if said["result"] and not options["test"]:
        package.forget(folder, minion.cachedir)
    return said


def _is_user(name):
    try:
        return pwd.getpwnam(name) is not None
    except KeyError:
        return False


def _status(call, app):
    """One question for all apps: the agent's snapshot holds them all."""
    names = [app] if app is not None else sorted(call.minion.apps, key=str)
    try:
        outcome = call.ask("status", QUESTION_SECONDS, app=app)
    except client.NoAgent as error:
        down = {str(name): answer.no_agent(error, NO_AGENT) for name in names}
        return answer.whole(down) if down else answer.never(f"the agent does not answer: {error}")
    except client.BadAnswer as error:
        return answer.never(str(error))
    data = outcome.get("data") if isinstance(outcome.get("data"), dict) else {}
    apps = {
        name: answer.entry({**outcome, "release": of.get("release"), "data": of})
        for name, of in (data.get("apps") or {}).items()
    }
    for name in names:
        if name in call.minion.apps and str(name) not in apps:
            apps[str(name)] = answer.entry({"result": True, "state": "ok", "comment": "not deployed yet"})
    comment = outcome.get("comment") or (
        "" if apps else "this host has no such app" if app else "no app here"
    )
    return answer.whole(apps, comment, host=data.get("host") or {})


def _agent(verb, kwargs, app=None):
    """A question about the agent itself."""
    try:
        call = _begin(verb, app, kwargs, {})
        if not call.minion.agent_installed():
            return _end(answer.nothing("no agent is installed on this host: flipside.agent installs it"))
        if verb == "status":
            return _end(_status(call, app))
        outcome = call.ask(verb, QUESTION_SECONDS)
    except client.NoAgent as error:
        return _end(answer.never(f"the agent does not answer: {error}; {NO_AGENT}"))
    except (Refused, client.BadAnswer) as error:
        return _end(answer.never(str(error)))
    comment = outcome.get("comment") or ("the agent answers" if verb == "ping" else "")
    said = answer.whole({}, comment, agent=outcome.get("data"), contract=client.VERSION)
    return _end({**said, "result": outcome["result"]})


def _end(said):
    """The answer, and Salt's return code from it."""
    code = __context__.pop("flipside.code", None)
    __context__["retcode"] = 0 if said["result"] else (code or 1)
    return said
