"""The numbers that are wanted, as one table: (what, of which types, under which numerics) -> Goal."""

from .results import Goal

GOOD = ("Q4_K", "Q5_K", "Q8_0")  # types with a goal of their own; Q6_K has one more
FLOATS = ("F16", "BF16", "F32")

MATVEC = {"good": Goal(1.3, 1.6), "Q6_K": Goal(1.15, 1.3), "other": Goal(0.8, 1.2)}
BANDWIDTH = {"good": Goal(85.0, 95.0), "Q6_K": Goal(70.0, 95.0)}  # percent of what can be read
PREFILL = {"good": Goal(1.5, 1.9), "Q6_K": Goal(1.5, 1.9), "other": Goal(0.8, 1.2)}
EXACT = {"matvec": Goal(0.6, 0.8), "prefill": Goal(0.85, 1.0)}
SAME_BITS = {"matvec": Goal(1.0, 1.2), "prefill": Goal(0.8, 1.2)}
DELTA = {512: Goal(2.5, 3.3), 1: Goal(1.0, 1.2)}
MODEL = {
    ("fast", "decode"): Goal(1.15, 1.35),
    ("fast", "prefill"): Goal(1.4, 1.8),
    ("llamacpp", "decode"): SAME_BITS["matvec"],
    ("llamacpp", "prefill"): SAME_BITS["prefill"],
}
TRANSFORMERS = {"prefill": Goal(3.0, 4.0), "decode": Goal(7.0, 9.0)}
DEQUANTIZE = {"gguf-py": Goal(20.0), "libggml": Goal(1.2), "fill": Goal(95.0)}
START = Goal(1.0, 0.7, most=True)  # seconds
COLD = Goal(30.0, 15.0, most=True)  # seconds
GROWTH = Goal(1.1, 1.0, most=True)
MEMORY = Goal(600.0, 300.0, most=True)  # megabytes


def kind_of(name: str) -> str:
    """The class of goals of a tensor type: good, Q6_K or other."""
    return "good" if name in GOOD else name if name == "Q6_K" else "other"


def product(group: str, name: str, numerics: str) -> Goal | None:
    """The goal of a product with a tensor type under a numerics; group is matvec or prefill."""
    if numerics == "reference":
        return EXACT[group]
    if numerics == "llamacpp":
        return SAME_BITS[group]
    return {"matvec": MATVEC, "prefill": PREFILL}[group][kind_of(name)]
