"""Matrix registers (AMX): whether this process may use them. Linux gives them to those who ask."""

import ctypes
import platform
import sys
from functools import cache

ARCH_PRCTL, ASK, TILE_DATA = 158, 0x1023, 18  # Source: Linux, arch/x86/include/uapi/asm/prctl.h; XFEATURE_XTILE_DATA


@cache
def granted() -> bool:
    """Ask the operating system, for all threads of this process. False where there are none, or where it does not give them."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None, use_errno=True).syscall(ARCH_PRCTL, ASK, TILE_DATA) == 0
