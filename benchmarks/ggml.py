"""llama.cpp's own operations, one graph at a time, on the CPU backend of the library that refmodel drives.

A weight is computed where it lies (plain), or in the buffer that llama.cpp's loader prefers for its type and shape (repacked):
the first extra buffer type of the CPU whose backend supports the product, as its model loader chooses.
Source: ggml/include/ggml.h, ggml-backend.h; llama.cpp src/llama-model-loader.cpp, weight_buft_supported.
"""

import weakref
from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, POINTER, Structure, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from refmodel.llamacpp.library import Library
from refmodel.llamacpp.structures import Api
from refmodel.llamacpp.structures import Tensor as Node

from .arrays import aligned, zeros

CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
F32, I32 = 0, 26  # ggml_type


class InitParams(Structure):
    """ggml's ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class Feature(Structure):
    """ggml's ggml_backend_feature."""

    _fields_ = (("name", c_char_p), ("value", c_char_p))


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_log_set": (None, [c_void_p, c_void_p]),
    "ggml_init": (c_void_p, [InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor": (c_void_p, [c_void_p, c_int, c_int, POINTER(c_int64)]),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_mul_mat": (c_void_p, [c_void_p] * 3),
    "ggml_get_rows": (c_void_p, [c_void_p] * 3),
    "ggml_gated_delta_net": (c_void_p, [c_void_p] * 7 + [c_int64]),
    "ggml_backend_dev_by_type": (c_void_p, [c_int]),
    "ggml_backend_dev_init": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_dev_backend_reg": (c_void_p, [c_void_p]),
    "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_dev_supports_op": (c_bool, [c_void_p, c_void_p]),
    "ggml_backend_buft_alloc_buffer": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_cpu_buffer_from_ptr": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_tensor_alloc": (c_int, [c_void_p, c_void_p, c_void_p]),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p]),
}


class Ggml:
    """The CPU backend of one llama.cpp in this process, with a number of threads. OracleError for an unknown build."""

    def __init__(self, library: Library, threads: int) -> None:
        self.api = Api(library.request)
        self.lib = self.api.lib
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments
        self.silent = CFUNCTYPE(None, c_int, c_char_p, c_void_p)(lambda level, text, data: None)
        self.lib.ggml_log_set(self.silent, None)
        self.device = self.lib.ggml_backend_dev_by_type(CPU)
        self.registry = self.lib.ggml_backend_dev_backend_reg(self.device)
        self.backend = self.lib.ggml_backend_dev_init(self.device, None)
        self.function(b"ggml_backend_set_n_threads", CFUNCTYPE(None, c_void_p, c_int))(self.backend, threads)

    def function(self, name: bytes, kind: Any) -> Any:
        """A function of the backend's registry by its name; `kind` is its ctypes prototype."""
        return kind(self.lib.ggml_backend_reg_get_proc_address(self.registry, name))

    def features(self) -> str:
        """The features that the backend was compiled for: `AVX2 FMA REPACK`, and so on."""
        kind = CFUNCTYPE(POINTER(Feature), c_void_p)
        found, names = self.function(b"ggml_backend_get_features", kind)(self.registry), list[str]()
        while found[len(names)].name:
            names.append(found[len(names)].name.decode())
        return " ".join(names)

    def repacking(self, kind: GGMLQuantizationType, shape: tuple[int, ...]) -> int | None:
        """The buffer type in which llama.cpp's loader puts a weight of this type and shape [O, I]; None if it is not repacked."""
        kinds = self.function(b"ggml_backend_dev_get_extra_bufts", CFUNCTYPE(POINTER(c_void_p), c_void_p))(self.device)
        graph = Graph(self)
        weight, x = graph.tensor(int(kind), shape), graph.tensor(F32, (512, shape[1]))
        product = self.lib.ggml_mul_mat(graph.context, weight, x)
        at = 0
        while kinds and kinds[at]:
            buffer = self.lib.ggml_backend_buft_alloc_buffer(kinds[at], 0)
            Node.from_address(weight).buffer = buffer
            supported = self.lib.ggml_backend_dev_supports_op(self.device, product)
            Node.from_address(weight).buffer = None
            self.lib.ggml_backend_buffer_free(buffer)
            if supported:
                return int(kinds[at])
            at += 1
        return None


def release(lib: Any, context: int, buffers: list[int]) -> None:
    """Free a context and its buffers."""
    for buffer in buffers:
        lib.ggml_backend_buffer_free(buffer)
    lib.ggml_free(context)


