"""The files beside a folder's weights that decide what a text becomes: tokenizer, chat template, end tokens, code, adapters.

Compared by their meaning, so that a tokenizer that was saved again is the same.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import RefmodelError
from ...hf.folder import OTHER_WEIGHTS, Folder, read_json
from ...machine.files import contents, text_of
from .report import Check, Report

TEMPLATE = "chat_template.jinja"
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "vocab.txt",
    "spiece.model",
    TEMPLATE,
)
SPECIAL = ("bos_token", "eos_token", "unk_token")
STEERS = (*SPECIAL, "add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case")
ADAPTER, GENERATION = "adapter_config.json", "generation_config.json"
Said = dict[str, Any]


def check_beside(check: Check, report: Report, copy: Folder, source: Folder) -> None:
    """Check the files beside the weights: a finding for what changes the tokens or the code, a note for the rest."""
    try:
        check_tokenizer(check, report, copy, source)
        check_end(check, report, copy, source)
        check_code(check, copy, source)
    except (RefmodelError, LookupError, TypeError, ValueError, AttributeError) as error:
        check.found("the tokenizer's files", f"cannot be read: {error}")
    others = [p.name for p in sorted(copy.path.iterdir()) if p.suffix in OTHER_WEIGHTS and p not in copy.shards]
    if others:
        report.notes.append(f"other weights in the folder were not looked at: {', '.join(others[:3])}")


def check_tokenizer(check: Check, report: Report, copy: Folder, source: Folder) -> None:
    """Check that a text becomes the same tokens, and a chat the same text."""
    if not any((copy.path / name).exists() for name in TOKENIZERS):
        if any((source.path / name).exists() for name in TOKENIZERS):
            report.notes.append("it has no tokenizer: what a text becomes is not proved")
        return
    for name, meaning in READ.items():
        ours, theirs = (folder.path / name for folder in (copy, source))
        if not (ours.exists() and theirs.exists()):
            if ours.exists() != theirs.exists():
                report.notes.append(f"only the {'copy' if ours.exists() else 'source'} has {name}")
            continue
        if contents(ours) == contents(theirs):
            check.compared += 1
        else:
            differing(check, name, meaning(ours), meaning(theirs))
    differing(check, "tokenizer_config.json", settings(copy.path), settings(source.path))


def differing(check: Check, name: str, ours: Said, theirs: Said) -> None:
    """A finding for each part that both files do not say alike."""
    for part in sorted(ours.keys() | theirs.keys()):
        check.compared += 1
        if ours.get(part) != theirs.get(part):
            how = "is missing" if part not in ours else "is not in the source" if part not in theirs else "is not the source's"
            check.found(f"{name}: {part}", how + shown(ours.get(part), theirs.get(part)))


def shown(ours: Any, theirs: Any) -> str:
    """Both values, if they are short."""
    both = [json.dumps(value) for value in (ours, theirs)]
    return f": {both[0]}, expected {both[1]}" if max(map(len, both)) < 60 else ""


def whole(value: Any) -> Any:
    """A JSON value without what says nothing: null, false, empty texts."""
    if isinstance(value, dict):
        return {key: whole(v) for key, v in value.items() if v not in (None, False, "")}
    return [whole(v) for v in value] if isinstance(value, list) else value


def tokenizer(path: Path) -> Said:
    """What a tokenizer.json says, in parts: vocabulary, merges, added tokens, and the steps around them."""
    held = {key: value for key, value in read_json(path).items() if key not in ("version", "truncation", "padding")}
    model, tokens = dict(held.pop("model", None) or {}), held.pop("added_tokens", None) or []
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model.pop("merges", None) or []]
    said = {"model.vocab": model.pop("vocab", None), "model.merges": merges, **whole(held)}
    said |= {f"model.{key}": value for key, value in whole(model).items()}
    said["added_tokens"] = sorted((whole(token) for token in tokens), key=lambda token: token.get("id", 0))
    return {key: value for key, value in said.items() if value not in (None, [])}


def lines(path: Path) -> Said:
    """A merges.txt or vocab.txt, without comments."""
    return {"lines": [line for line in text_of(path).splitlines() if line.strip() and not line.startswith("#version")]}


READ: dict[str, Callable[[Path], Said]] = {
    "tokenizer.json": tokenizer,
    "tokenizer.model": lambda path: {"bytes": contents(path).hex()},
    "spiece.model": lambda path: {"bytes": contents(path).hex()},
    "vocab.json": lambda path: {"vocab": read_json(path)},
    "merges.txt": lines,
    "vocab.txt": lines,
}


def settings(folder: Path) -> Said:
    """What tokenizer_config.json, special_tokens_map.json and the templates say of the tokens of a text."""
    held = {**optional(folder / "special_tokens_map.json"), **optional(folder / "tokenizer_config.json")}
    said = {key: held[key]["content"] if isinstance(held.get(key), dict) else held.get(key) for key in STEERS}
    return {key: value for key, value in said.items() if value not in (None, False)} | templates(folder, held)


def templates(folder: Path, held: Mapping[str, Any]) -> Said:
    """The chat templates: of a file of their own, or of tokenizer_config.json."""
    if (folder / TEMPLATE).exists():
        return {"chat_template": text_of(folder / TEMPLATE).strip()}
    found = optional(folder / "chat_template.json").get("chat_template", held.get("chat_template"))
    if isinstance(found, list):
        named = {one["name"]: one["template"].strip() for one in found}
        return {("chat_template" if name == "default" else f"chat_template.{name}"): text for name, text in named.items()}
    return {"chat_template": found.strip()} if found else {}


def optional(path: Path) -> Said:
    """A JSON object in a file; empty without the file."""
    return read_json(path) if path.exists() else {}


def check_end(check: Check, report: Report, copy: Folder, source: Folder) -> None:
    """Check where a generated text ends, by generation_config.json or else config.json."""
    ours, theirs = (optional(folder.path / GENERATION) for folder in (copy, source))
    for key in ("eos_token_id", "bos_token_id"):
        check.compared += 1
        found, right = (ending(said, folder, key) for said, folder in ((ours, copy), (theirs, source)))
        if found != right and (key in ours or key in theirs):
            check.found(f"{GENERATION}: {key}", f"is {found}; the source has {right}")
    ignored = ("transformers_version", "_from_model_config", "eos_token_id", "bos_token_id", "pad_token_id")
    said = [{key: value for key, value in held.items() if key not in ignored} for held in (ours, theirs)]
    if said[0] != said[1]:
        report.notes.append(f"{GENERATION} samples otherwise than the source's; it steers no logits")


def ending(said: Mapping[str, Any], folder: Folder, key: str) -> list[Any]:
    """The ids under a key, in order; empty if there are none."""
    home = folder.homes[-1]
    value = said.get(key, home.get(key, folder.config.get(key)))
    return sorted(value) if isinstance(value, list) else [] if value is None else [value]


def check_code(check: Check, copy: Folder, source: Folder) -> None:
    """Check the code that a loader runs, and that no adapter changes the weights."""
    ours, theirs = ((folder.path / ADAPTER).exists() and read_json(folder.path / ADAPTER) for folder in (copy, source))
    if ours != theirs:
        check.found(ADAPTER, "is not the source's: transformers would load an adapter over the weights; remove it")
    if "auto_map" not in copy.config and "auto_map" not in source.config:
        return
    code, right = ({path.name: contents(path) for path in folder.path.glob("*.py")} for folder in (copy, source))
    for name in sorted(code.keys() | right.keys()):
        check.compared += 1
        if code.get(name) != right.get(name):
            check.found(name, "is missing" if name not in code else "is not the source's; by auto_map a loader runs it")
