"""
Flipside's answers for people: the steps of a deploy, why it failed, the status screen, tables.

Salt chooses it by itself for the functions of the flipside module (``--out=json`` and others still win). It
runs where ``salt`` is typed: ``salt-run saltutil.sync_output`` brings it to the master. What it shows comes
from apps and logs, so no control character passes.
"""

import time

__virtualname__ = "flipside"
MARKS = {True: "✓", False: "✗"}
FIRST = (
    "app",
    "background",
    "schedule",
    "health",
    "state",
    "current",
    "release",
    "deployed",
    "at",
    "by",
    "who",
    "verb",
    "workers",
    "busy",
)
FIRST += ("queue", "req_s", "p50", "p99", "5xx", "rss", "restarts", "backup", "db")
# Shown elsewhere on the screen, or only of use to programs.
HIDDEN = ("reasons", "problems", "warnings", "problem", "vhost", "domains", "id", "recipient", "isolated")
BYTES = ("rss", "db", "memory", "disk_free", "size", "bytes")


def __virtual__():
    return __virtualname__


def output(data, **_kwargs):
    """The text for what one or more minions returned."""
    if not isinstance(data, dict):
        return _clean(str(data))
    lines = []
    for minion in sorted(data, key=str):
        lines += _minion(str(minion), data[minion])
    return "\n".join(lines)


def _minion(minion, said):
    if not isinstance(said, dict) or not isinstance(said.get("apps"), dict):
        # An exception's text, or a minion that did not answer.
        return [f"{_clean(minion)}:", *(f"    {_clean(line)}" for line in str(said).splitlines())]
    word = "ok" if said.get("result") else "FAILED"
    facts = said.get("host") or said.get("agent")
    lines = ["  ".join(part for part in (_clean(minion), word, _facts(facts)) if part)]
    comment = said.get("comment")
    if comment and (said.get("result") or not said["apps"]):
        lines += [f"  {_clean(line)}" for line in str(comment).splitlines()]
    if "host" in said:
        return lines + _status(said)
    for name in sorted(said["apps"]):
        lines += _app(str(name), said["apps"][name])
    return lines


def _facts(facts):
    if not isinstance(facts, dict):
        return ""
    shown = [
        (key, value)
        for key, value in facts.items()
        if key not in HIDDEN and not isinstance(value, dict | list)
    ]
    return "  ".join(f"{_label(key)} {_cell(key, value)}" for key, value in shown)


def _app(name, said):
    head = [_clean(name), _clean(str(said.get("state", "?")))]
    if said.get("release"):
        was = said.get("previous")
        head.append(
            _clean(said["release"]) + (f" (was {_clean(was)})" if was and was != said["release"] else "")
        )
    if said.get("ms"):
        head.append(_took(said["ms"]))
    lines = ["  " + "  ".join(head)]
    if said.get("comment"):
        lines.append(f"    {_clean(said['comment'])}")
    planned = said.get("state") == "planned"
    steps = [step for step in said.get("steps") or [] if isinstance(step, dict)]
    width = max((len(str(step.get("name", ""))) for step in steps), default=0)
    for step in steps:
        took = "" if planned else _took(step.get("ms") or 0)
        mark = "·" if planned else MARKS[bool(step.get("ok"))]
        text = f"    {mark} {_clean(str(step.get('name', ''))):<{width}}  {took:>7}"
        lines.append(f"{text}  {_clean(str(step.get('message') or ''))}".rstrip())
    for stream in ("stdout", "stderr"):
        lines += [f"    {_clean(line)}" for line in str(said.get(stream) or "").splitlines()]
    lines += [f"    {_clean(str(line))}" for line in said.get("lines") or []]
    lines += [f"    {line}" for line in _data(said.get("data"), known=("steps", "code", "lines"))]
    lines += [f"    {line}" for line in _migrations(said.get("data"))]
    return lines + _error(said.get("error"))


def _migrations(data):
    """The migrations of a plan, each with its operations, and a mark at what is not harmless."""
    told = data.get("migrations") if isinstance(data, dict) else None
    lines = []
    for title, key in (("migrations that wait", "pending"), ("not known to this release", "unknown")):
        found = (told or {}).get(key) or []
        lines += [f"{title}:"] if found else []
        for one in found:
            lines.append(f"  {_clean(one['app'])}.{_clean(one['name'])} ({_clean(one['database'])})")
            for operation in one.get("operations") or []:
                effect = (
                    "destructive" if operation["destructive"] else "held" * bool(operation.get("breaking"))
                )
                text = f"{_clean(operation['kind'])} {_clean(operation['subject'])}"
                lines.append(f"    {'!' if effect else '·'} {text}  {effect}".rstrip())
    return lines


def _error(error):
    if not isinstance(error, dict):
        return []
    lines = [f"    | {_clean(str(line))}" for line in error.get("log") or []]
    message = str(error.get("message", "")).splitlines() or [""]
    lines.append(f"    error: {_clean(message[0])} [{_clean(str(error.get('code', '')))}]")
    lines += [f"           {_clean(line)}" for line in message[1:]]
    return lines + ([f"    hint: {_clean(error['hint'])}"] if error.get("hint") else [])


