"""Which tests may run side by side: two processes share them, and Salt's waits leave a core idle.

A platform or a masterless Salt serves many tests. Those stay together in one process, or each process would
start its own; all else goes wherever there is room.
"""

from __future__ import annotations

from typing import Any

import pytest

# Fixtures that are expensive to start, and what else tells two of them apart.
SHARED = ("platform", "salt")


def pytest_itemcollected(item: Any) -> None:
    """Puts tests that share a running Salt into one group."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    for fixture in SHARED:
        if fixture in getattr(item, "fixturenames", ()):
            module = "" if fixture == "platform" else item.path.stem
            item.add_marker(pytest.mark.xdist_group(f"{fixture}-{params.get(fixture, '')}-{module}"))
            return
