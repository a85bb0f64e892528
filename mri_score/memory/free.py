"""The free memory of the machine. Without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
LIMIT_FILES = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By the controller that /proc/self/cgroup names, none for version 2: folder, limit, use, and the cache in that use."""


def free_memory() -> int:
    """Free memory of the machine in bytes, within the limits of the control groups of this process."""
    return min([_without_swapping(), *_left_in_groups()])


def _without_swapping() -> int:
    if MEMINFO.exists():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _left_in_groups() -> Iterator[int]:
    """What each control group of this process that has a limit, and each above it, still allows: version 2 and 1.

    Inside a container the group's path is often that outside: the folders that exist, the topmost at least, count.
    """
    for line in OWN_GROUP.read_text().splitlines() if OWN_GROUP.exists() else ():
        _, controllers, path = line.split(":", 2)
        for controller in LIMIT_FILES.keys() & set(controllers.split(",")):
            folder, limit, used, cache = LIMIT_FILES[controller]
            place = Path(path.strip("/"))
            for group in (GROUPS / folder / one for one in (place, *place.parents)):
                most = _words(group / limit).get("", "max")
                if most != "max":
                    reclaimed = int(_words(group / "memory.stat").get(cache, "0"))
                    yield max(int(most) - int(_words(group / used).get("", "0")) + reclaimed, 0)


def _words(path: Path) -> dict[str, str]:
    """Name and value of each line of a control file, one value alone under ""; empty where there is none."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {words[0] if len(words) > 1 else "": words[-1] for line in lines if (words := line.split())}
