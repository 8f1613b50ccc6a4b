"""Model types whose layers hang on their place: copies that surgery writes, run by transformers, and the source rearranged.

    REFMODEL_HF_PYTHON=PYTHON pytest -m live tests/test_live_places.py

PYTHON is one with torch and transformers (5.23.0 and torch 2.13.0 were used). REFMODEL_PLACES_ROUTES says how many random routes
each model type gets.
"""

import json
import os
import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from refmodel.errors import RefmodelError
from refmodel.hf.by_place.folders import FACTS
from refmodel.hf.by_place.model_types import REFUSED, TABLES
from refmodel.hf.folder import read_folder
from refmodel.hf.spelling import default, rules
from refmodel.model.route import Route
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.verify import Options, verify

pytestmark = pytest.mark.live

TYPES = [
    "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "llama", "llama4_text",
    "gemma", "gemma2", "gemma3_text", "gemma4_text", "vaultgemma", "mistral", "mixtral", "ministral", "olmo", "olmo2",
    "olmo3", "olmoe", "smollm3", "cohere", "cohere2", "cohere2_moe", "glm", "glm4", "glm4_moe", "gpt_oss", "phi", "phi3",
    "phimoe", "exaone4", "exaone_moe", "ministral3", "lfm2",
]  # fmt: skip
N_ROUTES = int(os.environ.get("REFMODEL_PLACES_ROUTES", "4"))
SCRIPT = Path(__file__).with_name("hf_places.py")
ROUNDING = 1e-4  # of the logits, relative: another kind of layer leaves more than 1e-2


def say(python, what, *words, requests=()):
    """The answers of the script, one for each request."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run([python, str(SCRIPT), what, *map(str, words)], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def some_routes(n, seed):
    """A window, then windows and any order, by turns."""
    r = random.Random(seed)
    yield Route.of("blocks:1,4", n)
    for count in range(1, N_ROUTES):
        i = r.randrange(n - 1)
        window = f"blocks:{i},{r.randrange(i + 1, n)}"
        yield Route.of(window if count % 2 else [r.randrange(n) for _ in range(r.randrange(2, 10))], n)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, hf_python):
    """Model type -> what became of each route: why surgery refused it, or what transformers said of the copy."""
    folder, found, requests = tmp_path_factory.mktemp("places"), {name: [] for name in TYPES}, []
    made = say(hf_python, "make", folder, *TYPES)
    assert all("made" in one for one in made), made
    for name in TYPES:
        source = read_folder(folder / name)
        for count, route in enumerate(some_routes(source.n_layer, name)):
            try:
                copy = routed_folder(source, route, folder / f"{name}-{count}")
                requests.append({"name": name, "source": str(source.path), "copy": str(copy), "map": list(route.layers)})
            except RefmodelError as error:
                found[name].append({"refused": str(error)})
    for request, said in zip(requests, say(hf_python, "run", requests=requests), strict=True):
        found[request["name"]].append(said | {"map": request["map"]})
    return found


@pytest.mark.parametrize("name", TYPES)
def test_a_copy_computes_the_route_or_is_refused(name, outcomes):
    counted = Counter()
    for said in outcomes[name]:
        if "refused" in said:
            assert re.search("place|number|without a layer that has keys", said["refused"])
            counted["refused"] += 1
        else:
            assert said.get("finite"), said
            assert said["apart"] <= ROUNDING, said
            counted["equal"] += 1
    print(name, dict(counted))
    assert counted["equal"] or name == "gemma4_text"  # transformers lists its sizes by number, and no route is written


VARIANTS = [
    {},
    {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 3},
    {"sliding_window_pattern": 3},
    {"full_attention_interval": 3},
    {"first_k_dense_replace": 2},
    {"no_rope_layer_interval": 3},
    {"interleave_moe_layer_step": 2},
    {"num_dense_layers": 2},
]


def test_the_table_says_what_each_class_makes_of_a_config(hf_python):
    """Every row against the class, for many numbers of layers and the keys from which they may be derived."""
    counts = (1, 2, 3, 5, 6, 7, 12, 13, 30, 63, 64, 81)
    asked = [(name, n, keys) for name in FACTS for n in counts for keys in VARIANTS]
    requests = [{"type": name, "config": keys | {"num_hidden_layers": n}} for name, n, keys in asked]
    compared = Counter()
    for (name, n, keys), made in zip(asked, say(hf_python, "kinds", requests=requests), strict=True):
        for fact in FACTS[name]:
            values = made.get(fact.name)
            if fact.name in ("moe_layers", "attn_layer_indices") and isinstance(values, list):
                values = [i in values for i in range(n)]
            if isinstance(values, list) and fact.name not in ("mlp_only_layers", "block_types"):
                assert fact.read(keys, n) == values, (name, n, keys, fact.name)
                compared[name] += 1
    assert len(compared) >= 35


def test_what_a_class_derives_is_what_the_table_says(hf_python):
    """Every row of DERIVED with other sizes than the class's own."""
    sizes = {"hidden_size": 96, "num_attention_heads": 6, "qk_rope_head_dim": 24, "qk_nope_head_dim": 40, "num_hidden_layers": 12}
    odd = {"mamba_n_heads": 12, "mamba_expand": 2, "mamba_d_ssm": 192, "mamba_n_groups": 1, "num_heads": 24, "head_dim": 8}
    asked = list(rules())
    given = [sizes | (odd if name.startswith(("mamba2", "bamba", "falcon_h1", "granitemoehybrid")) else {}) for name, _ in asked]
    requests = [{"type": name, "config": config} for (name, _), config in zip(asked, given, strict=True)]
    said = say(hf_python, "kinds", requests=requests)
    for (name, key), config, made in zip(asked, given, said, strict=True):
        assert (name, key, made.get(key)) == (name, key, default(key, name, config)), made.get("why")