class Graph:
    """One operation: its inputs, their memory, and the call that computes it."""

    def __init__(self, ggml: Ggml) -> None:
        self.ggml, self.lib = ggml, ggml.lib
        self.context = self.lib.ggml_init(InitParams(1 << 20, None, True))
        self.kept: list[Any] = []  # arrays in whose memory tensors lie
        self.buffers: list[int] = []
        weakref.finalize(self, release, self.lib, self.context, self.buffers)

    def tensor(self, kind: int, shape: Sequence[int]) -> int:
        """A tensor without memory; kind is a ggml_type, shape in NumPy's order. Returns its address."""
        ne = (c_int64 * len(shape))(*shape[::-1])
        return int(self.lib.ggml_new_tensor(self.context, kind, len(shape), ne))

    def over(self, tensor: int, data: NDArray[Any]) -> int:
        """Give the tensor the array's own memory, or that of an aligned copy. Returns the tensor."""
        data = aligned(data)
        self.kept.append(data)
        buffer = self.lib.ggml_backend_cpu_buffer_from_ptr(data.ctypes.data, data.nbytes)
        self.buffers.append(buffer)
        self.lib.ggml_backend_tensor_alloc(buffer, tensor, data.ctypes.data)
        return tensor

    def copied(self, kind: int, shape: Sequence[int], data: NDArray[Any], buffer_type: int) -> int:
        """A tensor in a buffer of that type: the array's bytes, repacked as the buffer type does it. Returns its address."""
        inner = Graph(self.ggml)
        tensor = inner.tensor(kind, shape)
        inner.buffers.append(self.lib.ggml_backend_alloc_ctx_tensors_from_buft(inner.context, buffer_type))
        self.lib.ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.nbytes)
        self.kept.append(inner)
        return tensor

    def floats(self, data: NDArray[np.float32]) -> int:
        """A float32 tensor with the array's memory. Returns its address."""
        return self.over(self.tensor(F32, data.shape), data)

    def finish(self, result: int) -> Callable[[], None]:
        """Give the result memory. Returns a call that computes it once; RuntimeError if ggml refuses."""
        self.result, node = result, Node.from_address(result)
        self.out = zeros(tuple(node.ne)[::-1], np.float32)
        self.over(result, self.out)
        graph = self.lib.ggml_new_graph(self.context)
        self.lib.ggml_build_forward_expand(graph, result)

        def run() -> None:  # holds this object, and with it the memory of every tensor
            if status := self.lib.ggml_backend_graph_compute(self.ggml.backend, graph):
                raise RuntimeError(f"ggml_backend_graph_compute gives {status}, not 0; name another --llama-lib")

        return run


Turn = tuple[Callable[[], None], NDArray[np.float32]]  # what computes, and where it leaves the result


def mul_mat(ggml: Ggml, kind: GGMLQuantizationType, rows: NDArray[np.uint8], x: NDArray[np.float32], repack: int | None) -> Turn:
    """A turn of packed rows [O, bytes] times tokens x [T, I] float32 -> [T, O].

    repack  the buffer type into which the rows are repacked before; None: they stay as they are
    """
    graph, shape = Graph(ggml), (len(rows), x.shape[1])
    w = graph.over(graph.tensor(int(kind), shape), rows) if repack is None else graph.copied(int(kind), shape, rows, repack)
    run = graph.finish(ggml.lib.ggml_mul_mat(graph.context, w, graph.floats(x)))
    return run, graph.out.reshape(len(x), len(rows))


def get_rows(ggml: Ggml, kind: GGMLQuantizationType, rows: NDArray[np.uint8], columns: int) -> Turn:
    """A turn of decoding every row: [O, bytes] -> [O, columns] float32."""
    graph = Graph(ggml)
    w = graph.over(graph.tensor(int(kind), (len(rows), columns)), rows)
    ids = np.arange(len(rows), dtype=np.int32)
    which = graph.over(graph.tensor(I32, ids.shape), ids)
    run = graph.finish(ggml.lib.ggml_get_rows(graph.context, w, which))
    return run, graph.out.reshape(len(rows), columns)


def gated_delta_net(ggml: Ggml, q: Any, k: Any, v: Any, log_decay: Any, beta: Any, state: Any) -> Turn:
    """A turn of ggml's gated delta rule; its outputs carry the factor S^-0.5.

    q, k             [T, Hk, S]
    v                [T, Hv, S]
    log_decay, beta  [T, Hv]
    state            [Hv, S, S]

    Computes the outputs [T, Hv, S], float32.
    """
    graph, (T, Hv, S) = Graph(ggml), v.shape
    inputs = [graph.floats(a) for a in (q, k, v, log_decay.reshape(T, Hv, 1), beta.reshape(T, Hv, 1), state)]
    run = graph.finish(ggml.lib.ggml_gated_delta_net(graph.context, *inputs, 1))
    return run, graph.out.reshape(-1)[: T * Hv * S].reshape(T, Hv, S)
