"""A mapped file that another program cuts short: the system ends a process that reads it then, by SIGBUS and without a word.

No Python can run at that point, in any thread, so a function of a few machine instructions prints one line and ends the process.
llvmlite, which Numba brings, makes it in a hundredth of a second.
"""

import ctypes
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KEPT: list[tuple[Any, Any]] = []  # what must live as long as the process: compiled functions and their lines
SHOW_CURSOR = "\x1b[?25h"

# The line is given by its address: versions of LLVM do not agree on how a pointer is written
PROGRAM = """
declare i64 @write(i32, i64, i64)
declare void @_exit(i32)
define void @ended(i32 %signal) {{
  %written = call i64 @write(i32 2, i64 {address}, i64 {size})
  call void @_exit(i32 2)
  unreachable
}}
"""


def say_so(paths: Sequence[Path]) -> None:
    """From now on the process ends with a line and status 2 if one of these mapped files, or any other, is cut short.

    Nothing happens where the system has no such signal, or the program that refmodel is a part of handles it.
    """
    number = getattr(signal, "SIGBUS", None)
    if number is None or sys.platform != "linux" or signal.getsignal(number) != signal.SIG_DFL:
        return
    import llvmlite.binding as llvm

    names = ", ".join(str(path) for path in paths)[:400]
    text = f"refmodel: {names}: became shorter while it was read; get it whole, and replace files of running programs by renaming"
    line = ((SHOW_CURSOR if sys.stderr and sys.stderr.isatty() else "") + ascii(text)[1:-1] + "\n").encode()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    held = ctypes.create_string_buffer(line)
    module = llvm.parse_assembly(PROGRAM.format(address=ctypes.addressof(held), size=len(line)))
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine())
    engine.finalize_object()
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before = libc.signal(number, engine.get_function_address("ended"))
    if before in {None, *(old.get_function_address("ended") for old, _ in KEPT)}:
        KEPT.append((engine, held))
    else:  # such as Python's faulthandler
        libc.signal(number, before)
