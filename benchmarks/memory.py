"""Peak anonymous memory of tracing a 4B-shaped Qwen3.5 over 32 tokens, and the time to open a file with a large vocabulary.

    python benchmarks/memory.py [--layers 32]

Writes a file of random blocks (2.6 GB at 32 layers) to a temporary folder, traces it in a child process for each numerics
with a filter that keeps l_out and the logits, and samples RssAnon of the child. Linux only.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFValueType
from gguf import GGMLQuantizationType as T

from refmodel.gguf.metadata import Field
from refmodel.gguf.reader import Tensor, read
from refmodel.gguf.writer import field, text, write
from refmodel.quants import LAYOUTS

E, F, V, H, G, D, HK, HV, S, K = 2560, 9216, 248_320, 16, 4, 256, 16, 32, 128, 4


def tensor(name: str, kind: T, *shape: int) -> Tensor:
    """Random packed weights: Q4_K codes of any bits around zero, or floats around one."""
    weights, size = GGML_QUANT_SIZES[kind]
    r, count = np.random.default_rng(len(name)), int(np.prod(shape)) // weights
    if kind == T.F32:
        data = (1 + 0.1 * r.standard_normal(shape)).astype(np.float32).reshape(-1).view(np.uint8)
    else:
        data = np.resize(r.integers(0, 256, (256, size), np.uint8), (count, size))  # 256 blocks, over and over
        view = data.reshape(-1).view(LAYOUTS[kind].BLOCK)
        view["d"], view["dmin"] = 2e-5, 15e-5  # the mean code is 7.5: weights are around zero
        data = data.reshape(-1)
    return Tensor(name, kind, shape, Path(), data)


def tensors(layers: int) -> Iterator[Tensor]:
    yield tensor("token_embd.weight", T.Q4_K, V, E)
    yield tensor("output_norm.weight", T.F32, E)
    for i in range(layers):
        attention = i % 4 == 3
        key, value = HK * S, HV * S
        shapes = {"attn_q": (2 * H * D, E), "attn_k": (G * D, E), "attn_v": (G * D, E), "attn_output": (E, H * D)}
        norms: dict[str, tuple[int, ...]] = {"attn_q_norm.weight": (D,), "attn_k_norm.weight": (D,)}
        if not attention:
            shapes = {"attn_qkv": (2 * key + value, E), "attn_gate": (value, E), "ssm_out": (E, value)}
            shapes |= {"ssm_alpha": (HV, E), "ssm_beta": (HV, E)}
            norms = {"ssm_norm.weight": (S,), "ssm_a": (HV,), "ssm_dt.bias": (HV,), "ssm_conv1d.weight": (2 * key + value, K)}
        shapes |= {"ffn_gate": (F, E), "ffn_up": (F, E), "ffn_down": (E, F)}
        norms |= {"attn_norm.weight": (E,), "post_attention_norm.weight": (E,)}
        for name, shape in shapes.items():
            yield tensor(f"blk.{i}.{name}.weight", T.Q4_K, *shape)
        for name, shape in norms.items():
            yield tensor(f"blk.{i}.{name}", T.F32, *shape)


def strings(count: int, stem: str) -> Field:
    body = b"".join(text(f"{stem}{i}") for i in range(count))
    return Field(
        GGUFValueType.ARRAY,
        GGUFValueType.STRING,
        count,
        memoryview(np.array([8], "<u4").tobytes() + np.array([count], "<u8").tobytes() + body),
    )


def fields(layers: int) -> dict[str, Field]:
    numbers = {
        "context_length": 4096, "embedding_length": E, "block_count": layers, "feed_forward_length": F,
        "attention.head_count": H, "attention.head_count_kv": G, "attention.key_length": D, "attention.value_length": D,
        "rope.dimension_count": 64, "ssm.conv_kernel": K, "ssm.inner_size": HV * S, "ssm.state_size": S,
        "ssm.time_step_rank": HV, "ssm.group_count": HK, "full_attention_interval": 4,
    }  # fmt: skip
    out = {"general.architecture": field(GGUFValueType.STRING, "qwen35")}
    out |= {f"qwen35.{key}": field(GGUFValueType.UINT32, value) for key, value in numbers.items()}
    out["qwen35.rope.freq_base"] = field(GGUFValueType.FLOAT32, 1e7)
    out["qwen35.attention.layer_norm_rms_epsilon"] = field(GGUFValueType.FLOAT32, 1e-6)
    out["qwen35.rope.dimension_sections"] = field(GGUFValueType.ARRAY, [11, 11, 10, 0], GGUFValueType.INT32)
    out["tokenizer.ggml.model"] = field(GGUFValueType.STRING, "gpt2")
    out["tokenizer.ggml.tokens"], out["tokenizer.ggml.merges"] = strings(V, "token"), strings(V, "a b")
    return out


def peak(command: list[str]) -> tuple[float, float]:
    """(peak RssAnon in MB, seconds) of a child process."""
    start, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None:
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
                most = max(most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)
            except (OSError, ValueError):
                pass
            time.sleep(0.01)
        if child.returncode:
            raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}")
    return most / 1024, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    layers = parser.parse_args().layers
    with tempfile.TemporaryDirectory(prefix="refmodel-") as folder:
        path = Path(folder) / "4b.gguf"
        start = time.perf_counter()
        write(path, fields(layers), tensors(layers))
        print(f"{path.stat().st_size / 1e9:.2f} GB written in {time.perf_counter() - start:.0f} s")
        times = []
        for _ in range(5):
            start = time.perf_counter()
            n = len(read(path).tensors)
            times.append(time.perf_counter() - start)
        print(f"open: {sorted(times)[2]:.3f} s, {n} tensors, {V} tokens, {V} merges")
        ids = ",".join(str(100 * i) for i in range(32))
        for numerics in ("reference", "oracle"):
            words = ["trace", str(path), "--tokens", ids, "--numerics", numerics, "--filter", "l_out|result_output"]
            megabytes, seconds = peak([sys.executable, "-m", "refmodel", *words, "-o", str(Path(folder) / "t.safetensors")])
            print(f"trace, 32 tokens, {numerics}: {megabytes:.0f} MB anonymous at most, {seconds:.0f} s")


if __name__ == "__main__":
    main()
