"""The sizes of a model, read from its metadata the same way for all architectures.

Source: llama_model_base::load_hparams in llama.cpp src/llama-model.cpp.
"""

from dataclasses import replace

from ..gguf.metadata import REQUIRED
from .hparams import Hparams
from .keys import MAX_BLOCKS, Keys
from .rotation import USUAL, Yarn, rotation


def common(k: Keys, adjacent: bool = False, hybrid: bool = False, yarn: Yarn = USUAL, some_heads: bool = False) -> Hparams:
    """The sizes that every architecture has. MetadataError names a key that is missing or out of its range.

    adjacent    whether the pairs that RoPE turns are neighbours, see ops.rope.Rope
    hybrid      whether there may be prediction blocks after the trunk, and heads that are rotated only in part
    yarn        its numbers, where a file may set them
    some_heads  whether some blocks may have no key/value heads
    """
    if not k.md.bool(k.full("attention.causal"), True):
        raise k.refused("attention.causal", False, "expected true; tokens that see later ones are not supported")
    n_all = k.count("block_count", most=MAX_BLOCKS)
    n_nextn = k.count("nextn_predict_layers", 0, 0, n_all - 1 if hybrid else 0)
    n_embd = k.width("embedding_length", 1)
    n_head, n_head_kv = head_counts(k, n_all, n_embd, some_heads)
    head_dim, n_rot = head_widths(k, n_head, n_embd, hybrid)
    return Hparams(
        n_layer=n_all - n_nextn,
        n_nextn=n_nextn,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        eps=k.real("attention.layer_norm_rms_epsilon", REQUIRED, 1e-20, 1),  # at 0 a row of zeros would be 0 / 0
        rope=rotation(k, n_rot, adjacent, yarn=yarn),
    )


def head_counts(k: Keys, n_all: int, n_embd: int, some: bool) -> tuple[int, int]:
    """(H, G): query heads, and key/value heads; with `some`, those of the blocks that have any.

    MetadataError if H is not a multiple of G, or a count is out of its range.
    """
    n_head = k.first("attention.head_count", n_all, most=k.room(n_embd))
    of_blocks = k.the_one if some else k.alike
    n_head_kv = of_blocks("attention.head_count_kv", n_all, n_head, most=n_head)
    k.multiple("attention.head_count", n_head, "attention.head_count_kv", n_head_kv)
    return n_head, n_head_kv


def head_widths(k: Keys, n_head: int, n_embd: int, partly: bool) -> tuple[int, int]:
    """(D, n_rot): the width of a head, and how much of it is rotated; all of it if not `partly`.

    MetadataError for a width that is out of its range, or values of another width than keys.
    """
    head_dim = k.width("attention.key_length", n_head * n_embd, n_embd // n_head)
    k.only("attention.value_length", head_dim, missing=n_embd // n_head)
    if not partly:
        k.only("rope.dimension_count", head_dim)
    return head_dim, k.count("rope.dimension_count", head_dim, 2, head_dim)


def with_dense(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and n_ff, the inner width of the feed-forward part.

    MetadataError if it is missing or out of its range, or a key says that there are experts.
    """
    for name in ("expert_count", "expert_used_count", "expert_group_count"):
        k.only(name, 0)
    return with_width(k, hp)


def with_width(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and n_ff as feed_forward_length has it. MetadataError if it is missing or out of its range."""
    return replace(hp, n_ff=k.first("feed_forward_length", hp.n_all, most=k.room(hp.n_embd)))


def with_choice(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and X experts in a block, of which a token goes to U.

    MetadataError if a key is missing or out of its range, or experts are chosen in groups.
    """
    n_expert = k.width("expert_count", hp.n_embd)
    if (groups := k.count("expert_group_count", 0, 0)) > 1:
        raise k.refused("expert_group_count", groups, "experts that are chosen in groups are not computed here")
    return replace(hp, n_expert=n_expert, n_used=k.alike("expert_used_count", hp.n_all, most=n_expert))


def with_experts(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and those of experts: X in a block, U for each token, and n_ff, the inner width of one.

    MetadataError if a key is missing or out of its range, or experts are chosen in groups.
    """
    hp = with_choice(k, hp)
    most = k.room(hp.n_embd * hp.n_expert)
    if "expert_feed_forward_length" in k:
        return replace(hp, n_ff=k.first("expert_feed_forward_length", hp.n_all, most=most))
    each = k.first("feed_forward_length", hp.n_all) // hp.n_used
    return replace(hp, n_ff=k.checked("feed_forward_length / expert_used_count", each, 1, most))


def with_shared_expert(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and n_ff_shared, the inner width of the expert that every token goes to.

    Without its key it is feed_forward_length. MetadataError if it is missing or out of its range.
    """
    name = "expert_shared_feed_forward_length"
    if name in k:
        return replace(hp, n_ff_shared=k.width(name, hp.n_embd))
    return replace(hp, n_ff_shared=with_width(k, hp).n_ff)
