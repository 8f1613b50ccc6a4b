"""Files that surgery writes, in a real llama.cpp: they load, agree with our routed run of their source, and generate."""

from collections import Counter

import pytest
import tiny
from hypothesis import event, given, reject, settings
from hypothesis import strategies as st
from strategies import examples, routes

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.errors import OracleError, RouteError
from refmodel.gguf.reader import read
from refmodel.gguf.writer import Limit, write
from refmodel.llamacpp.oracle import record
from refmodel.llamacpp.profile import PROFILES
from refmodel.surgery.gguf import plan_of, routed
from refmodel.surgery.runtimes import one_kind, runners
from refmodel.surgery.verify import Options, verify
from refmodel.surgery.verify.report import LLAMACPP

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / f"{request.param}.gguf"
    shape = {"n_layer": 5, "interval": 2, "n_nextn": 1} if request.param in tiny.DELTA else {"n_layer": 4}
    return refmodel.load(tiny.build(path, request.param, seed=31, **shape))


@pytest.fixture(scope="module", params=["qwen3", "qwen35"])
def deep(request, tmp_path_factory):
    """Deep enough for windows of eight blocks."""
    path = tmp_path_factory.mktemp("deep") / f"{request.param}.gguf"
    return refmodel.load(
        tiny.build(path, request.param, seed=32, n_layer=12, **({"interval": 4} if request.param == "qwen35" else {}))
    )


def proved(path, source, lib, **options):
    report = verify(path, source.path, options=Options(llamacpp=True, lib=lib, **options))
    assert report.status == 0, report.findings
    assert {check.name: check.word for check in report.checks}[LLAMACPP] == "ok"
    return report


@settings(max_examples=examples(6))
@given(data=st.data())
def test_random_routes(model, tmp_path, llama_lib, data):
    route = model.route(data.draw(routes(model.n_layer)))
    if one_kind(model, plan_of(model, route)):
        event("one kind of block: refused, llama.cpp aborts")
        with pytest.raises(RouteError, match=r"llama\.cpp aborts"):
            routed(model, route, tmp_path / "r.gguf")
        reject()  # counted apart
    report = proved(routed(model, route, tmp_path / "r.gguf"), model, llama_lib)
    assert report.recovered == route.canonical


@pytest.mark.parametrize(
    "words",
    [
        *(f"blocks:{i},{i + n}" for n in (1, 3, 4, 5, 8) for i in (1, 4)),
        "blocks:1,4;6,11",
        "blocks:0,4;4,8",
        "layers:0,1,2,3,5,7,9,11",
        "layers:11,10,9,8,7,6,5,4,3,2,1,0",
    ],
)
def test_windows_aligned_and_not_several_skips_and_reversals(deep, words, tmp_path, llama_lib):
    proved(routed(deep, deep.route(words), tmp_path / "r.gguf"), deep, llama_lib)


def test_a_copy_in_parts(model, tmp_path, llama_lib):
    proved(routed(model, model.route("blocks:1,4"), tmp_path / "r.gguf", limit=Limit(tensors=9)), model, llama_lib)


@pytest.mark.parametrize("name", ["qwen35-Q4_K_M", "qwen35-nextn", "qwen35-four-to-one", "llama-Q8_0", "qwen3-Q6_K"])
def test_golden_models(name, golden, tmp_path, llama_lib):
    source = refmodel.load(golden / "models" / f"{name}.gguf")
    proved(routed(source, source.route("blocks:0,2"), tmp_path / "r.gguf"), source, llama_lib)


def test_a_runtime_that_knows_only_the_interval_loads_what_compat_says(tmp_path, llama_lib):
    """The list taken away: llama.cpp falls back to the interval, and refuses exactly the routes that are said not to fit."""
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=33, n_layer=12, interval=4))
    seen: Counter[bool] = Counter()
    for words in ("blocks:4,8", "blocks:3,7", "blocks:1,3", "blocks:1,3;9,11", "blocks:0,3", "layers:0..8", "layers:0,3"):
        route = model.route(words)
        fits = next(r.runs for r in runners(model, plan_of(model, route)) if "without the list" in r.name)
        file = read(routed(model, route, tmp_path / "r.gguf"))
        fields = {k: v for k, v in file.metadata.fields.items() if not k.endswith("recurrent_layers")}
        plain = write(tmp_path / "plain.gguf", fields, file.tensors.values())
        out = tmp_path / "t.safetensors"
        if fits:
            record(plain, [[1, 2, 3]], PROFILES["exact"], out, llama_lib)
        else:
            with pytest.raises(OracleError, match=r"is not loaded by llama\.cpp"):
                record(plain, [[1, 2, 3]], PROFILES["exact"], out, llama_lib)
        seen[fits] += 1
    assert min(seen[True], seen[False]) >= 3


def test_a_trained_model_is_proved_and_still_writes_english(smollm2, tmp_path, llama_lib):
    from refmodel.text.generate import generate

    source = refmodel.load(smollm2)
    path = routed(source, source.route("blocks:10,14"), tmp_path / "SmolLM2-rys_10-13.gguf", limit=Limit(size=40_000_000))
    report = proved(path, source, llama_lib)
    assert any("with its end included blocks:10,14: right" in note for note in report.notes)
    copy = refmodel.load(path)
    ids = copy.tokenizer.encode("The capital of France is")
    assert "Paris" in copy.tokenizer.decode(generate(copy.session(), ids, 6))
