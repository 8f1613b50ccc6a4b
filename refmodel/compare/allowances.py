"""How much of a measured rounding is allowed, as a factor of an NMSE: single runs scatter around what was measured."""

# Two roundings of one sum differ from each other as each differs from the exact one: NMSE 2, in units of the measured, on average.
# Few numbers, or numbers near zero, scatter: in 49 healthy runs of random models, 19,269 tensors, the largest was 7 % of what is
# allowed, at a gate of one number per token.
OF_FLOATS = 100.0
OF_CLASSES = 9.0  # where the rounding is coarse; tests/many_roundings.py prints what is used of it
FLOOR = 1e-12  # NMSE: some units in the last place of each number, where the measured rounding happens to be none
