"""Faults of the harness: the right engine is fed with the wrong tokens."""

from collections.abc import Sequence

from ..model.model import Model
from .changes import calls
from .fault import Calls, Fault


def twice_begun(asked: Sequence[Sequence[int]], model: Model) -> Calls | None:
    """The calls with another beginning-of-sequence token at the front; None if the file has none."""
    bos = model.file.metadata.fields.get("tokenizer.ggml.bos_token_id")
    return None if bos is None or not asked else [[int(bos.value()), *asked[0]], *asked[1:]]


FAULTS: list[Fault] = [
    Fault(
        id="F62",
        name="bos-twice",
        family="tokens",
        says="The beginning-of-sequence token is put before a prompt that has it already, or that should have none.",
        evidence="imp #983, quant.cpp 2396027, llama.cpp #22700",
        fix="add the token where tokenizer.ggml.add_bos_token says so, once; a chat template may have written it already",
        right="refmodel.tokenizer:encode",
        at=("embedding",),
        change=calls(twice_begun),
        keys=("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id"),
    ),
]
