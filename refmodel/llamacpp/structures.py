"""A loaded llama.cpp: its functions with their types, and its structures, which it is held against before anything is believed.

Source: llama.cpp include/llama.h, ggml/include/ggml.h, ggml-backend.h.
"""

import ctypes
import os
import platform
import re
from collections.abc import Mapping
from ctypes import POINTER, Structure, c_bool, c_char, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from ..errors import OracleError
from .layouts import BATCH, CONTEXTS, MODELS, NAMES, Layout, described, fields, misread, structure

CALLBACK = ctypes.CFUNCTYPE(c_bool, c_void_p, c_bool, c_void_p)
FIRST_IS_RESULT = platform.machine().lower() in ("x86_64", "amd64")  # where a large result is written is a hidden first argument
ROOM = 4096  # bytes; more than any structure of parameters has
F16 = 1  # ggml_type


class Tensor(Structure):
    """struct ggml_tensor: an array of ne elements, nb bytes apart, the fastest axis first."""

    _fields_ = (
        ("type", c_int),
        ("buffer", c_void_p),
        ("ne", c_int64 * 4),
        ("nb", c_size_t * 4),
        ("op", c_int),
        ("op_params", c_int32 * 16),
        ("flags", c_int32),
        ("src", c_void_p * 10),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_char * 64),
        ("extra", c_void_p),
        ("padding", c_char * 8),
    )


