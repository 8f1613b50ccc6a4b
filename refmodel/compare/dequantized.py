"""A copy of a file in which every tensor is float32."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType

from ..arrays import Bytes
from ..gguf.reader import GgufFile
from ..gguf.tensor import AnyTensor
from ..gguf.writer import write


def dequantized(file: GgufFile, out: Path) -> Path:
    """Write the same model with every tensor as F32, for a runtime that would round activations. Returns the path.

    FileError if `out` cannot be written, or is the file itself.
    """
    fields = {key: value for key, value in file.metadata.fields.items() if not key.startswith("split.")}
    return write(out, fields, map(AsF32, file.tensors.values()), sources=file.parts)


@dataclass(frozen=True)
class AsF32:
    """A tensor of the file as F32; decoded when its bytes are asked for, and not kept."""

    source: AnyTensor
    type: GGMLQuantizationType = GGMLQuantizationType.F32

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape: (rows, columns)."""
        return self.source.shape

    @property
    def data(self) -> Bytes:
        """The decoded values as bytes, [4 · values]. TensorError for a type that has no weights to decode."""
        from ..numerics.reference import decoded  # it imports Numba, which a copy of packed bytes does not need

        return decoded(self.source.type, self.source.rows).reshape(-1).view(np.uint8)
