"""Before llama.cpp runs a user's model it runs a small one whose result is recorded: a library that is misread shows there.

What is checked first is what no arithmetic can change: that parameters arrive where they are set, and numbers where they are read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..arrays import F
from ..errors import OracleError
from ..forward.taps import in_call
from ..forward.trace import Trace
from ..gguf.reader import read
from ..machine.files import PACKAGE
from .profile import PROFILES, Profile
from .running import KV_TYPE, decode, load_model, logits, new_context, possible
from .structures import CALLBACK, Api, Tensor
from .taker import Lister, array

MODEL = PACKAGE / "golden" / "models" / "llama.gguf"  # F32: no rounding of activations
RECORDED = PACKAGE / "golden" / "traces" / "llama" / "logits.safetensors"  # under profile exact
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
# NMSE of logits that is no other order of sums, and with a cache of half floats. Builds of two years have at most 1e-12 and 1e-7.
ROUNDING = {"f32": 1e-8, "f16": 1e-5}
ROWS = (PROFILES["exact"], Profile("flash", flash_attn="on", kv="f16"))


class Looker(Lister):
    """Lists the nodes, and looks at the first and the last numbers, and at the type of the cache.

    first  the embeddings of this call's tokens
    last   its logits
    cache  types of the tensors that hold keys
    """

    def __init__(self, api: Api) -> None:
        super().__init__(api.lib)
        self.first: F = np.zeros((0, 0), np.float32)
        self.last: F = np.zeros((0, 0), np.float32)
        self.cache = set[int]()

    def callback(self, pointer: int, ask: bool, _: int | None) -> bool:
        """cb_eval: the nodes that read the embedding or the head are needed."""
        super().callback(pointer, ask, _)
        if ask:
            return not self.error and bool({EMBEDDING, HEAD} & set(map(str, self.nodes[-1][-1]["src"])))
        try:
            self.look(Tensor.from_address(pointer))
        except BaseException as error:
            self.error = error
        return True

    def note(self, pointer: int) -> dict[str, Any]:
        """Add a node to the list."""
        for tensor in (Tensor.from_address(source) for source in Tensor.from_address(pointer).src if source):
            if tensor.name.startswith(b"cache_k"):
                self.cache.add(tensor.type)
        return super().note(pointer)

    def look(self, tensor: Tensor) -> None:
        """Keep the numbers of a node that was needed."""
        found = array(tensor).astype(np.float32).reshape(-1, tensor.ne[0])
        if Tensor.from_address(tensor.src[0]).name.decode() == EMBEDDING:
            self.first = found
        else:
            self.last = found


def rehearse(api: Api) -> None:
    """Run the small model. OracleError if the library is misread, or computes something else."""
    trace = Trace(RECORDED)
    calls = json.loads(trace.metadata["provenance"])["calls"]
    for profile in ROWS:
        ours = possible(asdict(profile), api.layout)
        for wrong in troubles(api, calls, ours, trace):
            raise OracleError(
                f"{api.path}: {wrong} (tried with {MODEL.name}, {profile.describe()}): either its structures are misread, or it "
                "computes something else than llama.cpp; give another build, or its bindings with --llama-python"
            )


def troubles(api: Api, calls: Sequence[Sequence[int]], profile: Mapping[str, Any], trace: Mapping[str, F]) -> Iterator[str]:
    """What is wrong in a run of the small model, the surest signs first."""
    model = load_model(api.lib, str(MODEL), profile)
    looker = Looker(api)
    callback = CALLBACK(looker.callback)
    context = new_context(api, model, calls, profile, callback)
    rows, lost, energy, past = read(MODEL).tensors[EMBEDDING].rows.view(np.float32), 0.0, 0.0, 0
    for k, tokens in enumerate(calls):
        decode(api, context, k, past, tokens, looker)
        past += len(tokens)
        found, recorded = logits(api, context, model, len(tokens)), trace[in_call("result_output", k)].reshape(len(tokens), -1)
        if not any(node["src"][:1] == [HEAD] for node in looker.nodes[-1]):
            yield "its nodes are not seen, or have no sources"
        elif not np.array_equal(looker.first, rows[tokens]):
            yield "its embeddings are not the rows of the file"
        elif found.shape != recorded.shape or not np.array_equal(looker.last, found):
            yield "its logits are not the numbers of its last node"
        lost, energy = (
            lost + float(((found - recorded).astype(float) ** 2).sum()),
            energy + float((recorded.astype(float) ** 2).sum()),
        )
    flash = any(node["op"] == "FLASH_ATTN_EXT" for call in looker.nodes for node in call)
    if flash != (profile["flash_attn"] == "on"):
        yield f"flash attention is {'on' if flash else 'off'}, and was asked to be {profile['flash_attn']}"
    if looker.cache - {KV_TYPE[profile["kv"]]}:
        yield f"its cache has type {', '.join(map(str, looker.cache))}, and was asked to be {profile['kv']}"
    if not lost <= ROUNDING[profile["kv"]] * energy:
        yield f"its logits are NMSE {lost / energy:.1e} from those that are recorded"
    api.lib.llama_free(context)
    api.lib.llama_model_free(model)
