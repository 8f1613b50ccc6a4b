"""The builds of llama.cpp whose arithmetic is known."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Build:
    """What the kernels of one build do differently. Those of others are refused, not guessed.

    tiles            has tiled products
    panels_of_iq4    has a path of its own for 8 and more tokens with IQ4_XS and a multiple of 8 rows
    fused_sum        flash attention, one row: the sum of weights takes a product by fma, not by two roundings
    tiles_any_head   flash attention in tiles also where the size of a head is no multiple of 8
    fuses_left_over  RoPE of neighbours, odd number of pairs: the last pair is computed as the others are
    pads_rows        sgemm of F32 also for rows that are no multiple of 8
    """

    commit: str
    tiles: bool = True
    panels_of_iq4: bool = False
    fused_sum: bool = True
    tiles_any_head: bool = True
    fuses_left_over: bool = False
    pads_rows: bool = False


JUDGE = Build("0c1e570")  # llama-cpp-python 0.3.36, of which golden/ speaks


BUILDS = {
    build.commit: build
    for build in (
        JUDGE,
        Build("0ce8cd1", pads_rows=True),  # b11739
        Build(  # node-llama-cpp 3.22.1
            "0ad4a86", tiles=False, panels_of_iq4=True, fused_sum=False, tiles_any_head=False, fuses_left_over=True
        ),
    )
}
