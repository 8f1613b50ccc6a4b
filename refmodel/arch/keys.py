"""The keys of a model's metadata. Every number passes one gate, which states its range.

Source: llama_model_base::load_hparams in llama.cpp src/llama-model.cpp.
"""

from dataclasses import dataclass
from typing import Any

from ..errors import MetadataError
from ..gguf.metadata import MOST, REQUIRED, Metadata

MAX_BLOCKS = 512  # LLAMA_MAX_LAYERS
MAX_COUNT = MOST  # of what no tensor has to hold: tokens of a context or a window


@dataclass(frozen=True)
class Keys:
    """The keys of one architecture, without the `architecture.` before each name.

    md          all metadata of the file
    arch        the architecture's name
    largest     weights of the file's largest tensor: no width is more
    rope_freqs  the values of rope_freqs.weight, or none
    """

    md: Metadata
    arch: str
    largest: int
    rope_freqs: tuple[float, ...] = ()

    def full(self, name: str) -> str:
        """The key as the file has it."""
        return f"{self.arch}.{name}"

    def __contains__(self, name: str) -> bool:
        return self.full(name) in self.md

    def refused(self, name: str, found: Any, expected: str) -> MetadataError:
        """The MetadataError for a value: where it is, what was found, what was expected, what to do. The caller raises it."""
        return self.md.refused(self.full(name), found, expected)

    def count(self, name: str, default: Any = REQUIRED, least: int = 1, most: int = MAX_COUNT) -> int:
        """A whole number from `least` to `most`. MetadataError if it is out of this range, or is missing and has no default."""
        return self.checked(name, self.md.int(self.full(name), default, least, most), least, most)

    def width(self, name: str, per: int, default: Any = REQUIRED, least: int = 1) -> int:
        """A whole number with `per` weights for each unit in some tensor: at most what the file's largest tensor has room for.

        MetadataError as for `count`.
        """
        return self.count(name, default, least, self.room(per))

    def first(self, name: str, n_blocks: int, default: Any = REQUIRED, most: int = MAX_COUNT) -> int:
        """A whole number that a file may state once or block by block; llama.cpp reads block 0's. A list has n_blocks values.

        MetadataError for a list of another length, or a number outside 1 to `most`.
        """
        return self.checked(name, int(self.md.per_block(self.full(name), n_blocks, default)[0]), 1, most)

    def the_one(self, name: str, n_blocks: int, default: Any = REQUIRED, most: int = MAX_COUNT) -> int:
        """A whole number that a file may state once or block by block, with 0 for blocks that have nothing of it.

        MetadataError for a list of another length, two numbers besides 0, or a number outside 1 to `most`.
        """
        found = sorted({int(n) for n in self.md.per_block(self.full(name), n_blocks, default)} - {0})
        if len(found) > 1:
            raise self.refused(name, found, "expected one number for all blocks, or 0")
        return self.checked(name, found[0] if found else 0, 1, most)

    def alike(self, name: str, n_blocks: int, default: Any = REQUIRED, most: int = MAX_COUNT) -> int:
        """A whole number that a file may state once or block by block, the same for each. MetadataError otherwise."""
        found = self.md.per_block(self.full(name), n_blocks, default)
        if len(set(found)) > 1:
            raise self.refused(name, list(found)[:8], "expected the same number for each block")
        return self.first(name, n_blocks, default, most)

    def real(self, name: str, default: Any, least: float, most: float, none: bool = False) -> float:
        """A finite number from `least` to `most`; with `none` also 0, which means that there is nothing.

        MetadataError for any other number, or if it is missing and has no default.
        """
        value = self.md.float(self.full(name), default, 0.0 if none else float(least), float(most))
        if not (least <= value <= most or (none and value == 0)):
            raise self.refused(name, value, f"expected {'0 for none, or ' * none}{least:g} to {most:g}")
        return value

    def only(self, name: str, expected: int, missing: Any = None) -> None:
        """Check a number that llama.cpp, and this program, accept only as `expected`. MetadataError otherwise.

        missing  what a missing key means; None: the expected number
        """
        if (found := self.md.int(self.full(name), expected if missing is None else missing)) != expected:
            raise self.refused(name, found, f"this architecture is defined only for {expected}")

    def multiple(self, name: str, value: int, of_name: str, of: int) -> None:
        """Check that `value`, of key `name`, is a multiple of `of`, the value of key `of_name`. MetadataError otherwise."""
        if value % of:
            raise self.refused(name, value, f"expected a multiple of {self.full(of_name)}, which is {of}")

    def checked(self, name: str, value: int, least: int, most: int) -> int:
        """The number itself if it is from `least` to `most`; MetadataError otherwise."""
        if not least <= value <= most:
            raise self.refused(name, value, f"expected {least} to {most}")
        return value

    def room(self, per: int) -> int:
        """How many times the file's largest tensor holds `per` weights; at least 1."""
        return max(self.largest // per, 1)
