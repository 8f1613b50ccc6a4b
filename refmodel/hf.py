"""(Hugging Face folder, Route) -> a folder in which the route's layers stand one behind another.

Bytes are copied, nothing is decoded: a number type that this module has never heard of is copied like any other. The weights are
safetensors files: the length of a JSON header in 8 bytes, the header, the data.
"""

import json
import os
import re
import secrets
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import __version__
from .arrays import Bytes
from .compat import Runner
from .digest import sha256_of
from .errors import FileError, MetadataError
from .files import Beside, not_written, sync_folder
from .gguf.reader import mapped
from .gguf.writer import Limit, copy, parted
from .plan import Plan
from .route import Route

INDEX, CONFIG = "model.safetensors.index.json", "config.json"
SHARD = Limit(size=5e9)
MAX_HEADER = 100_000_000  # bytes; the format's own bound
OTHER_WEIGHTS = {".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".safetensors"}

# Lists in a configuration, by name. A list of any other name stops the copy if it could belong to the layers.
PER_LAYER = {
    "activation_sparsity_pattern", "attn_type_list", "block_configs", "ffn_multipliers", "intermediate_size", "layer_types",
    "layers_block_type", "mlp_layer_types", "no_rope_layers", "num_attention_heads", "num_key_value_heads", "num_kv_heads",
    "num_query_heads", "sliding_window_pattern",
}  # fmt: skip
LAYER_NUMBERS = {"cross_attention_layers", "full_attn_idxs", "hybrid_layer_ids", "mlp_only_layers", "moe_layers"}
OF_THE_MODEL = {
    "architectures", "bad_words_ids", "bos_token_id", "eos_token_id", "keys_to_ignore_at_inference", "long_factor",
    "mrope_section", "pad_token_id", "short_factor", "suppress_tokens",
}  # fmt: skip

# Numbers from which a layer's nature follows by its place. With layer_types in the file, those of the second table do not count.
BY_PLACE = {
    "decoder_sparse_step": 1,
    "first_k_dense_replace": 0,
    "hybrid_override_pattern": "",
    "interleave_moe_layer_step": 1,
    "moe_layer_freq": 1,
    "no_rope_layer_interval": 0,
    "num_kv_shared_layers": 0,
}  # with the value that has no effect
BY_PLACE_WITHOUT_LIST = {"attn_layer_offset", "attn_layer_period", "sliding_window_pattern"}

# Models whose layers' kinds follow from an interval where layer_types is absent, as transformers derives them.
INTERVAL = {"qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"}

LAYER = re.compile(r"((?:.*?\.)?(?:layers|h)\.)(\d+)(?=\.|$)")  # the prefix and the number in a tensor's or module's name
ELSEWHERE = re.compile(r"(^|\.)(visual|vision\w*|audio\w*|mtp|encoder)\.")  # towers and heads with layers of their own


@dataclass(frozen=True, eq=False)
class Stored:
    """One tensor: `type` is the format's word (BF16), `data` the bytes, a read-only view of the file's mapping."""

    name: str
    type: str
    shape: tuple[int, ...]
    data: Bytes


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder; tensors in the order of the files."""

    path: Path
    config: Mapping[str, Any]
    shards: tuple[Path, ...]
    tensors: Mapping[str, Stored]

    @cached_property
    def homes(self) -> list[Mapping[str, Any]]:
        """The parts of the configuration that say how many layers there are: its top, its text_config, or both."""
        places = [home for home in (self.config, self.config.get("text_config")) if isinstance(home, dict)]
        found: list[Mapping[str, Any]] = [home for home in places if "num_hidden_layers" in home]
        said = [home["num_hidden_layers"] for home in found]
        if not said or said.count(said[0]) != len(said) or not isinstance(said[0], int):
            raise MetadataError(f"{self.path / CONFIG}: num_hidden_layers is {said or 'missing'}; expected one number")
        return found

    @property
    def n_layer(self) -> int:
        return int(self.homes[0]["num_hidden_layers"])

    @cached_property
    def prefix(self) -> str:
        """What stands before the number of a layer of the trunk, such as `model.language_model.layers.`"""
        found: dict[str, set[int]] = {}
        for name in self.tensors:
            if (match := LAYER.match(name)) and not ELSEWHERE.search(match[1]):
                found.setdefault(match[1], set()).add(int(match[2]))
        whole = [prefix for prefix, numbers in found.items() if numbers >= set(range(self.n_layer))]
        if len(whole) != 1:
            raise FileError(f"{self.path}: expected the tensors of {self.n_layer} layers under one prefix, found {sorted(found)}")
        return whole[0]

    @property
    def behind(self) -> int:
        """Layers behind the trunk under the same prefix: multi-token prediction as some models store it."""
        numbers = {int(match[2]) for name in self.tensors if (match := LAYER.match(name)) and match[1] == self.prefix}
        return max(numbers) + 1 - self.n_layer

    def plan(self, route: Route) -> Plan:
        return Plan(route, self.behind, self.prefix)

    def sha256(self) -> dict[str, str]:
        return {shard.name: sha256_of([shard]) for shard in self.shards}


def read_folder(path: Path) -> Folder:
    """Open a folder with config.json and safetensors files. FileError says what is missing or does not fit."""
    config = read_json(path / CONFIG)
    if (path / INDEX).exists():
        placed = read_json(path / INDEX).get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(f, str) and Path(f).name == f for f in placed.values()):
            raise FileError(f"{path / INDEX}: expected a weight_map from tensors to files in the same folder")
        shards = [path / name for name in sorted(set(placed.values()))]
    else:
        shards, placed = sorted(path.glob("*.safetensors")), None
    if not shards:
        raise FileError(f"{path}: holds no .safetensors files")
    tensors: dict[str, Stored] = {}
    where: dict[str, str] = {}
    for shard in shards:
        for t in read_safetensors(shard):
            if t.name in tensors:
                raise FileError(f"{shard}: tensor {t.name} stands in {where[t.name]} too")
            tensors[t.name], where[t.name] = t, shard.name
    if placed is not None and placed != where:
        odd = sorted(name for name in placed.keys() | where.keys() if placed.get(name) != where.get(name))[0]
        raise FileError(f"{path / INDEX}: says {odd} is in {placed.get(odd, 'no file')}; it is in {where.get(odd, 'no file')}")
    return Folder(path, config, tuple(shards), tensors)


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(value, dict):
        raise FileError(f"{path}: expected a JSON object")
    return value


def read_safetensors(path: Path) -> list[Stored]:
    """The tensors of one file, in the order of their data."""
    data = mapped(path)
    length = int.from_bytes(data[:8].tobytes(), "little")
    if data.size < 8 or length > min(MAX_HEADER, data.size - 8):
        raise FileError(f"{path}: is no safetensors file, or was not downloaded whole: its header would be {length} bytes long")
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        entries = [(*map(int, e["data_offsets"]), name, str(e["dtype"]), tuple(map(int, e["shape"]))) for name, e in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise FileError(f"{path}: its header is not that of a safetensors file") from None
    body, at, out = data[8 + length :], 0, []
    for start, end, name, kind, shape in sorted(entries):
        if start != at or end < start:
            raise FileError(f"{path}: {name} starts at byte {start} of the data, the tensor before it ends at {at}")
        if end > body.size:
            raise FileError(
                f"{path}: {name} should end at byte {end} of the data, which ends at {body.size}; was it downloaded whole?"
            )
        out.append(Stored(name, kind, shape, body[start:end]))
        at = end
    if at != body.size:
        raise FileError(f"{path}: {body.size - at} bytes stand behind the last tensor")
    return out


def routed_config(folder: Folder, plan: Plan) -> dict[str, Any]:
    """The configuration of the copy: the count of layers, every per-layer list along the map, and where the copy comes from."""
    out = routed_home(folder, folder.config, plan, "")
    out["rys_relayer"] = {
        "source_repo_id": folder.config.get("_name_or_path") or folder.path.resolve().name,
        "source_num_layers": folder.n_layer,
        "target_num_layers": len(plan.route.layers),
        "spec": plan.route.canonical,
        "layer_indices": list(plan.route.layers),
        "duplication_counts": {str(layer): n for layer, n in sorted(Counter(plan.route.layers).items()) if n > 1},
        "tool": f"refmodel {__version__}",
    }
    return out


def routed_home(folder: Folder, home: Mapping[str, Any], plan: Plan, where: str) -> dict[str, Any]:
    """One level of the configuration as the copy has it."""
    out: dict[str, Any] = {}
    counted = "num_hidden_layers" in home
    for key, value in home.items():
        name = f"{where}{key}"
        if key == "rys_relayer":
            continue  # where the source itself came from
        if key == "num_hidden_layers":
            out[key] = len(plan.route.layers)
        elif key == "quantization_config":
            out[key] = renamed_modules(folder, value, plan, name)
        elif isinstance(value, dict):
            own_world = key.endswith("_config") and key != "text_config"
            out[key] = value if own_world else routed_home(folder, value, plan, f"{name}.")
        elif isinstance(value, list):
            out[key] = routed_list(folder, key, value, plan, name)
        else:
            check_place(folder, home, key, value, plan, name)
            out[key] = value
    if counted and "layer_types" not in home and home.get("model_type") in INTERVAL and home is folder.homes[-1]:
        interval = int(home.get("full_attention_interval", 4))
        derived = ["full_attention" if (i + 1) % interval == 0 else "linear_attention" for i in range(folder.n_layer)]
        out["layer_types"] = plan.follow(derived)
    return out


def routed_list(folder: Folder, key: str, value: list[Any], plan: Plan, name: str) -> list[Any]:
    """A list along the map if it belongs to the layers, as it is if it does not; MetadataError where that is not known."""
    fits = len(value) in (plan.route.n_layer, plan.n_source)
    if key in OF_THE_MODEL or not value:
        return value
    if key in PER_LAYER:
        if not fits:
            said = f"{folder.path / CONFIG}: {name} has {len(value)} values"
            raise MetadataError(f"{said}; expected {plan.route.n_layer}, one for each layer")
        return plan.follow(value)
    if key in LAYER_NUMBERS:
        return [position for position, source in enumerate(plan.route.layers) if source in value]
    numbers = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < plan.n_source for v in value)
    if fits or numbers:
        why = "one value for each layer" if fits else "what may be numbers of layers"
        raise MetadataError(
            f"{folder.path / CONFIG}: {name} has {why}, but its meaning is not known here, so it cannot follow the route"
        )
    return value


def check_place(folder: Folder, home: Mapping[str, Any], key: str, value: Any, plan: Plan, name: str) -> None:
    neutral = key not in BY_PLACE or value in (None, BY_PLACE[key])
    unlisted = key in BY_PLACE_WITHOUT_LIST and "layer_types" not in home and value is not None
    windowed = key == "max_window_layers" and "layer_types" not in home and home.get("use_sliding_window")
    if (not neutral or unlisted or windowed) and not plan.route.is_identity:
        raise MetadataError(f"{folder.path / CONFIG}: {name} says what a layer is by its place; a route would make it wrong")


def renamed_modules(folder: Folder, value: Any, plan: Plan, where: str) -> Any:
    """A quantization's settings with the modules that they name (modules_to_not_convert, ignore, …) renumbered along the map."""
    if isinstance(value, dict):
        names = renamed(folder, list(value), plan, where)
        return {new: renamed_modules(folder, value[old], plan, f"{where}.{old}") for new, old in names.items()}
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return list(renamed(folder, value, plan, where))
    return value


def renamed(folder: Folder, names: Sequence[str], plan: Plan, where: str) -> dict[str, str]:
    """New name -> old name; names of modules outside of the trunk stay."""
    prefixes = set()
    for name in names:
        if name.startswith("re:") and re.search(r"layers.*\d", name):
            raise MetadataError(f"{folder.path / CONFIG}: {where} has the pattern {name}, which cannot follow the route")
        if (match := LAYER.match(name)) and not ELSEWHERE.search(match[1]):
            prefixes.add(match[1])
    marked = {f"{name}." if LAYER.fullmatch(name) else name: name for name in names}  # a layer as a whole, too
    for prefix in prefixes:
        step = replace(plan, prefix=prefix).origins(marked)
        marked = {new: marked[old] for new, old in step.items()}
    return {new.removesuffix("."): old for new, old in marked.items()}


def runners(folder: Folder, plan: Plan) -> list[Runner]:
    """Who can run the copy; its layers' kinds are listed, if there are several."""
    home = routed_config(folder, plan)
    home = home if "layer_types" in home else home.get("text_config", home)
    kinds, interval = home.get("layer_types") or [], home.get("full_attention_interval")
    if len(set(folder_kinds(folder))) < 2:
        alike = "all layers are of one kind, so their number is all that changes"
        return [Runner(name, True, alike) for name in ("Hugging Face transformers", "any runtime that counts layers")]
    listed = Runner("Hugging Face transformers, and whoever reads layer_types", True, "layer_types is written")
    if not isinstance(interval, int) or interval < 1:
        return [listed]
    wrong = [i for i, kind in enumerate(kinds) if (kind == "full_attention") != ((i + 1) % interval == 0)]
    rule = f"by full_attention_interval = {interval} "
    why = rule + (f"layer {wrong[0]} would be of the other kind" if wrong else "all kinds are right")
    return [listed, Runner("whoever derives kinds from the interval", not wrong, why)]


def folder_kinds(folder: Folder) -> list[Any]:
    """The kinds of the source's layers, as its copy would list them; empty if there is but one."""
    same = routed_config(folder, folder.plan(Route.identity(folder.n_layer)))
    found: list[Any] = same.get("layer_types") or same.get("text_config", {}).get("layer_types") or []
    return found


def cost(folder: Folder, plan: Plan) -> dict[str, Any]:
    """What the copy costs beside its source, in bytes."""
    size = {name: t.data.size for name, t in folder.tensors.items()}
    return {
        "extra_blocks": len(plan.route.layers) - plan.route.n_layer,
        "extra_percent": round(plan.route.overhead, 2),
        "weights_bytes": {
            "source": sum(size.values()),
            "copy": sum(size[source] for source in plan.origins(folder.tensors).values()),
        },
    }


def routed_folder(
    folder: Folder, route: Route, out: Path, limit: Limit = SHARD, seen: Callable[[int], None] = lambda count: None
) -> Path:
    """Write the checkpoint that computes the route, whole or not at all; the files beside the weights are copied.

    Raises MetadataError for a list of unknown meaning, FileError for a folder that is there already or lies in the source.
    """
    plan = folder.plan(route)
    config = routed_config(folder, plan)
    origins = plan.origins(folder.tensors)
    groups = parted([replace(folder.tensors[source], name=name) for name, source in origins.items()], limit, lambda t: t.data.size)
    check_apart(folder, out)
    digest = Beside(folder.sha256)
    partial = out.with_name(f".{out.name[:200]}.{secrets.token_hex(6)}.partial")
    try:
        partial.mkdir()
        names = [f"model-{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups))]
        names = names if len(groups) > 1 else ["model.safetensors"]
        for name, group in zip(names, groups, strict=True):
            with (partial / name).open("xb") as file:
                write_safetensors(file, group, seen)
        if len(groups) > 1:
            index = {t.name: name for name, group in zip(names, groups, strict=True) for t in group}
            total = sum(t.data.size for group in groups for t in group)
            save_json(partial / INDEX, {"metadata": {"total_size": total}, "weight_map": index})
        for path in sorted(folder.path.iterdir()):
            if path.is_file() and path.suffix not in OTHER_WEIGHTS and path.name not in (INDEX, CONFIG):
                shutil.copyfile(path, partial / path.name)
        for path in partial.iterdir():
            sync_file(path)  # while the digests are still computed
        config["rys_relayer"]["source_sha256"] = digest.value()
        save_json(partial / CONFIG, config)
        sync_file(partial / CONFIG)
        sync_folder(partial)
        os.replace(partial, out)  # an empty folder of that name is replaced
        sync_folder(out.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise not_written(error, out, [partial]) from None
    return out


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_apart(folder: Folder, out: Path) -> None:
    if not out.parent.is_dir():
        raise FileError(f"{out}: the folder {out.parent} does not exist")
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise FileError(f"{out}: exists; give the copy another name")
    if folder.path.resolve() in out.resolve().parents:
        raise FileError(f"{out}: lies in the folder being copied; give the copy another place")


def write_safetensors(out: BinaryIO, tensors: Sequence[Stored], seen: Callable[[int], None]) -> None:
    """Each tensor under a name and with bytes of its own: a layer that runs twice is stored twice."""
    ends = np.cumsum([t.data.size for t in tensors]).tolist()
    entries = {
        t.name: {"dtype": t.type, "shape": list(t.shape), "data_offsets": [end - t.data.size, end]}
        for t, end in zip(tensors, ends, strict=True)
    }
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    out.write(struct.pack("<Q", len(header)) + header)
    for t in tensors:
        copy(t.data, out, seen)


def save_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
