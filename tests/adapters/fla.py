"""An adapter for the naive implementations of the gated delta rule in flash-linear-attention (fla-core), in a Python of their own.

REFMODEL_HF_PYTHON names it; DELTA_RULE is recurrent or chunk. The file is loaded by itself: the package around it needs triton.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torch_child import Child

# states are [H, Dk, Dv] there
rule = Child("""
import importlib.util, os

folder = importlib.util.find_spec("fla").submodule_search_locations[0]
spec = importlib.util.spec_from_file_location("naive", os.path.join(folder, "ops", "gated_delta_rule", "naive.py"))
naive = importlib.util.module_from_spec(spec)
spec.loader.exec_module(naive)
theirs = getattr(naive, f"naive_{os.environ['DELTA_RULE']}_gated_delta_rule")


def rule(q, k, v, g, beta, state):
    out, after = theirs(q=q[None], k=k[None], v=v[None], g=g[None], beta=beta[None], scale=1.0,
                        initial_state=state.transpose(1, 2)[None].contiguous(), output_final_state=True)
    return out[0], after[0].transpose(1, 2)
""")
