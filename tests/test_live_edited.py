"""The diagnosis of a real llama.cpp that is fed with edited files: it then computes as a faulty engine would with the right one.

The files are edited with the gguf package. Nothing here is shared with the library of faults.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import pytest
import tiny

import refmodel
from refmodel.compare.dumped import of_dump
from refmodel.dumps.dump import Dump, Numbers
from refmodel.faults.diagnosis.diagnosis import Diagnosis, diagnose
from refmodel.faults.library import FAULTS
from refmodel.forward.trace import Trace
from refmodel.llamacpp.library import Library, locate
from refmodel.llamacpp.oracle import record
from refmodel.llamacpp.profile import PROFILES

pytestmark = pytest.mark.live
CALLS = [[5, 6, 7, 8, 9, 17, 41, 3, 88, 61, 23], [30], [12]]
Rows = dict[str, np.ndarray]


def rewritten(source: Path, out: Path, values: Mapping[str, Any], change: Callable[[Rows], Any]) -> Path:
    """Copy an F32 file with other values of some keys (None: without the key) and changed tensors."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(out, "")
    architecture = reader.fields["general.architecture"].contents()
    writer.arch = architecture
    writer.kv_data[0].clear()
    for key, value in reader.fields.items():
        if key.startswith("GGUF.") or values.get(key.removeprefix(f"{architecture}."), 0) is None:
            continue
        kind, inner = value.types[0], value.types[-1] if len(value.types) > 1 else None
        writer.add_key_value(key, values.get(key.removeprefix(f"{architecture}."), value.contents()), kind, inner)
    rows = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
    change(rows)
    for name, x in rows.items():
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def each(ending: str, f: Callable[[np.ndarray], np.ndarray], but: str = "-") -> Callable[[Rows], Any]:
    """Change every tensor whose name ends so, but not in another way."""
    return lambda rows: rows.update({n: f(x) for n, x in rows.items() if n.endswith(ending) and not n.endswith(but)})


def without(beginning: str) -> Callable[[Rows], Any]:
    """Leave the tensors out whose names begin so."""
    return lambda rows: [rows.pop(name) for name in list(rows) if name.startswith(beginning)]


def swapped(a: str, b: str) -> Callable[[Rows], Any]:
    """Exchange two tensors of each block, or of the file."""

    def change(rows: Rows) -> None:
        for name in [name for name in rows if name.endswith(a)]:
            other = name.removesuffix(a) + b
            rows[name], rows[other] = rows[other], rows[name]

    return change


S = tiny.SHAPES["qwen35"]
PER_KEY = S.Hv // S.Hk
GROUPED = np.arange(S.Hv).reshape(PER_KEY, S.Hk).T.ravel()  # tiled value head -> its place in a file with grouped ones
CHANNELS = (GROUPED[:, None] * S.S + np.arange(S.S)).ravel()
KEYS = 2 * S.Hk * S.S
HALVES = np.arange(2 * S.H * S.D).reshape(2, S.H, S.D).swapaxes(0, 1).ravel()


def values_of(x: np.ndarray) -> np.ndarray:
    """Rows [C, ...] of the convolution's channels, with the value heads in another order."""
    return np.concatenate([x[:KEYS], x[KEYS:][CHANNELS]])


@dataclass(frozen=True)
class Edit:
    """What is done to a file, and the fault that an engine with these numbers has; "" for one that the library lacks."""

    wanted: str
    change: Callable[[Rows], Any] = lambda rows: None
    values: Mapping[str, Any] = field(default_factory=dict)


def turned(rows: Rows) -> None:
    """Numbers 2i and 2i+1 of each query's and key's head stand where i and i + n/2 did."""
    for name in [name for name in rows if name.rpartition("attn_")[2] in PAIRED]:
        x = rows[name]
        rows[name] = x.reshape(-1, D, *x.shape[1:])[:, NEIGHBOURS].reshape(x.shape)


PAIRED = {"q.weight", "k.weight", "q_norm.weight", "k_norm.weight"}
D = tiny.DENSE.D
NEIGHBOURS = np.arange(D).reshape(-1, 2).T.ravel()
BA = np.arange(2 * S.Hv).reshape(S.Hk, 2, PER_KEY)[:, ::-1].ravel()
EXCHANGED = [1, 0, *range(2, tiny.SHAPES["qwen3moe"].experts)]
REST = "one block's output half as large again"


