"""The record of functions that a forward pass computes with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import DType, F, Ints, Matrices, Matrix
from ..ops.rope import Rope


@dataclass(frozen=True)
class Emulated:
    """The program whose arithmetic a numerics computes to the bit: a llama.cpp.

    profile  how it runs, a llamacpp.profile.Profile
    build    whose kernels it has, a llamacpp.builds.Build
    """

    profile: Any
    build: Any


@dataclass(frozen=True)
class Numerics:
    """One way to do the arithmetic of a model: everything but + and * is a field. The op of that name in ops/ says what it means.

    The policies are values: NUMPY, REFERENCE, FAST, ORACLE, LLAMACPP. `dataclasses.replace` makes another, for example one whose
    swiglu has a fault; a forward pass takes it as it takes a name.

    name      a word for reports; numerics_of(name) is this numerics again
    emulates  the llama.cpp that computes the same bits; None if it is no emulation
    by_token  whether the bits of a token do not depend on how many tokens are computed with it, or which: what batches need
    few       where not: up to how many tokens of one call have the bits that they have one by one
    dtype     of activations and states
    embed     (embedding [V, E], token ids [T], dtype) -> [T, E]
    linear    (matrix [O, I], x [T, I]) -> [T, O]
    experts   (matrices [X, O, I], x [T, 1 or U, I], expert ids [T, U]) -> [T, U, O]
    store     what the key/value cache does to a number before it is read again
    scores    whether attention makes its scores and weights as matrices; flash attention does not
    """

    name: str
    emulates: Emulated | None
    by_token: bool
    few: int
    dtype: DType
    embed: Callable[[Matrix, Ints, DType], F]
    linear: Callable[[Matrix, F], F]
    experts: Callable[[Matrices, F, Ints], F]
    inverse_root: Callable[[int], float]
    rms_norm: Callable[[F, float], F]
    sigmoid: Callable[[F], F]
    silu: Callable[[F], F]
    swiglu: Callable[[F, F], F]
    geglu: Callable[[F, F], F]
    softcap: Callable[[F, float], F]
    softplus: Callable[[F], F]
    soft_max: Callable[[F], F]
    rope: Callable[[F, Ints, Rope], F]
    store: Callable[[F], F]
    scores: bool
    attention: Callable[[F, F, F, float, F, F, int], F]
    causal_conv1d: Callable[[F, F], F]
    gated_delta_rule: Callable[[F, F, F, F, F, F, F], F]

    def at_once(self, tokens: int) -> int:
        """How many of that many tokens may be one call, if each is to have the bits that it has one by one."""
        return tokens if self.by_token else min(tokens, self.few)

    @property
    def cache(self) -> np.dtype[Any]:
        """The dtype of cached keys and values."""
        return self.store(np.zeros(0, self.dtype)).dtype
