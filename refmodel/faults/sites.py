"""Sites of a forward pass: one name for what each architecture shows under a tap of its own.

A site is in blocks of some kinds, or outside of blocks. An architecture has it if its blocks of these kinds have one of its taps.
Of several the first counts, because some architectures use a name for something else too: `Qcur` is the product in most, and the
rotated query where `Qcur_full` is the product.
"""

import re
from collections.abc import Mapping
from functools import cache

from ..llamacpp.nodes import table

ATTENTION, DELTA, CONV, OUTSIDE = "attention", "delta", "conv", ""
GROUPS = {"attention": ATTENTION, "sliding": ATTENTION, "experts": ATTENTION, "delta": DELTA, "conv": CONV}  # kind -> group
OF_BLOCKS = (ATTENTION, DELTA, CONV)

MIXED = (  # what attention, the delta rule or a convolution adds to the residual sum
    "linear_attn_out",
    "attn_output",
    "attn_out",
    "model.layers.{}.self_attn.out_proj",
    "model.layers.{}.conv.out_proj",
    "mul_mat",
)

OPTIONAL = ("q biased", "k biased", "v biased")  # sites of tensors that a file may lack
# site -> the groups of blocks that have it, and its taps
SITES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "embedding": ((OUTSIDE,), ("inp_scaled", "embd", "model.input_embed", "model.embed_tokens")),
    "last mean": ((OUTSIDE,), ("norm",)),
    "last norm": ((OUTSIDE,), ("h_nextn", "result_norm")),
    "logits": ((OUTSIDE,), ("result_output",)),
    # in every block
    "input mean": (OF_BLOCKS, ("norm",)),
    "mean 1": (OF_BLOCKS, ("norm#1",)),  # of which norm, the architecture says
    "mean 2": (OF_BLOCKS, ("norm#2",)),
    "mean 3": (OF_BLOCKS, ("norm#3",)),
    "mean 4": (OF_BLOCKS, ("norm#4",)),
    "input norm": (OF_BLOCKS, ("attn_norm", "model.layers.{}.operator_norm")),
    "residual": (OF_BLOCKS, ("attn_residual", "ffn_inp", "sa_out", "add")),
    "ffn norm": (OF_BLOCKS, ("ffn_norm", "model.layers.{}.ffn_out", "attn_post_norm")),
    "ffn gate": (OF_BLOCKS, ("ffn_gate",)),
    "ffn up": (OF_BLOCKS, ("ffn_up",)),
    "ffn product": (OF_BLOCKS, ("ffn_swiglu", "ffn_geglu")),
    "ffn swiglu": (OF_BLOCKS, ("ffn_swiglu",)),
    "ffn geglu": (OF_BLOCKS, ("ffn_geglu",)),
    "ffn down": (OF_BLOCKS, ("ffn_out", "mul_mat")),
    "post attention norm": (OF_BLOCKS, ("attn_post_norm",)),
    "post ffn norm": (OF_BLOCKS, ("ffn_post_norm",)),
    "output": (OF_BLOCKS, ("l_out",)),
    "mixed": (OF_BLOCKS, MIXED),
    # attention
    "q product": ((ATTENTION,), ("Qcur_full", "Qcur")),
    "k product": ((ATTENTION,), ("Kcur",)),
    "v product": ((ATTENTION,), ("Vcur",)),
    "mixed attention": ((ATTENTION,), MIXED),
    "q part": ((ATTENTION,), ("Qcur_reshaped", "Qcur_view")),  # where each query has a gate next to it
    "q gate": ((ATTENTION,), ("gate_reshaped", "gate")),
    "q normed": ((ATTENTION,), ("Qcur_normed", "model.layers.{}.self_attn.q_layernorm")),
    "k normed": ((ATTENTION,), ("Kcur_normed", "model.layers.{}.self_attn.k_layernorm")),
    "q rotated": ((ATTENTION,), ("Qcur#2", "rope", "Qcur")),
    "k rotated": ((ATTENTION,), ("Kcur#2", "rope#1", "Kcur#1")),
    "q biased": ((ATTENTION,), ("Qcur#bias",)),
    "k biased": ((ATTENTION,), ("Kcur#bias",)),
    "v biased": ((ATTENTION,), ("Vcur#bias",)),
    "q scaled": ((ATTENTION,), ("scale",)),
    "keys": ((ATTENTION,), ("cache_k",)),
    "values": ((ATTENTION,), ("cache_v",)),
    "attention": ((ATTENTION,), ("kqv",)),
    "attention gate": ((ATTENTION,), ("gate_sigmoid",)),
    "attention gated": ((ATTENTION,), ("attn_gated",)),
    # the gated delta rule
    "qkv product": ((DELTA,), ("linear_attn_qkv_mixed",)),
    "conv memory": ((DELTA,), ("conv_states_reshaped",)),
    "conv input": ((DELTA,), ("conv_input",)),
    "conv kept": ((DELTA,), ("conv_state_last",)),
    "conv raw": ((DELTA,), ("conv_output_raw",)),
    "conv": ((DELTA,), ("conv_output_silu",)),
    "q raw": ((DELTA,), ("q_conv",)),
    "k raw": ((DELTA,), ("k_conv",)),
    "q mean": ((DELTA,), ("rms_norm",)),
    "k mean": ((DELTA,), ("rms_norm#1",)),
    "unit q": ((DELTA,), ("scale", "q_conv_predelta")),
    "unit k": ((DELTA,), ("scale#1", "k_conv_predelta")),
    "delta v": ((DELTA,), ("v_conv_predelta",)),
    "ba product": ((DELTA,), ("linear_attn_mixed_ba",)),
    "alpha": ((DELTA,), ("alpha", "a")),
    "alpha and dt": ((DELTA,), ("add",)),
    "step size": ((DELTA,), ("a_softplus",)),
    "decay": ((DELTA,), ("gate",)),
    "beta raw": ((DELTA,), ("beta", "b")),
    "beta": ((DELTA,), ("beta_sigmoid", "sigmoid")),
    "old state": ((DELTA,), ("state_predelta",)),
    "new state": ((DELTA,), ("new_state",)),
    "delta output": ((DELTA,), ("attn_output",)),
    "delta normed": ((DELTA,), ("mul",)),
    "z": ((DELTA,), ("z",)),
    "delta gate": ((DELTA,), ("silu",)),
    "delta gated": ((DELTA,), ("final_output",)),
    "short conv gates": ((CONV,), ("model.layers.{}.conv.in_proj",)),
    "delta mixed": ((DELTA,), ("linear_attn_out",)),
    # a short convolution between two gates
    "short conv input": ((CONV,), ("concat",)),
    "short conv": ((CONV,), ("model.layers.{}.conv.conv",)),
    "short conv gated": ((CONV,), ("mul#1",)),
    # experts
    "router probabilities": (OF_BLOCKS, ("ffn_moe_probs",)),
    "router": (OF_BLOCKS, ("ffn_moe_logits",)),
    "chosen probabilities": (OF_BLOCKS, ("ffn_moe_weights",)),
    "shares": (OF_BLOCKS, ("ffn_moe_weights_norm",)),
    "expert gate": (OF_BLOCKS, ("ffn_moe_gate",)),
    "expert up": (OF_BLOCKS, ("ffn_moe_up",)),
    "expert product": (OF_BLOCKS, ("ffn_moe_swiglu",)),
    "expert down": (OF_BLOCKS, ("ffn_moe_down",)),
    "shared expert's score": (OF_BLOCKS, ("shared_expert_gate",)),
    "experts": (OF_BLOCKS, ("ffn_moe_out",)),
    "shared expert product": (OF_BLOCKS, ("ffn_shexp",)),
    "shared expert": (OF_BLOCKS, ("ffn_shexp_gated",)),
    "shared expert's share": (OF_BLOCKS, ("shared_expert_gate_sigmoid",)),
}


