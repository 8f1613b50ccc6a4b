"""Who can run a routed folder, and what it costs."""

from collections.abc import Mapping
from typing import Any

from ..hf.by_place.llamacpp import conversion
from ..hf.by_place.model_types import TABLES, model_type
from ..hf.folder import Folder
from ..model.route import Route
from .copy_map import Plan, folder_plan
from .hf_config import facts_of, not_run, routed_config
from .runtimes import Runner


def runners(folder: Folder, plan: Plan) -> list[Runner]:
    """Which runtimes can run the copy. The kinds of its layers are listed if there are several."""
    home = routed_config(folder, plan)
    home = home if "num_hidden_layers" in home else home["text_config"]
    name = model_type(folder.config, folder.homes[-1])
    return [*readers(folder, plan, home, name), *converters(folder, plan, home, name)]


def readers(folder: Folder, plan: Plan, home: Mapping[str, Any], name: str) -> list[Runner]:
    """The runtimes that read the folder itself."""
    if why := not_run(folder, plan):
        return [Runner("Hugging Face transformers", False, why)]
    kinds, interval = home.get("layer_types") or [], home.get("full_attention_interval")
    if len(set(folder_kinds(folder))) < 2 and not any(fact.name in home for fact in facts_of(folder)):
        alike = "all layers are of one kind, so their number is all that changes"
        unknown = f"; model type {name or '(none)'} is not known here, transformers tells: verify --against transformers"
        why = alike if name in TABLES else f"nothing in its configuration hangs on a layer's place{unknown}"
        return [Runner(who, True, why) for who in ("Hugging Face transformers", "any runtime that counts layers")]
    listed = Runner("Hugging Face transformers, and runtimes that read layer_types", True, "layer_types is written")
    if not isinstance(interval, int) or interval < 1:
        return [listed]
    wrong = [i for i, kind in enumerate(kinds) if (kind == "full_attention") != ((i + 1) % interval == 0)]
    rule = f"by full_attention_interval = {interval} "
    why = rule + (f"layer {wrong[0]} would be of the other kind" if wrong else "all kinds are right")
    return [listed, Runner("runtimes that derive kinds from the interval", not wrong, why)]


def converters(folder: Folder, plan: Plan, home: Mapping[str, Any], name: str) -> list[Runner]:
    """Whether llama.cpp computes the same after its converter, if that is known and not obvious."""
    layers, facts = len(plan.route.layers), facts_of(folder)
    kinds = facts[0].read(home, layers) if facts else []
    heads, width = home.get("num_attention_heads") or 1, home.get("hidden_size") or 0
    widths = (width // heads if isinstance(heads, int) and isinstance(width, int) else 0, home.get("head_dim") or 0)
    said = conversion(name, kinds, (folder.n_layer, layers), widths)
    return [] if said is None else [Runner("llama.cpp, after convert_hf_to_gguf.py", *said)]


def folder_kinds(folder: Folder) -> list[Any]:
    """The kinds of the source's layers, as its copy would list them; empty if there is only one."""
    same = routed_config(folder, folder_plan(folder, Route.identity(folder.n_layer)))
    found: list[Any] = same.get("layer_types") or same.get("text_config", {}).get("layer_types") or []
    return found


def cost(folder: Folder, plan: Plan) -> dict[str, Any]:
    """What the copy costs compared with its source, in bytes."""
    size = {name: t.data.size for name, t in folder.tensors.items()}
    return {
        "extra_blocks": len(plan.route.layers) - plan.route.n_layer,
        "extra_percent": round(plan.route.overhead, 2),
        "weights_bytes": {
            "source": sum(size.values()),
            "copy": sum(size[source] for source in plan.origins(folder.tensors).values()),
        },
    }