def common(n_layer: int) -> dict[str, Edit]:
    """Edits of files of every architecture."""
    return {
        "the default base of RoPE": Edit("F06", values={"rope.freq_base": 10000.0}),
        "ten times the epsilon": Edit("eps-ten-times", values={"attention.layer_norm_rms_epsilon": 10 * tiny.EPS}),
        "one block fewer": Edit("F53", without(f"blk.{n_layer - 1}."), {"block_count": n_layer - 1}),
        REST: Edit(
            "",
            lambda rows: [rows.update({n: 1.5 * x}) for n, x in rows.items() if n.startswith(("blk.1.ffn_down", "blk.1.post_ffw"))],
        ),
    }


OF_EXPERTS: Mapping[str, Edit] = {
    "gate and up of experts exchanged": Edit("ffn-gate-and-up-exchanged", swapped("ffn_gate_exps.weight", "ffn_up_exps.weight")),
    "experts 0 and 1 exchanged": Edit("experts-exchanged", each("_exps.weight", lambda w: w[EXCHANGED])),
    "one expert fewer": Edit("experts-one-fewer", values={"expert_used_count": 4}),
}
OF_SHARED: Mapping[str, Edit] = {
    "no shared expert": Edit("shared-expert-missing", each("ffn_down_shexp.weight", np.zeros_like)),
    "norms lack their one": Edit("F14", each("_norm.weight", lambda w: w - 1, but="ssm_norm.weight")),
    "the gated norm has one more": Edit("F16", each("ssm_norm.weight", lambda w: w + 1)),
    "ssm_a negated": Edit("F27", each("ssm_a", lambda a: -a)),
    "no bias of the time step": Edit("F28", each("ssm_dt.bias", np.zeros_like)),
    "the convolution's taps reversed": Edit("F42", each("ssm_conv1d.weight", lambda w: w[:, ::-1])),
    "the head is the embedding": Edit("F60", without("output.weight")),
}
OTHERS: Mapping[str, Mapping[str, Edit]] = {
    "qwen3moe": common(3) | OF_EXPERTS | {"neighbours are paired": Edit("F03", turned)},
    "qwen3next": common(5)
    | OF_EXPERTS
    | OF_SHARED
    | {"alpha and beta exchanged": Edit("F23", each("ssm_ba.weight", lambda w: w[BA]))},
    "qwen35moe": common(5) | OF_EXPERTS | OF_SHARED | {"RoPE of all dims": Edit("F01", values={"rope.dimension_count": S.D})},
    "gemma3": common(4)
    | {
        "the default base of blocks with a window": Edit("F06", values={"rope.freq_base_swa": 10000.0}),
        "one base for all blocks": Edit("rope-base-of-full", values={"rope.freq_base": 500.0}),
        "a window of one more": Edit("window-off-by-one", values={"attention.sliding_window": 5}),
        "gate and up exchanged": Edit("ffn-gate-and-up-exchanged", swapped("ffn_gate.weight", "ffn_up.weight")),
        "norms have their one twice": Edit("F15", each("_norm.weight", lambda w: w + 1)),
        "neighbours are paired": Edit("F03", turned),
    },
}

EDITS: Mapping[str, Edit] = {
    "RoPE of all dims": Edit("F01", values={"rope.dimension_count": S.D}),
    "the default base of RoPE": Edit("F06", values={"rope.freq_base": 10000.0}),
    "ten times the epsilon": Edit("eps-ten-times", values={"attention.layer_norm_rms_epsilon": 10 * tiny.EPS}),
    "one block fewer": Edit("F53", without(f"blk.{S.n_layer - 1}."), {"block_count": S.n_layer - 1}),
    "norms lack their one": Edit("F14", each("_norm.weight", lambda w: w - 1, but="ssm_norm.weight")),
    "the gated norm has one more": Edit("F16", each("ssm_norm.weight", lambda w: w + 1)),
    "ssm_a exponentiated twice": Edit("F27", each("ssm_a", lambda a: -np.exp(a))),
    "ssm_a negated": Edit("F27", each("ssm_a", lambda a: -a)),
    "no bias of the time step": Edit("F28", each("ssm_dt.bias", np.zeros_like)),
    "alpha and beta exchanged": Edit("F23", swapped("ssm_alpha.weight", "ssm_beta.weight")),
    "the convolution's taps reversed": Edit("F42", each("ssm_conv1d.weight", lambda w: w[:, ::-1])),
    "queries and gates in halves": Edit("F10", each("attn_q.weight", lambda w: w[HALVES])),
    "the gate's heads grouped": Edit("F20", each("attn_gate.weight", lambda w: w[CHANNELS])),
    "gate and up exchanged": Edit("ffn-gate-and-up-exchanged", swapped("ffn_gate.weight", "ffn_up.weight")),
    "the head is the embedding": Edit("F60", without("output.weight")),
    "one block's output half as large again": Edit("", each("blk.1.ffn_down.weight", lambda w: 1.5 * w)),
    "heads in turn": Edit("", each("attn_output.weight", lambda w: np.roll(w, S.D, axis=1))),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("edited"))


