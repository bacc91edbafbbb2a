"""
What the module needs of the minion: its pillar of now, templates, the vhosts, nginx.

The one place that knows both Salt and Flipside's rules. It is given Salt's dunders, so that it works wherever
it is imported from.
"""

import copy
import fcntl
import os
import signal

import flipside_host
import flipside_package
import flipside_spec
import flipside_vhost
import salt.pillar
import salt.utils.yaml
from flipside_refused import Refused
from salt.exceptions import CommandExecutionError

# Holds the hash of what the app's vhost was made from; written by flipside.app when nginx has taken it.
RECORD = "vhost"


class Minion:
    """One call's view of this minion. Pillar is compiled once, when it is first asked for."""

    def __init__(self, opts, grains, functions, flipside=None):
        self._opts, self._grains, self._salt = opts, grains, functions
        self.id, self.cachedir = opts["id"], opts["cachedir"]
        self.cache_file = functions["cp.cache_file"]
        self.flip = _plain(flipside) if flipside is not None else self._pillar()
        if not isinstance(self.flip, dict):
            raise Refused(["flipside: must be a map"])
        self.apps = self.flip.get("apps") or {}
        if not isinstance(self.apps, dict):
            raise Refused(["flipside:apps: must be a map of apps"])
        self.host = flipside_host.settings(self.flip.get("host"))
        self._templates = {}

    def _pillar(self):
        # What the minion holds in memory may be old.
        compiled = salt.pillar.get_pillar(
            self._opts, dict(self._grains), self.id, pillarenv=self._opts.get("pillarenv")
        ).compile_pillar()
        if compiled.get("_errors"):
            raise CommandExecutionError("; ".join(str(error) for error in compiled["_errors"])[:2000])
        return _plain(compiled.get("flipside") or {})

    def agent_installed(self):
        """Whether there is an agent on this host, running or not."""
        agent = self.host["agent"]
        return any(os.path.exists(path) for path in (agent["config"], agent["binary"], self.host["socket"]))

    def resolve(self, name):
        """The spec of an app, and the values of its vhost."""
        if not isinstance(name, str) or not flipside_spec.APP.fullmatch(name):
            raise Refused([f"apps.{str(name)[:80]}: is no app's name: a-z, then at most 30 of a-z, 0-9, -"])
        pillar = self.apps[name]
        template = pillar.get("template") if isinstance(pillar, dict) else None
        if not isinstance(template, str) or not flipside_spec.TEMPLATE.fullmatch(template):
            raise Refused([f"template: {str(template)[:80]!r} is no template, as python-django-sqlite is"])
        spec, nginx = flipside_spec.resolve(name, pillar, self._template(template), self.host)
        vhost = flipside_vhost.values(spec, nginx, self.host)
        spec["vhost"] = vhost["hash"]
        return spec, vhost

    def _template(self, name):
        """A template's defaults, with the text of its overlay's modules."""
        if name not in self._templates:
            base = f"salt://flipside/templates/{name}"
            content = self._salt["cp.get_file_str"](f"{base}/defaults.yaml")
            if not content:
                raise Refused([f"template: the master has no {base}/defaults.yaml"], "its files are missing")
            template = salt.utils.yaml.safe_load(content)
            texts = {file: self._salt["cp.get_file_str"](f"{base}/{file}") for file in template["overlay"]}
            lost = [file for file, content in texts.items() if not content]
            if lost:
                raise Refused([f"template: the master has no {base}/{lost[0]}"], "its files are missing")
            self._templates[name] = {**template, "overlay": texts}
        return self._templates[name]

    def release(self, name, tag, release):
        """The release that is meant for an app."""
        pillar_tag = self.apps[name].get("tag", "latest")
        return flipside_package.choose(self.cache_file, name, tag, release, pillar_tag)

    def check_domains(self, name, vhost):
        """Refuses the app if another of pillar's claims its domains; what else is wrong there is not ours."""
        for other, values in self.apps.items():
            options = values.get("options") if isinstance(values, dict) else None
            theirs = options.get("domains") if isinstance(options, dict) else None
            if other != name and isinstance(theirs, list):
                claimed = [one.lower() for one in theirs if isinstance(one, str)]
                flipside_vhost.check_domains({name: vhost["domains"], str(other): claimed})

    def layout(self):
        """What the SLS files render; raises :class:`Refused` when two apps claim one domain."""
        apps, refusals = {}, {}
        for name in sorted(self.apps, key=str):
            try:
                spec, vhost = self.resolve(name)
                apps[name] = {**vhost, "user": spec.get("user")}
            except Refused as refusal:
                refusals[str(name)] = str(refusal)
        flipside_vhost.check_domains({name: vhost["domains"] for name, vhost in apps.items()})
        # Only whether there is one: what SLS files render from may be shown.
        host = copy.deepcopy(self.host)
        host["rsyslog"]["logentries"]["token"] = bool(host["rsyslog"]["logentries"]["token"])
        host["agent"]["settings"] = {}
        app_units = host["agent"]["manage"] and host["users"] and self._grains.get("init") == "systemd"
        absent = [str(name) for name in self.flip.get("absent") or [] if name not in apps]
        return {
            "host": host,
            "apps": apps,
            "refused": refusals,
            "absent": [name for name in absent if flipside_spec.APP.fullmatch(name)],
            "app_units": app_units,
            "agent_toml": flipside_host.agent_toml(self.host, self.id, app_units),
            "record": RECORD,
        }

    def ensure_vhost(self, name, vhost, test):
        """Applies ``flipside.app`` where the vhost here was made from other options. Says what it did."""
        record = os.path.join(self.host["apps_dir"], name, RECORD)
        if _read(record) == vhost["hash"]:
            return ""
        if test:
            return "the vhost is not that of pillar: flipside.app would be applied"
        # One at a time: deploys of several apps may want it at once.
        with open(os.path.join(self.cachedir, "flipside-app.lock"), "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _read(record) == vhost["hash"]:
                return ""
            ended = self._salt["state.apply"]("flipside.app", concurrent=True)
        if _read(record) == vhost["hash"]:
            return "flipside.app was applied"
        raise Refused(
            [f"the vhost of {name} could not be made: {_failures(ended)[:4000]}"],
            "salt-call state.apply flipside.app shows more",
        )

    def reload_nginx(self, test):
        """Makes nginx take its configuration where that is not the one it took last."""
        nginx = self.host["nginx"]
        stamp, now = os.path.join(nginx["sites"], ".loaded"), flipside_vhost.fingerprint(nginx)
        if _read(stamp) == now:
            return {"result": True, "changed": False, "comment": "nginx has this configuration"}
        if test:
            return {"result": None, "changed": True, "comment": "nginx would take its configuration"}
        command = [nginx["bin"], "-t", "-q", "-c", nginx["conf"]]
        checked = self._salt["cmd.run_all"](command, python_shell=False, ignore_retcode=True)
        if checked["retcode"] != 0:
            why = f"nginx refuses its configuration and keeps the old one: {checked['stderr'][-2000:]}"
            return {"result": False, "changed": False, "comment": why}
        try:
            os.kill(int(_read(nginx["pid"]) or ""), signal.SIGHUP)
        except (OSError, ValueError):
            why = "nginx does not run: it reads this when it starts"
            return {"result": True, "changed": False, "comment": why}
        self._salt["file.write"](stamp, now)
        return {"result": True, "changed": True, "comment": "nginx took its configuration"}


def _failures(ended):
    """Why a state run failed: its failed states, or the errors of rendering."""
    if not isinstance(ended, dict):
        return "; ".join(str(line) for line in ended or [])
    failed = [one for one in ended.values() if isinstance(one, dict) and one.get("result") is False]
    return "; ".join(f"{one.get('__id__', '')}: {one.get('comment', '')}" for one in failed)


def _read(path):
    """The first line of a small file; ``None`` where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(200).strip()
    except (OSError, ValueError):
        return None


def _plain(value):
    """Plain maps and lists: Salt 3008's mask their values, and YAML may give ordered ones."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
