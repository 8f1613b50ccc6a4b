"""A copy of a file in which every tensor is float32."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from ..arrays import Bytes
from ..gguf.reader import GgufFile, Tensor
from ..gguf.writer import write


def dequantized(file: GgufFile, out: Path) -> Path:
    """The same model with every tensor as F32: what a quantized file means, for a runtime that would round activations."""
    fields = {key: value for key, value in file.metadata.fields.items() if not key.startswith("split.")}
    return write(out, fields, map(AsF32, file.tensors.values()), sources=file.parts)


@dataclass(frozen=True)
class AsF32:
    """A tensor of the file as F32; decoded when its bytes are asked for, and not kept."""

    source: Tensor
    type: GGMLQuantizationType = GGMLQuantizationType.F32

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def data(self) -> Bytes:
        from ..numerics.reference import decoded  # it imports Numba, which a copy of packed bytes does not need

        return decoded(self.source.type, self.source.rows).reshape(-1).view(np.uint8)