def _data(data, known=()):
    if isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
        return _table(data)
    if isinstance(data, list):
        return [_clean(str(one)) for one in data]
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key not in known}
        lists = [value for value in data.values() if isinstance(value, list)]
        flat = [f"{_label(key)}: {_cell(key, value)}" for key, value in data.items() if _flat(value)]
        return flat + [line for value in lists for line in _data(value)]
    return [] if data is None else [_clean(str(data))]


def _status(said):
    lines, rows = [], []
    lines += [f"  ! {_clean(str(reason))}" for reason in _reasons(said["host"])]
    for name, entry in sorted(said["apps"].items()):
        data = entry.get("data") if isinstance(entry.get("data"), dict) else {}
        lines += [f"  ! {_clean(name)}: {_clean(str(reason))}" for reason in _reasons(data)]
        lines += _error(entry.get("error"))
        row = {"app": name, **data}
        if not data:
            row["state"] = entry.get("comment") or entry.get("state")
        workers = data.get("workers")
        if isinstance(workers, list):
            row["workers"] = f"{sum(bool(one.get('busy')) for one in workers)}/{len(workers)} busy"
            row.setdefault("rss", sum(one.get("rss") or 0 for one in workers))
        if isinstance(data.get("backup"), dict):
            row["backup"], wrong = _backup(data["backup"])
            lines += [f"  ! {_clean(name)}: {line}" for line in wrong]
        rows.append(row)
    lines += [f"  {line}" for line in _table(rows)]
    for kind in ("background", "schedule"):
        beside = [one for name, entry in sorted(said["apps"].items()) for one in _beside(name, entry, kind)]
        lines += [f"  {line}" for line in _table(beside)]
    return lines


def _beside(name, entry, kind):
    """What runs beside an app's web workers, a row each."""
    data = entry.get("data") if isinstance(entry.get("data"), dict) else {}
    for one in data.get(kind) or []:
        own = f"{one.get('name')}.{one['number']}" if "number" in one else one.get("name")
        row = {"app": name, kind: own, **{key: one[key] for key in one if key not in ("name", "number")}}
        for key in ("running", "last"):
            run = row.pop(key, None)
            if isinstance(run, dict):
                row[key] = f"pid {run.get('pid')}" if key == "running" else f"code {run.get('code')}"
                row |= {"at": run.get("at"), "ms": run.get("ms")} if key == "last" else {}
        yield row


def _backup(databases):
    """How far the store lags behind, how old the last verified restore is; and what is wrong."""
    known = {name: about for name, about in databases.items() if isinstance(about, dict)}
    wrong = [
        f"backup of {_clean(str(name))}: {_clean(str(about[key]))}"
        for name, about in sorted(known.items())
        for key in ("error", "rehearsal_error")
        if about.get(key)
    ]
    lags = [about.get("lag_seconds") for about in known.values()]
    if not lags or None in lags:
        return ("none yet" if not wrong else "FAILING"), wrong
    verified = [about.get("verified_seconds") for about in known.values()]
    text = f"lag {_age(max(lags))}"
    return (text if None in verified else f"{text}, verified {_age(max(verified))} ago"), wrong


def _reasons(of):
    for key in ("reasons", "problems", "warnings"):
        yield from of.get(key) or []
    if of.get("problem"):
        yield of["problem"]


def _table(rows):
    if not rows:
        return []
    keys = list(dict.fromkeys(key for row in rows for key in row))
    shown = [key for key in keys if key not in HIDDEN and any(_shown(key, row.get(key)) for row in rows)]
    shown.sort(key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))
    cells = [[_label(key).upper() for key in shown]]
    cells += [[_cell(key, row.get(key)) for key in shown] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(shown))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _shown(key, value):
    return _flat(value) or (key == "who" and isinstance(value, dict))


def _flat(value):
    return value is not None and value != "" and not isinstance(value, dict | list)


def _cell(key, value):
    if value is None:
        return "-"
    if key == "who" and isinstance(value, dict):
        number = f"uid {value['uid']}" if value.get("uid") is not None else ""
        return _clean(
            f"{value.get('user', '')} by {value.get('via', '')} {value.get('id') or number}".strip()
        )
    if isinstance(value, bool):
        return ("*" if value else "") if key == "current" else "yes" if value else "no"
    if isinstance(value, int | float):
        return _figure(key, value)
    return "…" if isinstance(value, dict | list) else _clean(str(value))


def _label(key):
    return _clean(str(key)).removesuffix("_seconds").replace("_", " ")


def _figure(key, value):
    if key == "ms":
        return _took(value)
    if key in BYTES or key.endswith(("_bytes", "_size")):
        return _bytes(value)
    if key == "age" or key.endswith(("_age", "_seconds")):
        return _age(value)
    if key.endswith("_at"):
        return _age(max(0, time.time() - value)) + " ago"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _bytes(value):
    for unit in "BKMG":
        if value < 1000:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 10 else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def _age(seconds):
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _took(ms):
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _clean(text):
    """A line that cannot steer a terminal."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if ord(c) < 32 and c != "\t" or 127 <= ord(c) < 160 else c for c in text
    )
