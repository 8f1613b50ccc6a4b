"""What a file is that is no GGUF, by its first bytes, and what a folder holds that is no model; and what to give instead."""

import re
from collections.abc import Callable
from pathlib import Path

CONVERT = "convert the model to a GGUF"
OLD = ("of a llama.cpp from before August 2023, or of whisper.cpp", "get the model as a GGUF, or convert it again")
# How a file begins -> what it is, and what to do. The first that fits counts.
FILES: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"version https://git-lfs",
        "a Git LFS pointer, which stands for a file that was not fetched",
        "run git lfs pull, or download it",
    ),
    (rb"\s*(?i:<!doctype html|<html)", "a web page", "use the address that downloads the file, and log in if it asks for that"),
    (rb'\s*\{.*"mediaType"', "a manifest of Ollama", "give the blob of its layer application/vnd.ollama.image.model"),
    (
        rb"\s*[{\[]\s*[\"{\[\]}]",
        "JSON",
        "if it reports an error, download again; if it is a configuration, give its folder",
    ),
    (rb"(?:#.*\n|\s)*FROM\s", "a Modelfile of Ollama", "give the file that its line FROM names"),
    (rb"lmgg|fmgg|tjgg", f"a GGML file, {OLD[0]}", OLD[1]),
    (rb"algg", "a LoRA adapter of a llama.cpp from before GGUF", "give the model itself"),
    (rb"PK\x03\x04", "a ZIP archive, as torch.save writes weights", f"{CONVERT}, or give a folder with safetensors files"),
    (rb"\x80[\x02-\x05]", "a pickle, as torch.save once wrote weights", f"{CONVERT}, or give a folder with safetensors files"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf", "a compressed file", "unpack it first"),
    (rb"(?s:.{4}\0{4})\{", "a safetensors file", "give the folder that has it and its config.json"),
    (
        rb"(?s:.{3}\0.{3}\0)(?:blk\.\d|output|token_embd)",
        "an importance matrix, which llama-quantize reads",
        "give the model itself",
    ),
    (rb"\0{64}", "zeros: room for a download that did not come", "download it again"),
    (rb"[\t\n\r\x20-\x7e]{16}", "a text", "if it reports an error, download the file again"),
)
BEGINNING = 512  # bytes that tell


def what_it_is(head: bytes) -> str:
    """The end of a message about a file that is no GGUF, from its first bytes: what it is, and what to do."""
    for beginning, what, advice in FILES:
        if re.match(beginning, head):
            return f"but {what}; {advice}"
    return "nor another file that is known here; convert the model, or give another file"


def listed(path: Path, pattern: str) -> list[str]:
    """The names of the files below a folder that fit a pattern, but for later parts of split ones."""
    names = (str(found.relative_to(path)) for found in sorted(path.glob(pattern)))
    return [name for name in names if not re.search(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", name)]


def some(names: list[str]) -> str:
    """A few names."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _ggufs(path: Path) -> str:
    names = listed(path, "*.gguf") or listed(path, "*/*.gguf")
    return f"it holds GGUF files; give one of them: {some(names)}" if names else ""


def _snapshots(path: Path) -> str:
    names = listed(path, "snapshots/*/config.json") or listed(path, "snapshots/*/*.gguf")
    return f"it is an entry of a Hugging Face cache; give {path / names[0]}".removesuffix("/config.json") if names else ""


def _torch(path: Path) -> str:
    names = listed(path, "*.bin") + listed(path, "*.pth") + listed(path, "*.pt")
    return f"its weights are those of torch.save ({some(names)}); save them as safetensors, or {CONVERT}" if names else ""


def _has(words: str, *names: str) -> Callable[[Path], str]:
    return lambda path: words if all((path / name).exists() for name in names) else ""


FOLDERS: tuple[Callable[[Path], str], ...] = (
    _has("it is a LoRA adapter; merge it into the model that it was made for, and give that", "adapter_config.json"),
    _has("it is a pipeline that makes images; give the folder of a language model", "model_index.json"),
    _has("it is Ollama's store; `ollama show --modelfile NAME` names the blob of a model: give that", "blobs", "manifests"),
    _snapshots,
    _ggufs,
    _torch,
)


def what_it_holds(path: Path) -> str:
    """The end of a message about a folder without what a model needs: what it holds, and what to do. Empty if that is not known."""
    return next((words for rule in FOLDERS if (words := rule(path))), "")
