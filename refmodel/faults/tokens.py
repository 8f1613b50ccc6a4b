"""Faults of the harness: the right engine is fed with the wrong tokens."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arrays import F
from ..model.model import Model
from .attention import none
from .changes import calls, operation
from .fault import Calls, Engine, Fault

PADDING = 3

new = partial(Fault, family="tokens", at=("embedding",), right="refmodel.tokenizer:encode")


def bos_of(model: Model) -> int | None:
    """The id of the beginning-of-sequence token, if the file has one."""
    field = model.file.metadata.fields.get("tokenizer.ggml.bos_token_id")
    return None if field is None else int(field.value())


def twice_begun(asked: Calls, model: Model) -> Calls | None:
    """The calls with another beginning-of-sequence token at the front; None if the file has none."""
    bos = bos_of(model)
    return None if bos is None else [[bos, *asked[0]], *asked[1:]]


def without_beginning(asked: Calls, model: Model) -> Calls | None:
    """The calls without the beginning-of-sequence token at the front, if it is there; None if the file has none."""
    bos = bos_of(model)
    return None if bos is None else [[*asked[0]][int(asked[0][0] == bos and len(asked[0]) > 1) :], *asked[1:]]


def without_last(asked: Calls, model: Model) -> Calls:
    """The calls without the last token of the first, if it has several."""
    return [[*asked[0]][: max(1, len(asked[0]) - 1)], *asked[1:]]


def padded(e: Engine) -> Engine | None:
    """Prompts with padding at the front, which attention does not see; convolutions and the delta rule do."""
    if not any(e.model.hp.recurrent):
        return None

    def attention(healthy: Any, hp: Hparams, q: F, k: F, v: F, *given: Any) -> F:
        scale, _, _, window = given
        own = min(len(q), max(0, len(k) - PADDING))
        out = np.zeros_like(q)
        if own:
            k, v = (np.ascontiguousarray(x[PADDING:]) for x in (k, v))
            out[len(q) - own :] = healthy(np.ascontiguousarray(q[len(q) - own :]), k, v, scale, none(q), none(q), window)
        return out

    def rope(healthy: Any, hp: Hparams, x: F, pos: Any, how: Any) -> F:
        return np.asarray(healthy(x, pos - PADDING, how))

    def feed(asked: Calls) -> Calls:
        first: Sequence[int] = e.feed(asked)[0]
        return [[*[0] * PADDING, *first], *e.feed(asked)[1:]]

    changed = operation("rope", rope)(e)
    changed = changed and operation("attention", attention)(changed)
    return changed and replace(changed, feed=feed)


FAULTS: list[Fault] = [
    new(
        id="F62",
        name="bos-twice",
        says="The beginning-of-sequence token is put before a prompt that has it already, or that should have none.",
        evidence="imp #983, quant.cpp 2396027, llama.cpp #22700",
        fix="add the token where tokenizer.ggml.add_bos_token says so, once; a chat template may have written it already",
        change=calls(twice_begun),
        keys=("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id"),
    ),
    new(
        id="F62",
        name="bos-missing",
        says="The beginning-of-sequence token is not put before a prompt that should have it.",
        evidence="imp #660, llama.cpp #23252, quant.cpp #93",
        fix="add the token where tokenizer.ggml.add_bos_token says so",
        change=calls(without_beginning),
        keys=("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id"),
    ),
    new(
        id="last-token-lost",
        name="last-token-lost",
        says="The last token of the prompt is not read.",
        evidence="a kind of harness fault: logits are those of the token before",
        fix="feed all tokens, and compare the logits after the last",
        right="refmodel.model.session:forward",
        change=calls(without_last),
    ),
    new(
        id="F48",
        name="padding-leaks",
        says="Padding at the front of a prompt is masked in attention, but passes through convolutions and states.",
        evidence="transformers #46773, transformers #47086, maxtext #5295, fla #1272",
        fix="set the inputs of convolutions and of the delta rule to zero at padding, or do not pad",
        right="refmodel.model.session:forward",
        change=padded,
    ),
]
