"""What every group of benchmarks is given."""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from refmodel.llamacpp.library import Library

from .ggml import Ggml

TYPES = (
    *("Q4_K", "Q5_K", "Q6_K", "Q8_0"),
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4", "F16", "BF16", "F32"),
)
NUMERICS = ("fast", "llamacpp", "reference")
PHASES = ("decode", "prefill")


@dataclass(frozen=True)
class Bench:
    """The choices of the command line.

    pairs      turns of each side
    threads    of both sides
    library    the llama.cpp to compare with
    models     the folder of the large files; missing ones are made
    files      which of them `model` and `memory` run
    hf_python  a Python that has transformers and torch
    """

    pairs: int
    threads: int
    library: Library
    models: Path
    types: tuple[str, ...] = TYPES
    numerics: tuple[str, ...] = NUMERICS
    files: tuple[str, ...] = ("q35-4b-4", "q35-4b-32")
    phases: tuple[str, ...] = PHASES
    hf_python: str = sys.executable

    @cached_property
    def ggml(self) -> Ggml:
        """llama.cpp's operations in this process, loaded on first use."""
        return Ggml(self.library, self.threads)
