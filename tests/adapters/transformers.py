"""An adapter for transformers' torch implementations of the gated delta rule, in a Python of their own.

REFMODEL_HF_PYTHON names it; DELTA_RULE is recurrent or chunk.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torch_child import Child

# transformers divides queries by the root of Dk, and has states [H, Dk, Dv]
rule = Child("""
import os
from transformers.models.qwen3_next import modeling_qwen3_next as m

theirs = getattr(m, f"torch_{os.environ['DELTA_RULE']}_gated_delta_rule")


def rule(q, k, v, g, beta, state):
    out, after = theirs(q[None] * q.shape[-1] ** 0.5, k[None], v[None], g[None], beta[None],
                        initial_state=state.transpose(1, 2)[None].contiguous(), output_final_state=True)
    return out[0], after[0].transpose(1, 2)
""")
