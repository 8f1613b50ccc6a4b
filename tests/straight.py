"""A second forward pass in float64, straight from the formulas, that shares nothing with refmodel: loops over tokens and heads.

It reads the file with the gguf package, keeps no state (the whole sequence is recomputed) and knows every architecture.
"""

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize


class File:
    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.keys = {name: field.contents() for name, field in reader.fields.items()}
        self.arch = self.keys["general.architecture"]
        self.weights = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float64).reshape(t.shape[::-1].tolist()) for t in reader.tensors
        }
        for name in [name for name in self.weights if name.endswith(".scale")]:  # one for a matrix, or one for each expert's
            matrix = self.weights[f"{name.removesuffix('scale')}weight"]
            matrix *= self.weights[name].reshape(-1, *[1] * (matrix.ndim - 1))

    def key(self, name: str, default: Any = None) -> Any:
        return self.keys.get(f"{self.arch}.{name}", default)

    def window(self, block: int) -> int:
        """How many tokens a block sees; 0 for all."""
        window, pattern = self.key("attention.sliding_window", 0), self.key("attention.sliding_window_pattern", 6)
        slides = pattern[block] if isinstance(pattern, list) else block % pattern < pattern - 1
        return window if slides else 0

    def own_yarn(self, name: str, usual: float) -> float:
        """A number of YaRN that only mistral3 may change."""
        return self.key(f"rope.scaling.yarn_{name}", usual) if self.arch == "mistral3" else usual

    def trained(self) -> int:
        """Tokens of the context of the training."""
        return self.key("rope.scaling.original_context_length", self.key("context_length"))

    def recurrent(self, block: int) -> bool:
        if self.arch == "lfm2":
            return self.key("attention.head_count_kv")[block] == 0
        if self.arch not in ("qwen35", "qwen35moe", "qwen3next"):
            return False
        listed = self.key("attention.recurrent_layers")
        return bool(listed[block]) if listed is not None else (block + 1) % self.key("full_attention_interval", 4) != 0


