"""What kind of file a GGUF is that holds no model which runs by itself, and what it is for."""

from collections.abc import Callable, Mapping

from ..errors import MetadataError
from ..gguf.reader import GgufFile

EXPECTED = "expected a language model with all its blocks"
EMBEDDING = "an embedding model, which turns a text into one vector and writes none; give a language model"
DRAFTER = "a draft model ({}), which guesses tokens from another model's activations; give that model"
PICTURES = "a model that makes pictures or films; give a language model"
TYPES = {  # general.type -> what it is, and what to do
    "adapter": "a LoRA adapter, which changes the weights of a model; give the model it was made for, with the adapter merged in",
    "mmproj": "the image or audio part of a model (mmproj); give the file of its language model, which reads text by itself",
    "imatrix": "an importance matrix, which llama-quantize reads; give the model itself",
    "controlvector": "a control vector, which is added to a model's residual stream; give the model itself",
    "vocab": "a vocabulary without weights; give the model that it was taken from",
}
ARCHITECTURES = {  # general.architecture of older files, which have no general.type, and of drafts
    "clip": TYPES["mmproj"],
    "controlvector": TYPES["controlvector"],
    "imatrix": TYPES["imatrix"],
    "eagle3": DRAFTER.format("EAGLE-3"),
    "dflash": DRAFTER.format("DFlash"),
    "gemma4-assistant": DRAFTER.format("Gemma 4's assistant"),
    "wavtokenizer-dec": "the decoder of a speech codec; give a language model",
    "whisper": "a model that writes down speech; give a language model",
    **dict.fromkeys(("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert"), EMBEDDING),
    **dict.fromkeys(("jina-bert-v2", "jina-bert-v3", "gemma-embedding", "llama-embed", "t5encoder"), EMBEDDING),
    **dict.fromkeys(("flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan", "lumina2"), PICTURES),
    "qwen_image": PICTURES,
}
DRAFT = (
    "a prediction block (MTP) without the blocks before it, which guesses tokens for its model; give the model, and this file "
    "with --mtp-file"
)


def _with(*ends: str) -> Callable[[GgufFile], str]:
    """What is shown of a file with a tensor whose name ends so; "" without one."""
    return lambda file: next((f"it has {name}" for name in file.tensors if name.endswith(ends)), "")


def _only(*starts: str) -> Callable[[GgufFile], str]:
    """What is shown of a file all of whose tensors have names that begin so; "" for another."""

    def shown(file: GgufFile) -> str:
        first = next(iter(file.tensors), "")
        return f"its first tensor is {first}" if first and all(name.startswith(starts) for name in file.tensors) else ""

    return shown


def _draft(file: GgufFile) -> str:
    blocks = {name.split(".")[1] for name in file.tensors if name.startswith("blk.")}
    shown = next((f"it has {name}" for name in file.tensors if ".nextn." in name), "")
    return "" if "0" in blocks else shown


def _vocabulary(file: GgufFile) -> str:
    return "it has no tensors" if not file.tensors and "tokenizer.ggml.model" in file.metadata else ""


BY_CONTENT: Mapping[str, Callable[[GgufFile], str]] = {  # what tells a file whose keys say nothing, or "model"; "" if nothing does
    TYPES["adapter"]: _with(".lora_a", ".lora_b"),
    TYPES["controlvector"]: _only("direction."),
    TYPES["imatrix"]: _with(".in_sum2"),
    TYPES["mmproj"]: _only("v.", "mm.", "a.", "resampler."),
    TYPES["vocab"]: _vocabulary,
    EMBEDDING: _with("dense.0.weight", "dense_2.weight"),
    DRAFT: _draft,
}


def kind_of(file: GgufFile) -> tuple[str, str] | None:
    """What a file is that is no model by itself; None for a model.

    Returns what shows it (a key and its value, or the tensors), and what the file is and what to do. MetadataError for a key of
    another type.
    """
    md = file.metadata
    stated = md.str("general.type", "model")
    if stated in TYPES:
        return f"general.type is {stated!r}", TYPES[stated]
    architecture = md.str("general.architecture", "")
    if architecture in ARCHITECTURES:
        return f"general.architecture is {architecture!r}", ARCHITECTURES[architecture]
    for what, shown_by in BY_CONTENT.items():
        if shown := shown_by(file):
            return shown, what
    if stated != "model":
        return f"general.type is {stated!r}", f"of a kind that is not known here; known are model, {', '.join(TYPES)}"
    return None


def refuse_other_kinds(file: GgufFile) -> None:
    """MetadataError for a file that is no model by itself: what shows it, what it is, what to give instead."""
    if found := kind_of(file):
        shown, what = found
        raise MetadataError(f"{file.path}: {shown}; {EXPECTED}. This file is {what}.")
