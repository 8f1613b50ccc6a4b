"""What a step of a forward pass is given: weights, state, the call, the numerics record, taps."""