@cache
def taps(architecture: str, experts: bool) -> Mapping[str, frozenset[str]]:
    """The taps of an architecture, by the group of the block: `Qcur#2`, without the position.

    experts  whether the model has experts, which the table of some architectures lists apart

    OracleError if there is no table of llama.cpp's node names for it.
    """
    found: dict[str, set[str]] = {group: set() for group in (*OF_BLOCKS, OUTSIDE)}
    sections = table(architecture).sections
    kinds = {name: set(re.findall(r"\w+", name)) & set(GROUPS) for name in sections}
    apart = {name for name, words in kinds.items() if "experts" in words}
    for section, entries in sections.items():
        names = {re.sub(r"-N(?=#|$)", "", entry.tap) for entry in entries if entry.tap}
        if apart and kinds[section] and (section in apart) != experts:
            continue
        for group in {GROUPS[kind] for kind in kinds[section]} or {OUTSIDE}:
            found[group] |= names
    return {group: frozenset(names) for group, names in found.items()}


def places(site: str, architecture: str, experts: bool) -> dict[str, str]:
    """Where an architecture, with or without experts, has a site: group of blocks -> tap."""
    groups, names = SITES[site]
    here = {group: [name for name in names if name in taps(architecture, experts)[group]] for group in groups}
    return {group: found[0] for group, found in here.items() if found}
