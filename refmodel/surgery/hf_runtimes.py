"""Who can run a routed folder, and what it costs."""

from typing import Any

from ..model.route import Route
from .copy_map import Plan
from .hf_config import routed_config
from .hf_read import Folder
from .runtimes import Runner


def runners(folder: Folder, plan: Plan) -> list[Runner]:
    """Who can run the copy; its layers' kinds are listed, if there are several."""
    home = routed_config(folder, plan)
    home = home if "layer_types" in home else home.get("text_config", home)
    kinds, interval = home.get("layer_types") or [], home.get("full_attention_interval")
    if len(set(folder_kinds(folder))) < 2:
        alike = "all layers are of one kind, so their number is all that changes"
        return [Runner(name, True, alike) for name in ("Hugging Face transformers", "any runtime that counts layers")]
    listed = Runner("Hugging Face transformers, and runtimes that read layer_types", True, "layer_types is written")
    if not isinstance(interval, int) or interval < 1:
        return [listed]
    wrong = [i for i, kind in enumerate(kinds) if (kind == "full_attention") != ((i + 1) % interval == 0)]
    rule = f"by full_attention_interval = {interval} "
    why = rule + (f"layer {wrong[0]} would be of the other kind" if wrong else "all kinds are right")
    return [listed, Runner("runtimes that derive kinds from the interval", not wrong, why)]


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
