"""Which chat template a conversation uses: one that the user names or writes, the file's own, or ChatML."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RefmodelError
from ..gguf.metadata import Metadata
from ..machine.boundary import from_json
from ..machine.files import text_of

KEY = "tokenizer.chat_template"
OWN = (KEY, f"{KEY}.default", f"{KEY}.tool_use")  # keys of the file that are tried without --chat-template, in this order
MOST = 1 << 20  # bytes of a template's file
CHATML = """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
OBJECT = "a JSON object: '{\"name\": value}'"
RESERVED = ("messages", "add_generation_prompt")


class ChatError(RefmodelError):
    """A chat template is missing, cannot be read, or fails."""


@dataclass(frozen=True)
class Template:
    """A template's text, and a note for the user about where it comes from; empty if it is the file's own."""

    text: str
    note: str


def template_of(md: Metadata, wanted: str) -> Template:
    """The template that `--chat-template` asks for; without it the file's own, or ChatML if the file has none.

    wanted  "", the name of a template of the file (default, tool_use, ...), chatml, a file, or a template itself (with {{ or {%)

    ChatError for a name that is none of them, and for a file that cannot be read.
    """
    if wanted:
        return Template(asked_for(md, wanted), "")
    for key in OWN:
        if text := md.str(key, ""):
            return Template(text, "" if key == KEY else f"the chat template is {key}; {KEY} is not in the file")
    return Template(
        CHATML, f"the file has no chat template ({KEY}); its messages are written as ChatML. --chat-template names another"
    )


def asked_for(md: Metadata, wanted: str) -> str:
    """The text of a template: by its name in the file, by a name of ours, from a file, or as it is. ChatError if there is none."""
    if "{{" in wanted or "{%" in wanted:
        return wanted
    own = named(md)
    if wanted in own:
        return own[wanted]
    if wanted == "chatml":
        return CHATML
    if Path(wanted).is_file():
        return from_file(Path(wanted))
    known = ", ".join([*own, "chatml"])
    raise ChatError(
        f"--chat-template {wanted}: expected one of {known}, a file, or a template in Jinja; there is no such file; check the name"
    )


def named(md: Metadata) -> dict[str, str]:
    """Name -> template of those in a model file; the one without a name is `default`."""
    found = {key.removeprefix(f"{KEY}."): md.str(key) for key in md if key.startswith(f"{KEY}.")}
    return found | ({"default": md.str(KEY)} if md.str(KEY, "") else {})


def from_file(path: Path) -> str:
    """The template in a file. FileError if it cannot be read, is too long, or is not text."""
    return text_of(path, MOST)


def kwargs_of(text: str) -> Mapping[str, Any]:
    """The values of `--chat-template-kwargs`, a JSON object.

    ChatError for anything else, and for names that the conversation sets itself.
    """
    values = from_json(text or "{}", f"--chat-template-kwargs {text[:60]}", ChatError, f"expected {OBJECT}")
    if not isinstance(values, dict):
        raise ChatError(f"--chat-template-kwargs {text[:60]}: expected {OBJECT}")
    if taken := [name for name in RESERVED if name in values]:
        raise ChatError(f"--chat-template-kwargs: {taken[0]} is what the conversation itself gives the template; leave it out")
    return values
