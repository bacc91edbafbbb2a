"""Arguments of the module's functions, as Salt's YAML leaves them: what is wrong with each, at once."""

from flipside_spec import APP, text

NUMBERS = ("wait", "limit", "lines", "timeout")
SWITCHES = ("test", "cold", "with_data", "with_env", "on")


def problems(verb, app, fields, rest):
    """What is wrong with a call: an argument that ``verb`` does not take, or a value of another type."""
    # Salt's own arrive as __pub_user and the like.
    found = [f"{verb} takes no argument {key[:80]!r}" for key in sorted(rest) if not key.startswith("__")]
    if app is not None and text("app", app, found) is not None and not APP.fullmatch(app):
        found.append(f"app: {app[:80]!r} is no app's name: a-z, then at most 30 of a-z, 0-9 and -")
    for key, value in fields.items():
        if key in NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**6:
                found.append(f"{key}: must be a whole number")
        elif key in SWITCHES:
            if not isinstance(value, bool):
                found.append(f"{key}: must be True or False")
        elif key in ("command", "allow"):
            for part in value:
                text(key, part, found)
            if not value and key == "command":
                found.append("command: say what to run")
        elif value is not None:
            text(key, value, found)
    return found


def listed(value):
    """A list, from a list or from words with commas between."""
    if value is None:
        return []
    return value if isinstance(value, list) else str(value).split(",")
