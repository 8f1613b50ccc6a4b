"""What tools need to know of an architecture besides its mathematics. Most architectures need none of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .kinds import Kinds

# What most architectures compute
USUAL: Mapping[str, str] = {"norm": "x / sqrt(mean(x^2) + eps) * w", "feed-forward": "down(silu(gate(x)) * up(x))"}
CHOSEN: Mapping[str, str] = {"experts": "softmax over all, the largest are taken, their weights divided by their sum"}


@dataclass(frozen=True)
class Facts:
    """The facts of one architecture; each has a default value that changes nothing.

    kinds          how its files say what kind each block has; None where all blocks are alike
    predicts       whether its files may have a prediction block (MTP) after the trunk
    typical        keys that a typical file needs besides the sizes that all have, with small values: model/made writes one
    meanings       tensor, without blk.N. -> what it is, where info/meanings.py would say something else. A pattern of str.format
                   over the fields of Hparams
    biased         whether queries, keys and values have biases in its typical files
    gelu           whether the gate of its feed-forward part is a GELU, which llama.cpp takes from a table of half floats
    embedding_scaled    whether embedded tokens are multiplied by √E
    kind_meanings  kind of a block -> what a reader needs to know of it, the same sort of pattern
    scaling        keys below rope.scaling. that llama.cpp reads for YaRN in this architecture and not in others
    last_norm      the tensor of the norm after the last block, without .weight
    semantics      what its forward pass computes where programs have differed, in formulas: a golden keeps them
    """

    kinds: Kinds | None = None
    predicts: bool = False
    typical: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    biased: bool = False
    gelu: bool = False
    embedding_scaled: bool = False
    kind_meanings: Mapping[str, str] = field(default_factory=dict)
    scaling: tuple[str, ...] = ()
    last_norm: str = "output_norm"
    semantics: Mapping[str, str] = field(default_factory=lambda: USUAL)


# Of a typical file with experts
TYPICAL_EXPERTS = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 512}
TYPICAL_SHARED = {"expert_shared_feed_forward_length": 512}