def test_every_model_type_of_the_table_is_one(hf_python):
    requests = [{"type": name, "config": {}} for name in sorted(TABLES)]
    said = zip(requests, say(hf_python, "kinds", requests=requests), strict=True)
    assert [asked["type"] for asked, made in said if made.get("why", "").startswith("KeyError")] == []
    assert not REFUSED.keys() & FACTS.keys()


NEW_ONLY = {"gemma4_text"}  # whose classes never had the old spelling


@pytest.mark.parametrize("old", [False, True])
def test_what_transformers_saves_again_is_not_wrong(old, tmp_path, hf_python):
    """Copies and sources loaded and saved by transformers, also of configurations in the spelling of older versions."""
    names = [name for name in TYPES if not (old and name in NEW_ONLY)]
    made = [{"make": name, "out": str(tmp_path / name), "layers": 7, "listed": False, "old": old} for name in names]
    assert say(hf_python, "serve", requests=made) == [{}] * len(names)
    again, routes = [], {}
    for name in names:
        source, copy = tmp_path / name, tmp_path / f"{name}-copy"
        routes[name] = "blocks:1,4"
        try:
            routed_folder(read_folder(source), Route.of("blocks:1,4", 7), copy)
        except RefmodelError:
            routes[name] = "identity"
            routed_folder(read_folder(source), Route.identity(7), copy)
        again += [{"resave": str(path), "out": f"{path}-again", "shard": "40KB"} for path in (source, copy)]
        again.append({"resave": str(copy), "out": f"{copy}-half", "dtype": "bfloat16"})
    assert say(hf_python, "serve", requests=again) == [{}] * len(again)
    for name in names:
        source, copy = tmp_path / name, tmp_path / f"{name}-copy"
        for ours, theirs in ((f"{copy}-again", source), (copy, f"{source}-again"), (f"{copy}-half", source)):
            report = verify(Path(ours), Path(theirs), routes[name], Options(forward=False))
            pair = Path(ours).name, Path(theirs).name
            assert (*pair, report.verdict, report.findings) == (*pair, "proved except forward", [])