def made(folder: Path, architecture: str = "qwen35") -> Path:
    """A model whose RoPE has a base that nobody takes by default."""
    path = tiny.build(folder / "plain.gguf", architecture, seed=11)
    return rewritten(path, folder / "source.gguf", {"rope.freq_base": 700.0}, lambda rows: None)


def diagnosed(source: Path, edit: Edit, evidence: tuple[str, ...], library: Library) -> Diagnosis:
    """What the diagnosis of the source says next to a llama.cpp with the edited file."""
    model = refmodel.load(source)
    edited = rewritten(source, source.with_name("edited.gguf"), edit.values, edit.change)
    run = record(edited, CALLS, PROFILES["exact"], source.with_name("theirs.safetensors"), library)
    trace = Trace(run.path)
    names = [name for name in trace if name.startswith(evidence)]
    numbers = {name: Numbers(trace[name].shape, "F32", lambda name=name: trace[name]) for name in names}
    other = of_dump(model, Dump(Path("run"), "arrays", numbers, CALLS), None, model.route())
    return diagnose(model, other, FAULTS.values(), lambda name: None)


def named(found: Diagnosis) -> set[str]:
    """The ids of the first answer and of those that cannot be told from it."""
    return {fault.id for answer in found.answers[:1] for faults in (answer.faults, *answer.same_as) for fault in faults}


HIDDEN = ("l_out-", "result_output")


@pytest.mark.parametrize("name", EDITS)
def test_what_an_edited_file_does_is_named_from_hidden_states(source: Path, name: str, llama_lib: Path) -> None:
    found = diagnosed(source, EDITS[name], HIDDEN, locate(llama_lib))
    if EDITS[name].wanted:
        assert EDITS[name].wanted in named(found), found
    else:
        assert found.verdict == "unknown"


def test_the_source_itself_is_healthy(source: Path, llama_lib: Path) -> None:
    assert diagnosed(source, Edit(""), HIDDEN, locate(llama_lib)).verdict == "healthy"


# Some of the other architectures; python tests/test_live_edited.py LIBLLAMA does all of them, from all evidence
@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("qwen3moe", "experts 0 and 1 exchanged"),
        ("qwen3next", "alpha and beta exchanged"),
        ("qwen35moe", "no shared expert"),
        ("gemma3", "the default base of RoPE"),
        ("gemma3", REST),
    ],
)
def test_an_edited_file_of_another_architecture_is_named(tmp_path: Path, architecture: str, name: str, llama_lib: Path) -> None:
    edit = OTHERS[architecture][name]
    found = diagnosed(made(tmp_path, architecture), edit, HIDDEN, locate(llama_lib))
    assert right(edit, found), found


def right(edit: Edit, found: Diagnosis) -> bool:
    """Whether a diagnosis names the edit, or finds no name for one that has none."""
    return edit.wanted in named(found) if edit.wanted else found.verdict == "unknown"


def main() -> None:
    """Print what is found of every edit: from everything, hidden states, and logits. Arguments: a libllama, architectures."""
    library = locate(Path(sys.argv[1]))
    for architecture in sys.argv[2:] or ["qwen35", *OTHERS]:
        for name, edit in (OTHERS | {"qwen35": EDITS})[architecture].items():
            for evidence in (("",), HIDDEN, ("result_output",)):
                with TemporaryDirectory() as folder:
                    found = diagnosed(made(Path(folder), architecture), edit, evidence, library)
                at = found.located
                word = "right" if right(edit, found) else "WRONG"
                where = at and (at.tap, at.operation, str(at.relation))
                print(word, architecture, evidence[0] or "all", f"| {name} | {edit.wanted} |", found.verdict, end=" ")
                print(sorted(named(found)), where, flush=True)


if __name__ == "__main__":
    main()
