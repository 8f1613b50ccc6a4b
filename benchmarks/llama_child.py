"""llama.cpp with its own settings on a file: the child that benchmarks/model.py asks for turns.

open: load the file, f16 cache, flash attention where it can, weights rearranged as it likes, 512 tokens a ubatch.
prefill: an empty sequence and these tokens, logits of the last. decode: these tokens, one by one. Source: include/llama.h.
"""

import ctypes
import time
from ctypes import c_bool, c_char_p, c_float, c_int8, c_int32, c_void_p
from typing import Any

from refmodel.llamacpp.running import load_model
from refmodel.llamacpp.structures import Api

from .child import answer, requests

SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_get_logits_ith": (ctypes.POINTER(c_float), [c_void_p, c_int32]),
    "llama_print_system_info": (c_char_p, []),
}


class Runner:
    """One model in llama.cpp, and one sequence."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.api = Api(request)
        self.lib = self.api.lib
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments
        self.model = load_model(self.lib, request["open"], {"repack": True})
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = request["cells"], request["threads"], request["threads"]
        self.context = self.lib.llama_init_from_model(self.model, params)
        assert self.context, "no context"
        self.info = self.lib.llama_print_system_info().decode()
        self.n_vocab = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))

    def clear(self) -> None:
        """Empty the cache."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def run(self, tokens: list[int]) -> tuple[float, list[float]]:
        """Feed token ids to the sequence. Returns the seconds and the first logits (eight at most) of the last position."""
        ids, wanted = (c_int32 * len(tokens))(*tokens), (c_int8 * len(tokens))(*[0] * (len(tokens) - 1), 1)
        batch = self.api.layout.batch(n_tokens=len(tokens), token=ctypes.addressof(ids), logits=ctypes.addressof(wanted))
        start = time.perf_counter()
        status = self.lib.llama_decode(self.context, batch)
        logits = self.lib.llama_get_logits_ith(self.context, len(tokens) - 1)
        seconds = time.perf_counter() - start
        assert status == 0, f"llama_decode gives {status}"
        return seconds, logits[: min(8, self.n_vocab)]


def main() -> None:
    """Answer requests: open a model, prefill, decode."""
    runner: Runner | None = None
    for request, channel in requests():
        if "open" in request:
            runner = Runner(request)
            answer(channel, info=runner.info)
            continue
        assert runner
        if "prefill" in request:
            runner.clear()
        passes = [request["prefill"]] if "prefill" in request else [[token] for token in request["decode"]]
        results = [runner.run(tokens) for tokens in passes]
        answer(channel, seconds=sum(seconds for seconds, _ in results), logits=results[-1][1])


if __name__ == "__main__":
    main()