class InitParams(Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


Signatures = Mapping[str, tuple[Any, list[Any]]]

SIGNATURES: Signatures = {
    "ggml_op_desc": (c_char_p, [c_void_p]),
    "ggml_init": (c_void_p, [InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor_4d": (c_void_p, [c_void_p, c_int, *[c_int64] * 4]),
    "ggml_set_name": (c_void_p, [c_void_p, c_char_p]),
    "ggml_permute": (c_void_p, [c_void_p, c_void_p, *[c_int] * 4]),
    "ggml_get_data": (c_void_p, [c_void_p]),
    "llama_backend_init": (None, []),
    "llama_print_system_info": (c_char_p, []),
    "llama_model_meta_val_str": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "llama_model_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_free": (None, [c_void_p]),
    "llama_n_ctx": (c_uint32, [c_void_p]),
    "llama_n_batch": (c_uint32, [c_void_p]),
    "llama_n_ubatch": (c_uint32, [c_void_p]),
    "llama_n_threads": (c_int32, [c_void_p]),
    "llama_n_threads_batch": (c_int32, [c_void_p]),
    "llama_get_logits": (POINTER(c_float), [c_void_p]),
}
SAID: Signatures = {"ggml_version": (c_char_p, []), "ggml_commit": (c_char_p, [])}  # from September 2025 on


def of_layout(layout: Layout) -> Signatures:
    """The functions that structures are passed to and returned from by value."""
    return {
        "llama_model_default_params": (layout.model, []),
        "llama_context_default_params": (layout.context, []),
        "llama_model_load_from_file": (c_void_p, [c_char_p, layout.model]),
        "llama_init_from_model": (c_void_p, [c_void_p, layout.context]),
        "llama_decode": (c_int32, [c_void_p, layout.batch]),
    }


class Api:
    """The functions of one llama.cpp, with their types.

    lib     the loaded library
    layout  of its structures
    build   what it reports about itself: name, ggml (its version), commit, features, kernels; a library of before September 2025
            has no version and no commit
    path    of the library, for messages
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        """Load a library, as Library.request tells of it.

        files     in order; the last is libllama
        variant   its CPU kernels, if they are a file of their own
        bindings  the answer of describe.py about its structures; None to find the known ones that fit

        OracleError if the structures are laid out otherwise.
        """
        files, variant = request["files"], request["variant"]
        self.path = files[-1]
        try:
            self.lib = [ctypes.CDLL(file, mode=ctypes.RTLD_GLOBAL) for file in files][-1]
            self.declare(SIGNATURES)
        except (OSError, AttributeError) as error:
            raise OracleError(
                f"{self.path}: cannot be loaded as a llama.cpp ({error}); give the libllama.so of a whole build"
            ) from None
        self.build = {"name": "", "ggml": "", "commit": ""} | self.said()
        self.check_tensors()
        self.layout = self.fitting(described(request["bindings"]))
        self.build["name"] = self.layout.name or NAMES.get(self.build["commit"][:7], "")
        self.declare(of_layout(self.layout))
        if variant:
            self._load_kernels(variant)
        self.lib.llama_backend_init()
        said = self.lib.llama_print_system_info().decode()
        self.build["features"] = " ".join(sorted(re.findall(r"(\w+) = 1", said)))

    def declare(self, signatures: Signatures) -> None:
        """Give functions their types. AttributeError for one that the library lacks."""
        for name, (result, arguments) in signatures.items():
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments

    def said(self) -> dict[str, str]:
        """The version and the commit that the library reports, as far as it does."""
        there = {name: signature for name, signature in SAID.items() if hasattr(self.lib, name)}
        self.declare(there)
        return {name.removeprefix("ggml_").replace("version", "ggml"): getattr(self.lib, name)().decode() for name in there}

    def check_tensors(self) -> None:
        """Hold ggml_tensor against two tensors that the library makes. OracleError where they differ."""
        context = self.lib.ggml_init(InitParams(1 << 16, None, False))
        made = self.lib.ggml_new_tensor_4d(context, F16, 2, 3, 5, 7)
        self.lib.ggml_set_name(made, b"a name")
        turned = self.lib.ggml_permute(context, made, 1, 0, 2, 3)
        a, b = Tensor.from_address(made), Tensor.from_address(turned)
        right = (a.type, *a.ne, *a.nb, a.name) == (F16, 2, 3, 5, 7, 2, 4, 12, 60, b"a name")
        right &= (a.data, a.view_src, a.src[0], a.view_offs) == (self.lib.ggml_get_data(made), None, None, 0)
        right &= (b.type, *b.ne, b.src[0], b.src[1], b.view_src) == (F16, 3, 2, 5, 7, made, None, made)
        right &= (b.data, self.lib.ggml_op_desc(turned)) == (a.data, b"PERMUTE")
        self.lib.ggml_free(context)
        if not right:
            raise OracleError(f"{self.path}: its tensors are not laid out as those of llama.cpp since 2025; install a newer build")

    def fitting(self, bindings: Layout | None) -> Layout:
        """The layout that the library's own defaults fit: the one that bindings describe, or else known ones. OracleError."""
        if bindings:
            shapes = {"llama_model_default_params": bindings.model, "llama_context_default_params": bindings.context}
            if wrong := [why for name, shape in shapes.items() if (why := self.misfit(name, shape))]:
                raise OracleError(
                    f"{self.path}: is not laid out as {bindings.name} has it: {'; '.join(wrong)}; give the library that these "
                    "bindings came with, or the bindings of this library with --llama-python"
                )
            return bindings
        return Layout(
            "", self.known("llama_model_default_params", MODELS), self.known("llama_context_default_params", CONTEXTS), BATCH
        )

    def known(self, name: str, words: Mapping[str, str]) -> type[Structure]:
        """The structure among known ones that a function returns. OracleError if it is none of them."""
        shapes = (structure(version, fields(text)) for version, text in words.items())
        fit = next((shape for shape in shapes if not self.misfit(name, shape)), None)
        if fit is None:
            raise OracleError(
                f"{self.path}: is {self.describe()}, and what its {name} returns is laid out as in no version that is known here; "
                "install the llama-cpp-python that comes with this llama.cpp, and name its Python with --llama-python"
            )
        return fit

    def describe(self) -> str:
        """What the library says of itself."""
        return (
            f"ggml {self.build['ggml']}, commit {self.build['commit']}" if self.build["ggml"] else "a llama.cpp without a version"
        )

    def misfit(self, name: str, shape: type[Structure]) -> str:
        """What the defaults that a function returns say against a layout of them; empty if they fit."""
        raw, size = self.written(name)
        if size is not None and size != ctypes.sizeof(shape):
            return f"{name} writes {size} bytes, not {ctypes.sizeof(shape)}"
        wrong = ", ".join(misread(shape, raw))
        return wrong and f"{name} has no default for {wrong} where that would be"

    def written(self, name: str) -> tuple[bytes, int | None]:
        """The structure that a function without arguments returns: its bytes, and how many there are.

        The number is that of the bytes that are equal whatever was there before, in whole eights; None where that cannot be seen.
        """
        function = self.lib[name]
        if not FIRST_IS_RESULT:
            function.restype, function.argtypes = type("Room", (Structure,), {"_fields_": [("raw", c_char * ROOM)]}), []
            return bytes(function()), None
        function.restype, function.argtypes = c_void_p, [c_void_p]
        after = []
        for before in (b"\x5a", b"\xa5"):
            room = ctypes.create_string_buffer(before * ROOM, ROOM)
            function(ctypes.addressof(room))
            after.append(room.raw)
        same = [i for i, (a, b) in enumerate(zip(*after, strict=True)) if a == b]
        return after[0], -(-(max(same, default=-1) + 1) // 8) * 8

    def _load_kernels(self, variant: str) -> None:
        """The first kernels that are registered do all the work, so this comes before llama_backend_init."""
        try:
            self.declare({"ggml_backend_load": (c_void_p, [c_char_p])})
        except AttributeError:
            raise OracleError(
                f"{self.path}: cannot load kernels from a file of their own; give a build with one libggml-cpu.so"
            ) from None
        if not self.lib.ggml_backend_load(os.fsencode(variant)):
            raise OracleError(
                f"{variant}: this processor lacks what these kernels need, or they are of another llama.cpp; give a build "
                "for this processor"
            )
        self.build["kernels"] = Path(variant).stem.removeprefix("libggml-cpu-")
