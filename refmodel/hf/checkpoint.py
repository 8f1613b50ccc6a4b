"""A Hugging Face folder as the file that everything else reads: metadata under llama.cpp's keys, tensors under its names."""

from math import prod
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arch import ARCHITECTURES, Keys
from ..errors import MetadataError, TensorError
from ..gguf.metadata import Metadata
from ..gguf.reader import GgufFile, read
from ..gguf.tensor import AnyTensor, Tensor
from ..machine.boundary import expecting
from .beyond import rotation
from .classes import CLASSES, MODEL_TYPES, Class
from .folder import CONFIG, Folder, read_folder
from .keys import fields_of
from .ropes import rope_divisors
from .settings import Settings
from .tensors import Made, made, predicting_layers
from .vocabulary import vocabulary


def opened(path: str | Path) -> GgufFile:
    """A GGUF, or a folder read as one. Errors as gguf.reader.read and `as_file`."""
    return as_file(read_folder(Path(path))) if Path(path).is_dir() else read(path)


def class_of(folder: Folder) -> Class:
    """The class of a folder, by `architectures` in its configuration, or by `model_type` if there is none.

    MetadataError for one that is not known.
    """
    named = folder.config.get("architectures") or [MODEL_TYPES.get(str(folder.config.get("model_type")), "missing")]
    names = [str(name) for name in named] if isinstance(named, list) else []
    found = next((CLASSES[name] for name in names if name in CLASSES), None)
    if found is None:
        raise MetadataError(
            f"{folder.path / CONFIG}: architectures is {', '.join(names)[:60] or 'missing'}; known are {', '.join(CLASSES)}: give "
            "a folder of one of these, or a GGUF of the model"
        )
    return found


def as_file(folder: Folder) -> GgufFile:
    """A folder in the words of a GGUF: what llama.cpp's converter would write, with matrices in the folder's own types.

    MetadataError for a class or a value that is not known, TensorError for a tensor that cannot be read or is not known.
    """
    return checkpoint(folder)[0]


def checkpoint(folder: Folder) -> tuple[GgufFile, Made]:
    """A folder as a file, and what each of its tensors is made of. Errors as `as_file`."""
    with expecting(str(folder.path), MetadataError, "get the folder again, or give a GGUF of the model"):
        return as_made(folder, class_of(folder), folder.path)


def as_made(folder: Folder, cls: Class, path: Path) -> tuple[GgufFile, Made]:
    """The same, by a class that is known."""
    if folder.packed_by:
        raise TensorError(
            f"{path}: its weights are {folder.packed_by}, which is not read here: "
            "give a folder whose weights are not quantized, or a GGUF of the model"
        )
    s = Settings.of(folder, predicting_layers(folder) if cls.predicts else 0)
    fields = fields_of(s, cls.arch, cls.says) | vocabulary(folder, s)
    metadata, arch = Metadata(path / CONFIG, fields), ARCHITECTURES[cls.arch]
    held = sum(prod(t.shape) for t in folder.tensors.values())  # no width is more
    hp = arch.hparams(Keys(metadata, cls.arch, held))
    in_file = DIVISORS in arch.globals(hp, 0)[1]
    divisors = rope_divisors(s, hp.rope.n_rot) if in_file else None
    found = made(folder, cls, hp)
    tensors: dict[str, AnyTensor] = {} if divisors is None else {DIVISORS: rope_tensor(path, divisors)}
    parts = [cls.beyond(s, hp), rotation(s, hp, in_file)]
    beyond, remarks = {**parts[0][0], **parts[1][0]}, (*parts[0][1], *parts[1][1])
    return GgufFile(path, 0, metadata, tensors | found.tensors, (path / CONFIG, *folder.shards), beyond, remarks), found


DIVISORS = "rope_freqs.weight"  # in the architectures that read it


def rope_tensor(path: Path, divisors: list[float]) -> Tensor:
    """The divisors of RoPE's angles as the tensor that a GGUF has of them."""
    packed = np.array(divisors, np.float32).view(np.uint8)
    return Tensor(DIVISORS, Q.F32, (len(divisors),), path / CONFIG, packed)
