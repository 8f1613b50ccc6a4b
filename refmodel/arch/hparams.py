"""The sizes of a model: one record for all architectures."""

from dataclasses import dataclass

from ..ops.rope import Rope


@dataclass(frozen=True)
class Hparams:
    """What the metadata of a file says of its model. A field that an architecture has not is 0, () or None.

    Counts are plain numbers, widths are numbers of floats. `metadata.common` makes the record, the architecture adds its own.
    """

    n_layer: int  # blocks of the trunk, those that a route may name
    n_nextn: int  # prediction blocks after them
    n_embd: int  # E
    n_head: int  # H
    n_head_kv: int  # G
    head_dim: int  # D
    eps: float  # added to the mean square in every norm
    rope: Rope

    n_ff: int = 0  # inner width of the feed-forward part, or of one expert
    n_expert: int = 0  # X
    n_used: int = 0  # U, experts of a token
    n_ff_shared: int = 0  # inner width of the expert that every token goes to

    window: int = 0  # tokens that a query sees in a sliding block, itself among them; 0 if no block slides
    sliding: tuple[bool, ...] = ()  # by the block's index in the file
    rope_sliding: Rope | None = None
    query_dim: int = 0  # the query's scale is query_dim^-0.5, where it is not that of a head
    softcap: float = 0.0  # of the logits; 0 for none

    temperature: float = 0.0  # how much of itself a query grows by beyond the context of the training; 0 for not at all
    n_trained: int = 0  # tokens of that context

    recurrent: tuple[bool, ...] = ()  # by the block's index in the file
    d_conv: int = 0  # K, taps of the convolution
    d_state: int = 0  # Dk = Dv
    n_k_head: int = 0  # Hk
    n_v_head: int = 0  # Hv
    eps_unit: float = 0.0  # added in the unit norms of its queries and keys, where it is not eps

    def window_of(self, index: int) -> int:
        """How many tokens a query of block `index` sees, itself among them; 0 for all."""
        return self.window if self.sliding and self.sliding[index] else 0

    @property
    def unit_eps(self) -> float:
        """What is added to the square sum in the unit norms of the delta rule's queries and keys."""
        return self.eps_unit or self.eps

    @property
    def n_all(self) -> int:
        """Blocks of the file: those of the trunk and the prediction blocks."""
        return self.n_layer + self.n_nextn

    @property
    def key_dim(self) -> int:
        """Numbers of all keys of the delta rule, Hk · Dk."""
        return self.d_state * self.n_k_head

    @property
    def value_dim(self) -> int:
        """Numbers of all values of the delta rule, Hv · Dv."""
        return self.d_state * self.n_v_head

    @property
    def conv_dim(self) -> int:
        """C, the channels of the convolution: those of q, k and v, 2 Hk Dk + Hv Dv."""
        return 2 * self.key_dim + self.value_dim
