"""How llama.cpp runs: the options that change bits, and the builds whose arithmetic is known.

The oracle is started with a profile; numerics `llamacpp` computes as llama.cpp does under one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import RefmodelError

SWITCH = {"on": True, "off": False}


OPTIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "fa": ("flash_attn", {value: value for value in ("on", "off", "auto")}),
    "kv": ("kv", {value: value for value in ("f16", "f32")}),
    "repack": ("repack", SWITCH),
    "tiled": ("tiled", SWITCH),
    "threads": ("threads", {str(n): n for n in range(1, 257)}),
}


@dataclass(frozen=True)
class Profile:
    """Options of llama.cpp. ValueError for a value that OPTIONS does not have.

    name        a word for reports, or the options as text
    flash_attn  off | on | auto (llama.cpp's default: on wherever it can)
    kv          type of the cached keys and values, f16 | f32
    threads     a change alters bits in flash attention of one token over 512 and more cells
    repack      let llama.cpp rearrange quantized weights for its faster kernels, as it does by itself
    tiled       its tiled products of 8 tokens and more; off by the environment, GGML_CPU_TILED_MM=0
    """

    name: str
    flash_attn: str
    kv: str
    threads: int = 1
    repack: bool = True
    tiled: bool = True

    def __post_init__(self) -> None:
        for field, values in OPTIONS.values():
            if getattr(self, field) not in values.values():
                raise ValueError(f"{field} is {getattr(self, field)!r}; expected one of {', '.join(values)}")

    def describe(self) -> str:
        """One phrase: `exact (flash attention off, F32 cache, 1 thread)`."""
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        without = ", no repacking" * (not self.repack) + ", no tiles" * (not self.tiled)
        return f"{self.name} (flash attention {self.flash_attn}, {self.kv.upper()} cache, {threads}{without})"


PROFILES = {p.name: p for p in (Profile("exact", flash_attn="off", kv="f32"), Profile("default", flash_attn="auto", kv="f16"))}


DEFAULT = PROFILES["default"]


def profile_of(text: str) -> Profile:
    """The profile for `exact`, `default`, or options that differ from the defaults: `fa=off,kv=f32`.

    RefmodelError for anything else.
    """
    if text in PROFILES:
        return PROFILES[text]
    profile, named = replace(DEFAULT, name=text), set[str]()
    for option in text.split(","):
        name, _, value = option.partition("=")
        if name in named:
            raise RefmodelError(f"{text[:60]!r}: {name[:20]} is said twice; say it once")
        named.add(name)
        field, values = OPTIONS.get(name, ("", {}))
        if value not in values:
            known = ", ".join(f"{name}={'|'.join(values) if len(values) < 9 else 'N'}" for name, (_, values) in OPTIONS.items())
            raise RefmodelError(
                f"{option[:60]!r} is no profile of llama.cpp and no option of one; choose one of {', '.join(PROFILES)}, {known}"
            )
        profile = replace(profile, **{field: values[value]})
    return profile