def logistic(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def normed(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return (
        np.array([row / math.sqrt(sum(row * row) / len(row) + eps) for row in x.reshape(-1, x.shape[-1])]).reshape(x.shape) * weight
    )


def turned(head: np.ndarray, position: int, f: File, slides: bool) -> np.ndarray:
    n, out = f.key("rope.dimension_count", len(head)), head.copy()
    sections = f.key("rope.dimension_sections")  # pairs of time, height and width, in turns
    divisors = f.weights.get("rope_freqs.weight", np.ones(n // 2))
    base = f.key("rope.freq_base_swa", 10000.0) if slides else f.key("rope.freq_base", 10000.0)
    factor, kind = f.key("rope.scaling.factor", 1.0) if not slides else 1.0, f.key("rope.scaling.type", "linear")
    size = f.key("rope.scaling.attn_factor", 1.0) * (1 + 0.1 * math.log(factor) if kind == "yarn" else 1)
    size /= 1 + 0.1 * f.own_yarn("log_multiplier", 0.0) * math.log(factor) if kind == "yarn" else 1
    for i in range(n // 2):
        if sections and i >= 3 * sections[i % 3]:
            continue  # a pair of llama.cpp's fourth axis, on which text stays at place 0
        angle = position * base ** (-2.0 * i / n) / divisors[i]
        angle *= scaling(i, n, base, factor, kind, f)
        a, b = (2 * i, 2 * i + 1) if f.arch in ("llama", "mistral3") else (i, i + n // 2)
        out[a] = size * (head[a] * math.cos(angle) - head[b] * math.sin(angle))
        out[b] = size * (head[a] * math.sin(angle) + head[b] * math.cos(angle))
    return out


def scaling(pair: int, n: int, base: float, factor: float, kind: str, f: File) -> float:
    """The factor of an angle: 1/factor, but for YaRN's fast pairs."""
    if kind != "yarn":
        return 1.0 / factor
    context, turned = f.trained(), (f.own_yarn("beta_fast", 32.0), f.own_yarn("beta_slow", 1.0))
    first, last = (n / 2 * math.log(context / (2 * math.pi * turns), base) for turns in turned)
    first, last = max(math.floor(first), 0), min(math.ceil(last), n - 1)
    share = min(max((pair - first) / max(last - first, 0.001), 0.0), 1.0)
    return share / factor + 1.0 - share


def attend(h: np.ndarray, w: dict[str, np.ndarray], f: File, eps: float, window: int = 0) -> np.ndarray:
    T, H, G, D = len(h), f.key("attention.head_count"), f.key("attention.head_count_kv"), f.key("attention.key_length")
    G = max(G) if isinstance(G, list) else G
    gated = f.arch in ("qwen35", "qwen35moe", "qwen3next")
    rows = w["attn_q.weight"].reshape(H, 2 if gated else 1, D, -1)  # of each head: query rows, then gate rows
    out = np.zeros((T, H * D))
    for head in range(H):
        group = slice(head // (H // G) * D, (head // (H // G) + 1) * D)
        q, k, v = h @ rows[head, 0].T, h @ w["attn_k.weight"][group].T, h @ w["attn_v.weight"][group].T
        gate = h @ rows[head, 1].T if gated else None
        if "attn_q.bias" in w:
            biases = w["attn_q.bias"].reshape(H, -1, D)[head]
            q, gate = q + biases[0], gate + biases[1] if gated else None
            k, v = k + w["attn_k.bias"][group], v + w["attn_v.bias"][group]
        if "attn_q_norm.weight" in w:
            q, k = normed(q, w["attn_q_norm.weight"], eps), normed(k, w["attn_k_norm.weight"], eps)
        q, k = (np.array([turned(row, t, f, window > 0 and f.arch == "gemma3") for t, row in enumerate(x)]) for x in (q, k))
        grown = f.key("attention.temperature_scale", 0.0)
        for t in range(T):
            seen = range(max(0, t + 1 - window) if window else 0, t + 1)
            scores = np.array([q[t] @ k[s] for s in seen]) / math.sqrt(D)
            scores *= 1 + grown * math.log(math.floor(t / f.trained()) + 1) if grown else 1
            p = np.exp(scores - max(scores))
            mixed = sum(share / sum(p) * v[s] for share, s in zip(p, seen, strict=True))
            out[t, head * D : (head + 1) * D] = mixed if gate is None else mixed * logistic(gate[t])
    return out @ w["attn_output.weight"].T + w.get("attn_output.bias", 0.0)


def remember(h: np.ndarray, w: dict[str, np.ndarray], f: File, eps: float) -> np.ndarray:
    """The DeltaNet layer. Value head i reads key head i modulo their number; in qwen3next neighbours read one."""
    T, S, Hk, Hv = len(h), f.key("ssm.state_size"), f.key("ssm.group_count"), f.key("ssm.time_step_rank")
    mixed, taps = h @ w["attn_qkv.weight"].T, w["ssm_conv1d.weight"].shape[1]
    convolved = np.zeros_like(mixed)
    for t in range(T):
        for j in range(taps):
            if t - j >= 0:
                convolved[t] += mixed[t - j] * w["ssm_conv1d.weight"][:, taps - 1 - j]
    convolved = convolved * logistic(convolved)
    queries, keys = convolved[:, : Hk * S].reshape(T, Hk, S), convolved[:, Hk * S : 2 * Hk * S].reshape(T, Hk, S)
    values, z = convolved[:, 2 * Hk * S :].reshape(T, Hv, S), (h @ w["attn_gate.weight"].T).reshape(T, Hv, S)
    out = np.zeros((T, Hv, S))
    for head in range(Hv):
        source = head // (Hv // Hk) if f.arch == "qwen3next" else head % Hk
        if f.arch == "qwen3next":
            rows = w["ssm_ba.weight"].reshape(Hk, 2, Hv // Hk, -1)[source, :, head % (Hv // Hk)]
        else:
            rows = w["ssm_beta.weight"][head], w["ssm_alpha.weight"][head]
        memory = np.zeros((S, S))  # value index, key index
        for t in range(T):
            q, k = (x[t, source] / math.sqrt(x[t, source] @ x[t, source] + eps) for x in (queries, keys))
            step = math.log1p(math.exp(rows[1] @ h[t] + w["ssm_dt.bias"][head]))
            memory = memory * math.exp(step * w["ssm_a"][head])
            beta = logistic(rows[0] @ h[t])
            memory = memory + beta * np.outer(values[t, head] - memory @ k, k)
            out[t, head] = memory @ q / math.sqrt(S)
    gated = normed(out, w["ssm_norm.weight"], eps) * z * logistic(z)
    return gated.reshape(T, -1) @ w["ssm_out.weight"].T


def convolve(h: np.ndarray, w: dict[str, np.ndarray], f: File, eps: float) -> np.ndarray:
    """The short convolution: each channel over the last tokens, one gate before it and one after it."""
    T, E, taps = *h.shape, w["shortconv.conv.weight"].shape[1]
    thirds = w["shortconv.in_proj.weight"].reshape(3, E, E)
    out = np.zeros((T, E))
    for t in range(T):
        for j in range(min(taps, t + 1)):
            out[t] += w["shortconv.conv.weight"][:, taps - 1 - j] * (thirds[0] @ h[t - j]) * (thirds[2] @ h[t - j])
        out[t] *= thirds[1] @ h[t]
    return out @ w["shortconv.out_proj.weight"].T


def swiglu(h: np.ndarray, w: dict[str, np.ndarray], name: str, expert: Any = ()) -> np.ndarray:
    gate, up, down = (w[f"ffn_{part}{name}"][expert] for part in ("gate", "up", "down"))
    gate_bias, up_bias, down_bias = (w.get(f"ffn_{part}.bias", 0.0) for part in ("gate", "up", "down"))
    gated, widened = h @ gate.T + gate_bias, h @ up.T + up_bias
    out: np.ndarray = (gated * logistic(gated) * widened) @ down.T + down_bias
    return out


def mixture(h: np.ndarray, w: dict[str, np.ndarray], f: File) -> np.ndarray:
    """The most probable experts of each token, in proportion to their probabilities."""
    out = np.zeros_like(h)
    for t, token in enumerate(h):
        p = np.exp(w["ffn_gate_inp.weight"] @ token)
        chosen = sorted(range(len(p)), key=lambda expert: -p[expert])[: f.key("expert_used_count")]
        for expert in chosen:
            out[t] += p[expert] / sum(p[e] for e in chosen) * swiglu(token, w, "_exps.weight", expert)
        if "ffn_gate_inp_shexp.weight" in w:
            out[t] += logistic(w["ffn_gate_inp_shexp.weight"] @ token) * swiglu(token, w, "_shexp.weight")
    return out


def geglu(h: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    gate = h @ w["ffn_gate.weight"].T
    gate = gate * logistic(2 * math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))  # half of 1 + tanh(x) is logistic(2x)
    return (gate * (h @ w["ffn_up.weight"].T)) @ w["ffn_down.weight"].T


def forward(path: Path, tokens: list[int], route: list[int] | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits [T, V] and the output of each position of the route [T, E]."""
    f = File(path)
    eps, layers = f.key("attention.layer_norm_rms_epsilon"), f.key("block_count") - f.key("nextn_predict_layers", 0)
    x, outputs = f.weights["token_embd.weight"][tokens], []
    if f.arch == "gemma3":
        x = x * math.sqrt(x.shape[1])
    for block in range(layers) if route is None else route:
        w = {name.split(".", 2)[2]: value for name, value in f.weights.items() if name.startswith(f"blk.{block}.")}
        h = normed(x, w["attn_norm.weight"], eps)
        if f.arch == "gemma3":
            x = x + normed(attend(h, w, f, eps, f.window(block)), w["post_attention_norm.weight"], eps)
            h = normed(x, w["ffn_norm.weight"], eps)
            x = x + normed(geglu(h, w), w["post_ffw_norm.weight"], eps)
            outputs.append(x)
            continue
        if f.recurrent(block):
            x = x + (convolve if f.arch == "lfm2" else remember)(h, w, f, eps)
        else:
            x = x + attend(h, w, f, eps, f.window(block))
        h = normed(x, w["ffn_norm.weight" if "ffn_norm.weight" in w else "post_attention_norm.weight"], eps)
        x = x + (mixture(h, w, f) if "ffn_gate_inp.weight" in w else swiglu(h, w, ".weight"))
        outputs.append(x)
    head = f.weights.get("output.weight", f.weights["token_embd.weight"])
    last = f.weights["token_embd_norm.weight" if f.arch == "lfm2" else "output_norm.weight"]
    logits = normed(x, last, eps) @ head.T + f.weights.get("output.bias", 0.0)
    cap = f.key("final_logit_softcapping", 0.0)
    return cap * np.tanh(logits / cap) if cap else logits, outputs


def draft(path: Path, tokens: list[int], route: list[int] | None = None) -> np.ndarray:
    """What the prediction block guesses behind each token, from it and from what the trunk made of the tokens before, [T, V]."""
    f = File(path)
    eps, block = f.key("attention.layer_norm_rms_epsilon"), f.key("block_count") - 1
    w = {name.split(".", 2)[2]: value for name, value in f.weights.items() if name.startswith(f"blk.{block}.")}
    hidden = normed(forward(path, tokens, route)[1][-1], f.weights["output_norm.weight"], eps)
    embedding = w.get("nextn.embed_tokens.weight", f.weights["token_embd.weight"])
    rows = []
    for t, token in enumerate(tokens):
        e = normed(embedding[token], w["nextn.enorm.weight"], eps)
        h = normed(hidden[t - 1], w["nextn.hnorm.weight"], eps) if t else np.zeros_like(e)
        rows.append(w["nextn.eh_proj.weight"] @ np.array([*e, *h]))
    x = np.array(rows)
    x = x + attend(normed(x, w["attn_norm.weight"], eps), w, f, eps)
    h = normed(x, w["post_attention_norm.weight"], eps)
    x = x + (mixture(h, w, f) if "ffn_gate_inp.weight" in w else swiglu(h, w, ".weight"))
    norm = w.get("nextn.shared_head_norm.weight", f.weights["output_norm.weight"])
    head = w.get("nextn.shared_head_head.weight", f.weights.get("output.weight", f.weights["token_embd.weight"]))
    out: np.ndarray = normed(x, norm, eps) @ head.T
    return out
