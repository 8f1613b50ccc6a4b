"""What of the machine's memory is free, and what its caches hold. Linux; elsewhere it is not known."""

from pathlib import Path

MEMINFO, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def available() -> int | None:
    """Bytes that the machine can give without swapping, within the limit of the control group; None where neither is told.

    Pages of mapped files count as free: the weights of a model can be read again from the file.
    """
    known = [amount for amount in (of_machine(), of_group()) if amount is not None]
    return min(known, default=None)


def of_machine() -> int | None:
    """MemAvailable."""
    lines = MEMINFO.read_text().splitlines() if MEMINFO.exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def of_group() -> int | None:
    """What memory.max leaves beside the group's anonymous pages (version 2 of control groups)."""
    limit, stat = GROUP / "memory.max", GROUP / "memory.stat"
    if not (limit.exists() and stat.exists()) or (most := limit.read_text().strip()) == "max":
        return None
    used = next((int(line.split()[1]) for line in stat.read_text().splitlines() if line.startswith("anon ")), 0)
    return max(0, int(most) - used)


def beyond_caches(least: int) -> int:
    """Bytes that no cache holds: three times the largest one, at least `least`, at most a gibibyte."""
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    largest = max((int(size.removesuffix("K")) << 10 for size in sizes if size.endswith("K")), default=0)
    return min(max(least, 3 * largest), 1 << 30)
