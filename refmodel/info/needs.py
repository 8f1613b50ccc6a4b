"""The memory that a model needs."""

import numpy as np

from ..model.model import Model


def needs(model: Model) -> dict[str, int]:
    """What a run needs, in bytes: `weights`, `cache_of_1000_tokens` and `states`.

    The weights stay in the file's mapping. Keys, values and the delta rule's states are float32, in the file's own order of blocks.
    """
    states = [model.arch.new_state(model.hp, i, np.float32) for i in range(model.n_layer)]
    fixed = sum(state.bytes(0, np.float32) for state in states)
    return {
        "weights": sum(t.data.size for t in model.file.tensors.values()),
        "cache_of_1000_tokens": sum(state.bytes(1000, np.float32) for state in states) - fixed,
        "states": fixed,
    }
