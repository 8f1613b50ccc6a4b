"""The values of a config.json that steer a model's layers, read one by one: none is used before its type and range are checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arch.keys import MAX_BLOCKS
from ..errors import MetadataError
from .by_place.folders import FACTS, KINDS
from .by_place.model_types import model_type
from .by_place.rules import FULL, LINEAR, SLIDING
from .folder import CONFIG, Folder
from .spelling import defaults

RENAMED = {"num_experts": "num_local_experts"}  # in classes that have the second
CURE = "correct it, or give a GGUF of the model"


@dataclass(frozen=True)
class Settings:
    """The values that steer a model's layers: those of the text part, of the top, and the class's defaults, in this order.

    path        of the config.json, for messages
    model_type  whose class reads the layers
    values      key -> value
    n_layer     layers of the trunk
    n_nextn     layers that predict further tokens (MTP), from the tensors
    """

    path: Path
    model_type: str
    values: Mapping[str, Any]
    n_layer: int
    n_nextn: int

    @classmethod
    def of(cls, folder: Folder, n_nextn: int) -> "Settings":
        """The settings of a folder. MetadataError if its configuration has no number of layers that can be read."""
        name, text = model_type(folder.config, folder.homes[-1]), folder.config.get("text_config")
        usual, said = defaults().get(name, {}), {**folder.config, **(text if isinstance(text, dict) else {})}
        renamed = {RENAMED[key] if RENAMED.get(key) in usual else key: value for key, value in said.items()}
        found = cls(folder.path / CONFIG, name, {**usual, **renamed}, folder.n_layer, n_nextn)
        if not 1 <= found.n_layer <= MAX_BLOCKS:
            raise found.refused("num_hidden_layers", f"1 to {MAX_BLOCKS}")
        return found

    def refused(self, key: str, expected: str) -> MetadataError:
        """The MetadataError for a value; the caller raises it."""
        shown = str(self.values.get(key, "missing"))
        return MetadataError(f"{self.path}: {key} is {shown[:60]}; expected {expected}: {CURE}")

    def whole(self, *keys: str) -> int | None:
        """The whole number under the first of these keys that is there; None if none is, or it is null.

        MetadataError for another value, or one that no GGUF can hold.
        """
        key = next((key for key in keys if key in self.values), keys[0])
        value = self.values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32):
            raise self.refused(key, "a whole number")
        return value

    def needed(self, *keys: str) -> int:
        """The same, of a number that must be there. MetadataError if it is not."""
        value = self.whole(*keys)
        if value is None:
            raise self.refused(keys[0], "a whole number")
        return value

    def real(self, *keys: str) -> float | None:
        """The finite number under the first of these keys that is there; None if there is none. MetadataError for another value."""
        key = next((key for key in keys if key in self.values), keys[0])
        value = self.values.get(key)
        return None if value is None else finite(value, self.refused(key, "a finite number"))

    def kinds(self) -> list[str]:
        """The kind of each layer of the trunk, as transformers' class derives it. MetadataError for a list of another length."""
        fact = next((fact for fact in FACTS.get(self.model_type, ()) if fact.name == KINDS), None)
        found = fact.read(self.values, self.n_layer) if fact else [FULL] * self.n_layer
        if len(found) != self.n_layer or not {*map(str, found)} <= {FULL, SLIDING, LINEAR}:
            raise self.refused(KINDS, f"{self.n_layer} kinds of attention that are known here")
        return found


def finite(value: Any, error: MetadataError) -> float:
    """A JSON value as a float. Raises the error if it is no finite number that float32 can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 3e38:
        raise error
    return float(value)


Says = Callable[[Settings], Mapping[str, Any]]
"""Part of a configuration -> keys below general.architecture with their values: int, float, str, a list of ints or of bools."""


def head_dim(s: Settings) -> int:
    """The width of a head: head_dim, or what the heads share of the model's width. MetadataError for no heads."""
    heads = s.needed("num_attention_heads")
    if not heads:
        raise s.refused("num_attention_heads", "at least 1")
    return s.whole("head_dim") or s.needed("hidden_size") // heads


def only(**expected: tuple[Any, ...]) -> Says:
    """No key; MetadataError for a value other than those with which the architecture is defined. The first is the default."""

    def check(s: Settings) -> dict[str, Any]:
        for key, values in expected.items():
            if s.values.get(key, values[0]) not in values:
                raise s.refused(key, " or ".join(map(str, values)))
        return {}

    return check
