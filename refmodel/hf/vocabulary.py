"""x"""

from ..gguf.metadata import Field
from .folder import Folder
from .keys import as_field
from .settings import Settings


def vocabulary(folder: Folder, s: Settings) -> dict[str, Field]:
    """x"""
    return {"tokenizer.ggml.model": as_field("none")}
