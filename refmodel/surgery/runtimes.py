"""Who can run a routed file, and what it costs; known before a byte is written.

A hybrid architecture has blocks of two kinds. A runtime knows which block is which either from a list in the file, or from an
interval: every so many-th block is of the other kind. Nothing depends on how many blocks there are, or on what divides that.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arch import HYBRID
from ..arch.keys import MAX_BLOCKS
from ..arch.kinds import interval_of, interval_without_list
from ..forward.state import KeyValues
from ..hf.by_place.llamacpp import COUNTED, miscounted
from ..model.model import Model
from .copy_map import Plan

TRANSFORMERS = "reads layer_types, which is written into its folders"


@dataclass(frozen=True)
class Runner:
    """One kind of runtime, whether it runs the copy, and why."""

    name: str
    runs: bool
    why: str


def one_kind(model: Model, plan: Plan) -> str:
    """The kind, if a hybrid is left with blocks of only one: llama.cpp aborts on that. Else empty."""
    kinds = {model.kinds[layer] for layer in plan.route.layers}
    return kinds.pop() if model.architecture in HYBRID and len(kinds) == 1 else ""


def lost_by_count(model: Model, plan: Plan) -> str:
    """What llama.cpp computes differently in the copy because of its number of blocks; empty if nothing is."""
    hp = model.hp
    return miscounted(model.architecture, plan.n_source, len(plan.blocks), (hp.n_embd // hp.n_head, hp.head_dim))


def not_in_a_copy(model: Model) -> list[str]:
    """What a copy with more, fewer or other blocks would lose or get, in words; all else follows its block."""
    arch, n, hp = model.architecture, model.n_layer, model.hp
    widths = (hp.n_embd // hp.n_head, hp.head_dim)
    counts = {n - 1, n + 1, *((COUNTED[arch].least,) if arch in COUNTED else ())}
    lines = list(filter(None, (miscounted(arch, n, other, widths) for other in sorted(counts))))[:1]
    if how := model.arch.FACTS.kinds:
        lines.append(f"{arch}.{how.listed} says which blocks are {how.kind}; a runtime that reads no list takes them by place")
    if model.hp.n_nextn:
        lines.append("the prediction block stays last, though it was trained on this order of blocks")
    return lines + [note for note in model.file.notes if "left out" in note]


def runners(model: Model, plan: Plan) -> list[Runner]:
    """What is known of each kind of runtime."""
    if len(plan.blocks) > MAX_BLOCKS:
        too_many = f"{len(plan.blocks)} blocks; llama.cpp loads at most {MAX_BLOCKS}"
        return [Runner("llama.cpp", False, too_many), Runner("refmodel", True, "runs the route itself")]
    if lost := lost_by_count(model, plan):
        return [Runner("llama.cpp", False, lost), Runner("refmodel", True, "runs the route itself")]
    how, kinds = model.arch.FACTS.kinds, [model.kinds[layer] for layer in plan.route.layers]
    if how is None:
        alike = "all blocks are of one kind, so their number is all that changes"
        return [Runner(name, True, alike) for name in ("llama.cpp", "Hugging Face transformers", "any runtime that counts blocks")]
    if kind := one_kind(model, plan):
        abort = f"llama.cpp aborts on a hybrid model with blocks of one kind only, and this has only {kind} blocks"
        return [Runner("llama.cpp", False, abort), Runner("refmodel", True, "runs the route itself")]
    if not how.interval:
        read = f"{model.architecture}.{how.listed} is written block by block; {how.reader}"
        return [Runner("llama.cpp", True, read), Runner("Hugging Face transformers", True, TRANSFORMERS)]
    stated = interval_without_list(model.file.metadata, model.architecture, how)
    fits = interval_of(kinds, how.kind, stated)
    wrong = [i for i, found in enumerate(kinds) if (found == how.kind) != ((i + 1) % stated != 0)]
    rule = f"by {how.interval} = {stated} "
    by_rule = f"{rule}block {wrong[0]} would be of the other kind" if wrong else f"{rule}all kinds are right"
    if wrong and fits:
        by_rule += f"; {how.interval} = {fits}, written with --layout interval, would be right"
    return [
        Runner("llama.cpp, with the list", True, f"{model.architecture}.{how.listed} is written; {how.reader}"),
        Runner("Hugging Face transformers", True, TRANSFORMERS),
        Runner("runtimes without the list (older llama.cpp)", not wrong, by_rule),
    ]


def cost(model: Model, plan: Plan) -> dict[str, Any]:
    """What the copy costs compared with its source, in bytes. The cache is counted in float16, recurrent states in float32."""
    route, tensors = plan.route, model.file.tensors
    size = {name: tensor.data.size for name, tensor in tensors.items()}
    before, after = sum(size.values()), sum(size[source] for source in plan.origins(tensors).values())
    states = [state_bytes(model, layer) for layer in range(model.n_layer)]
    return {
        "extra_blocks": len(route.layers) - route.n_layer,
        "extra_percent": round(route.overhead, 2),
        "weights_bytes": {"source": before, "copy": after},
        "cache_bytes_per_token": {"source": sum(s[0] for s in states), "copy": sum(states[b][0] for b in route.layers)},
        "recurrent_state_bytes": {"source": sum(s[1] for s in states), "copy": sum(states[b][1] for b in route.layers)},
    }


def state_bytes(model: Model, block: int) -> tuple[int, int]:
    """What a position with this block keeps: bytes for each token, and bytes for any number of tokens."""
    state = model.arch.new_state(model.hp, block, np.float32)
    if isinstance(state, KeyValues):
        return 2 * 2 * model.hp.n_head_kv * model.hp.head_dim, 0
    return 0, state.bytes(0, np.float32)
