"""The special tokens of a folder, whether they are added to a text, and its chat templates, as keys of a GGUF.

Source: gguf-py/gguf/vocab.py of llama.cpp, SpecialVocab.
"""

import re
from collections.abc import Mapping
from typing import Any

from gguf import GGUFValueType as T

from ..gguf import writer
from ..gguf.metadata import Field
from ..machine.files import text_of as text_of_file
from .folder import Folder, read_json
from .keys import as_field

# name in tokenizer_config.json and config.json -> name in tokenizer.ggml.<name>_token_id
KINDS = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}
LATER = {"eot": "eot", "eom": "eom"}
KEY = "tokenizer.chat_template"


def specials(folder: Folder, whole: Mapping[str, Any], config: Mapping[str, Any], count: int) -> dict[str, Field]:
    """The keys for a vocabulary of `count` tokens.

    whole   tokenizer.json, or {}
    config  tokenizer_config.json, or {}
    """
    named = dict(config) | {"bos_token": config.get("bos_token") or config.get("cls_token")}
    named["eos_token"] = config.get("eos_token") or config.get("sep_token")
    kinds, adds = KINDS | LATER, added_by(whole, named)
    for kind in kinds:
        if isinstance(config.get(f"add_{kind}_token"), bool):
            adds.setdefault(kind, config[f"add_{kind}_token"])
    ids = {text_of(token): token.get("id") for token in reversed(whole.get("added_tokens") or [])}
    tokens = {kind: ids.get(text_of(named.get(f"{kind}_token"))) for kind in kinds} if config else {}
    for kind in KINDS | (LATER if "eot_token" in named else {}):
        for home in (folder.config, folder.config.get("text_config") or {}):
            if tokens.get(kind) is None:
                tokens[kind] = home.get(f"{kind}_token_id")
    known = {kind: i for kind, i in tokens.items() if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < count}
    out = {f"{kinds[kind]}_token_id": as_field(i) for kind, i in known.items()}
    out |= {f"add_{kind}_token": as_field(yes) for kind, yes in adds.items() if kind in ("bos", "eos", "sep")}
    return out | (templates(folder, config) if config else {})


def text_of(token: Any) -> str | None:
    """The text of a special token, which is written as itself or as an object with it."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def added_by(whole: Mapping[str, Any], named: dict[str, Any]) -> dict[str, bool]:
    """Which special tokens the post-processor of a tokenizer.json adds. Sets in `named` those that it names otherwise."""
    adds: dict[str, bool] = {}
    processor = whole.get("post_processor") or {}
    for step in processor.get("processors") or [processor]:
        if step.get("type") == "ByteLevel":
            adds.setdefault("bos", False)
            adds.setdefault("eos", False)
        elif step.get("type") == "RobertaProcessing":
            adds |= {"bos": True, "eos": True, "sep": True}
        elif step.get("type") == "TemplateProcessing":
            adds |= by_template(step, named)
    return adds


def by_template(step: Mapping[str, Any], named: dict[str, Any]) -> dict[str, bool]:
    """The same of a template: the special tokens with which its single text begins and ends."""
    single, adds = step.get("single") or [], dict[str, bool]()
    if len(single) < 2:
        return adds
    first, last = (piece.get("SpecialToken", {}).get("id") for piece in (single[0], single[-1]))
    if first:
        named["bos_token"] = named.get("bos_token") or first
        adds["bos"] = first in (text_of(named["bos_token"]), text_of(named.get("cls_token")))
    if last:
        if text_of(named.get("eos_token")) != last:
            named["eot_token"], named["eos_token"] = named.get("eos_token"), last
        adds["eos"] = True
    return adds | separated(step, named, first, last)


def separated(step: Mapping[str, Any], named: Mapping[str, Any], first: str | None, last: str | None) -> dict[str, bool]:
    """Whether a template puts a separator between two texts; nothing where it puts nothing there."""
    pair = [piece.get("SpecialToken", piece.get("Sequence", {})).get("id") for piece in step.get("pair") or []]
    pair = pair[bool(first and pair[:1] == [first]) : len(pair) - bool(last and pair[-1:] == [last])]
    if pair[:1] != ["A"] or pair[-1:] != ["B"] or len(pair) < 3:
        return {}
    ends = (text_of(named.get("sep_token")), text_of(named.get("eos_token")))
    return {"sep": pair[1] in ends and not last}


def templates(folder: Folder, config: Mapping[str, Any]) -> dict[str, Field]:
    """The chat templates: that of tokenizer_config.json, or of a file of its own. FileError for one that cannot be read."""
    found = config.get("chat_template")
    jinja, js = folder.path / "chat_template.jinja", folder.path / "chat_template.json"
    if found is None and jinja.exists():
        found = text_of_file(jinja)
        further = sorted((folder.path / "additional_chat_templates").glob("*.jinja"))
        if further:
            own = {"name": "default", "template": found}
            found = [own, *({"name": path.stem, "template": text_of_file(path)} for path in further)]
    elif found is None and js.exists():
        found = read_json(js).get("chat_template")
    if isinstance(found, str):
        return {KEY: as_field(found)}
    named = {re.sub("[^A-Za-z0-9]", "_", str(one["name"])): one["template"] for one in found or [] if one.get("name")}
    out = {KEY if name == "default" else f"{KEY}.{name}": as_field(text) for name, text in named.items() if isinstance(text, str)}
    others = sorted(name for name in named if name != "default")
    return out | ({"tokenizer.chat_templates": writer.field(T.ARRAY, others, T.STRING)} if others else {})
