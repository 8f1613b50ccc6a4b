"""Small faults that engines had, or could have: each makes a healthy model and its arithmetic sick. many_verdicts.py finds them.

A fault is another hyperparameter, another operation, other bytes of a tensor, or another line in the forward pass. It gives None
for a model that it does not fit.
"""

import inspect
import math
import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Q

from refmodel.forward.numerics import Numerics
from refmodel.gguf.reader import Tensor
from refmodel.model.model import Model
from refmodel.ops import activation
from refmodel.ops.ieee import bfloat, half
from refmodel.quants import LAYOUTS


@dataclass(frozen=True)
class Engine:
    """What computes: a model, and the arithmetic that is done for it."""

    model: Model
    numerics: Numerics


Fault = Callable[[Engine], Engine | None]
f32 = np.float32


# ---- another hyperparameter


def rope(**changes: Callable[[Any, Any], Any]) -> Fault:
    """Other fields of the rotation: name -> function of (rope, hp)."""

    def sick(e: Engine) -> Engine | None:
        how = e.model.hp.rope
        other = replace(how, **{name: change(how, e.model.hp) for name, change in changes.items()})
        return None if other == how else replace(e, model=e.model.with_hparams(rope=other))

    return sick


def hparams(**changes: Callable[[Any], Any]) -> Fault:
    """Other hyperparameters: name -> function of the old record; it does not fit where none of them changes."""

    def sick(e: Engine) -> Engine | None:
        given = {name: change(e.model.hp) for name, change in changes.items()}
        same = all(getattr(e.model.hp, name) == value for name, value in given.items())
        return None if same else replace(e, model=e.model.with_hparams(**given))

    return sick


# ---- another operation


def operation(name: str, other: Callable[..., Any], fits: Callable[[Any], bool] = lambda hp: True) -> Fault:
    """Field `name` of the numerics computes other(its healthy self, hp, *arguments)."""

    def sick(e: Engine) -> Engine | None:
        if not fits(e.model.hp):
            return None
        healthy, hp = getattr(e.numerics, name), e.model.hp
        return replace(e, numerics=replace(e.numerics, **{name: lambda *given: other(healthy, hp, *given)}))

    return sick


def heads_of_output(order: Callable[[list[int]], list[int]]) -> Callable[..., Any]:
    """An attention whose heads come out in another order."""

    def attention(healthy: Any, hp: Any, *given: Any) -> Any:
        return np.ascontiguousarray(healthy(*given)[:, order(list(range(hp.n_head)))])

    return attention


def reads(head: Callable[[int, int, int], int]) -> Callable[..., Any]:
    """An attention whose query head h reads the key/value head head(h, H, G)."""

    def attention(healthy: Any, hp: Any, q: Any, k: Any, v: Any, *given: Any) -> Any:
        of = [head(h, q.shape[1], k.shape[1]) for h in range(q.shape[1])]
        return healthy(q, np.ascontiguousarray(k[:, of]), np.ascontiguousarray(v[:, of]), *given)

    return attention


def hole(healthy: Any, hp: Any, q: Any, k: Any, v: Any, *given: Any) -> Any:
    """At a decode step the token before is not in the cache."""
    if len(q) == 1 and len(k) > 1:
        k, v = k.copy(), v.copy()
        k[-2], v[-2] = 0, 0
    return healthy(q, k, v, *given)


def oldest_unseen(healthy: Any, hp: Any, q: Any, k: Any, v: Any, scale: Any, kq: Any, kq_soft_max: Any, window: int) -> Any:
    return healthy(q, k, v, scale, kq, kq_soft_max, window or max(1, len(k) - 1))


def by_key_head(other: Callable[[Any, int], Any]) -> Callable[..., Any]:
    """A delta rule whose value heads read other key heads: a function (heads of all tokens, repeats) -> one for each value head."""

    def rule(healthy: Any, hp: Any, q: Any, k: Any, v: Any, *given: Any) -> Any:
        repeats = v.shape[1] // k.shape[1]
        return healthy(*(np.ascontiguousarray(other(x, repeats)) for x in (q, k)), v, *given)

    return rule


def forgets(healthy: Any, hp: Any, q: Any, k: Any, v: Any, decay: Any, beta: Any, before: Any, after: Any) -> Any:
    """A delta rule that begins every call with an empty state."""
    return healthy(q, k, v, decay, beta, np.zeros_like(before), after)


def erf_gelu(healthy: Any, hp: Any, gate: Any, up: Any) -> Any:
    exact = np.vectorize(lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))), otypes=[np.float64])
    return (exact(gate.astype(np.float64)) * up).astype(gate.dtype)


def shares_expert(healthy: Any, hp: Any, w: Any, x: Any, ids: Any) -> Any:
    """The products of experts 0 and 1 are exchanged."""
    other = np.where(ids < 2, 1 - ids, ids)
    return healthy(w, x, other)


# ---- other bytes of a tensor


def tensor(pattern: str, change: Callable[[Tensor, Model], np.ndarray | None], last: bool = False) -> Fault:
    """Other bytes of the first (or last) tensor whose name the pattern fits: its rows, changed."""

    def sick(e: Engine) -> Engine | None:
        names = [name for name in e.model.file.tensors if re.fullmatch(pattern, name)]
        if not names:
            return None
        old = e.model.file.tensors[names[-1 if last else 0]]
        rows = change(old, e.model)
        if rows is None or np.array_equal(rows, old.rows):
            return None
        tensors = {**e.model.file.tensors, old.name: replace(old, data=np.ascontiguousarray(rows).reshape(old.data.shape))}
        return replace(e, model=Model(replace(e.model.file, tensors=tensors)))

    return sick


def floats(change: Callable[[Any], Any]) -> Callable[[Tensor, Model], np.ndarray | None]:
    """A change of a tensor's floats; of a packed one None."""

    def changed(t: Tensor, model: Model) -> np.ndarray | None:
        if t.type != Q.F32:
            return None
        return change(t.rows.view(f32).reshape(t.shape).copy()).astype(f32).reshape(len(t.rows), -1).view(np.uint8)

    return changed


def exchanged(a: int, b: int) -> Callable[[Tensor, Model], np.ndarray]:
    def changed(t: Tensor, model: Model) -> np.ndarray:
        rows = t.rows.copy()
        rows[[a, b]] = rows[[b, a]]
        return rows

    return changed


def one_scale(t: Tensor, model: Model) -> np.ndarray | None:
    """The scale of one row is 1 % too large, to the precision of a half float; in a type whose blocks have one."""
    rows = t.rows.copy()
    blocks = rows.view(LAYOUTS[t.type].BLOCK)
    if "d" not in (blocks.dtype.names or ()):
        return None
    blocks["d"][3] *= np.float16(1.01)
    return rows


def last_block_lost(t: Tensor, model: Model) -> np.ndarray:
    """The last block of weights of each row is never read."""
    rows = t.rows.copy()
    rows[:, -LAYOUTS[t.type].BLOCK.itemsize :] = 0
    return rows


def of_the_block_before(t: Tensor, model: Model) -> np.ndarray | None:
    """The tensor of the block before, if that is one of its type and shape."""
    number = int(t.name.split(".")[1])
    before = next(
        (
            model.file.tensors[name]
            for i in range(number)
            if (name := t.name.replace(f"blk.{number}.", f"blk.{i}.", 1)) in model.file.tensors
        ),
        None,
    )
    same = before is not None and before.type == t.type and before.shape == t.shape
    return before.rows if before is not None and same else None


# ---- another line in the forward pass


def line(pattern: str, new: str) -> Fault:
    """The architecture's source with each text that fits the pattern replaced."""

    def sick(e: Engine) -> Engine | None:
        text = inspect.getsource(e.model.arch)
        changed = re.sub(pattern, new, text)
        if changed == text:
            return None
        module = ModuleType(e.model.arch.__name__)
        module.__dict__.update(
            {"__package__": e.model.arch.__package__, "__file__": e.model.arch.__file__, "np": np}
            | {"bfloat": bfloat, "half": half}
        )
        exec(compile(changed, str(e.model.arch.__file__), "exec"), module.__dict__)
        other = copy(e.model)
        other.tensors = copy(e.model.tensors)
        other.arch = other.tensors.arch = module
        return replace(e, model=other)

    return sick


DELTA = "gated_delta_rule"
FAULTS: dict[str, Fault] = {
    # rotation
    "rope base 0.5 % up": rope(base=lambda how, hp: how.base * 1.005),
    "rope base 0.5 % down": rope(base=lambda how, hp: how.base * 0.995),
    "rope base 1 % up": rope(base=lambda how, hp: how.base * 1.01),
    "rope base halved": rope(base=lambda how, hp: how.base / 2),
    "rope pairs of the other kind": rope(adjacent=lambda how, hp: not how.adjacent),
    "rope positions scaled by 0.1 %": rope(scale=lambda how, hp: how.scale * 1.001),
    "rope of one pair fewer": rope(
        n_rot=lambda how, hp: how.n_rot - 2, factors=lambda how, hp: how.factors[:-1], unscaled=lambda how, hp: how.unscaled[:-1]
    ),
    "rope of all dimensions": rope(
        n_rot=lambda how, hp: hp.head_dim, factors=lambda how, hp: (1.0,) * (hp.head_dim // 2), unscaled=lambda how, hp: ()
    ),
    "one rope factor": rope(factors=lambda how, hp: (*how.factors[:-1], how.factors[-1] * 1.5)),
    "rope factors not read": rope(factors=lambda how, hp: tuple(f if math.isinf(f) else 1.0 for f in how.factors)),
    "one rope base for all blocks": hparams(rope_sliding=lambda hp: hp.rope if hp.rope_sliding else None),
    "position off by one": line(r"c\.pos,", "c.pos + 1,"),
    "position of a call, not of the text": line(r"c\.pos,", "c.pos - c.pos[0],"),
    "head normed after it is rotated": line(
        r'num\.rope\(c\.norm\(("[QK]cur_normed"), ([qk]), (w\.attn_[qk]_norm), normed="(norm#\d)"\), c\.pos, (\S+)\)\)',
        r'c.norm(\1, num.rope(\2, c.pos, \5), \3, normed="\4"))',
    ),
    # norms
    "eps doubled": hparams(eps=lambda hp: hp.eps * 2),
    "eps ten times": hparams(eps=lambda hp: hp.eps * 10),
    "no eps": hparams(eps=lambda hp: 0.0),
    "eps of a unit norm of the mean": line(r"c\.hp\.eps / x\.shape\[-1\]", "c.hp.eps"),
    "a norm without its + 1": tensor(r"blk\.\d+\.attn_norm\.weight", floats(lambda w: w - 1)),
    "norm weights rounded to bfloat": tensor(r"blk\.\d+\.(ffn|post_attention)_norm\.weight", floats(bfloat)),
    "one mean for all heads": operation(
        "rms_norm",
        lambda healthy, hp, x, eps: healthy(x.reshape(len(x), -1), eps).reshape(x.shape) if x.ndim == 3 else healthy(x, eps),
        lambda hp: hp.d_state > 0 or hp.n_head > 1,
    ),
    # attention
    "two heads exchanged": operation("attention", heads_of_output(lambda heads: [1, 0, *heads[2:]])),
    "heads tiled, not grouped": operation("attention", reads(lambda h, H, G: h % G), lambda hp: hp.n_head > hp.n_head_kv > 1),
    "last query head reads another head": operation(
        "attention", reads(lambda h, H, G: h // (H // G) - (h == H - 1)), lambda hp: hp.n_head_kv > 1
    ),
    "scale 1 % up": line(r"num\.inverse_root\((hp\.head_dim|hp\.query_dim)\)", r"np.float32(num.inverse_root(\1) * 1.01)"),
    "window one longer": hparams(window=lambda hp: hp.window + bool(hp.window)),
    "window one shorter": hparams(window=lambda hp: hp.window - bool(hp.window)),
    "oldest token not seen": operation("attention", oldest_unseen),
    "a hole in the cache at decode": operation("attention", hole),
    "cache not rounded to half": operation("store", lambda healthy, hp, x: x),
    "cache rounded to bfloat": operation("store", lambda healthy, hp, x: bfloat(x)),
    "a bias dropped": tensor(r"blk\.\d+\.attn_[qkv]\.bias", floats(np.zeros_like)),
    "gate of attention by SiLU": line(r"num\.sigmoid\((c\.tap\(\"gate(_reshaped)?\", gate\))", r"num.silu(\1"),
    # delta rule
    "taps of the convolution one late": line(r"w\.ssm_conv1d\.dense\((.*?)\)\)", r"np.roll(w.ssm_conv1d.dense(\1), 1, axis=1))"),
    "convolution's state not carried": operation(
        "causal_conv1d", lambda healthy, hp, x, w: healthy(np.concatenate([0 * x[: w.shape[1] - 1], x[w.shape[1] - 1 :]]), w)
    ),
    "state not carried": operation(DELTA, forgets),
    "beta without its sigmoid": line(r"num\.sigmoid\((c\.linear\(\"beta\".*?\)|c\.tap\(\"b\".*?\))\)", r"(\1)"),
    "decay 1 % off": line(r"a \* w\.ssm_a\.dense\(num\.dtype\)", "a * (w.ssm_a.dense(num.dtype) * np.float32(1.01))"),
    "dt bias dropped": tensor(r"blk\.\d+\.ssm_dt\.bias", floats(np.zeros_like)),
    "value heads grouped, not tiled": operation(
        DELTA, by_key_head(lambda x, n: np.repeat(x, n, axis=1)), lambda hp: hp.n_v_head > hp.n_k_head > 1
    ),
    "gate before the norm": line(
        r'c\.norm\("mul", o, w\.ssm_norm, normed="norm#1"\) \* (c\.tap\("silu", num\.silu\(z\)\))',
        r'c.norm("mul", o * \1, w.ssm_norm, normed="norm#1")',
    ),
    "z by sigmoid, not SiLU": line(r"num\.silu\(z\)", "num.sigmoid(z)"),
    # feed-forward part
    "GELU by erf, not tanh": operation("geglu", erf_gelu, lambda hp: bool(hp.query_dim)),
    "SiLU for GELU": operation("geglu", lambda healthy, hp, gate, up: activation.swiglu(gate, up), lambda hp: bool(hp.query_dim)),
    "feed-forward part without its gate": operation("swiglu", lambda healthy, hp, gate, up: up.copy(), lambda hp: not hp.query_dim),
    "gate and up exchanged": operation("swiglu", lambda healthy, hp, gate, up: healthy(up, gate), lambda hp: not hp.query_dim),
    "SiLU by sigmoid(1.702 x)": operation(
        "swiglu",
        lambda healthy, hp, gate, up: gate * activation.sigmoid(f32(1.702) * gate) * up,
        lambda hp: not hp.query_dim,
    ),
    # experts
    "router's shares not normed": line(r"total\(share\)", "np.ones_like(share[:, :1])"),
    "last expert is the next best": line(
        r"largest\(probs, c\.hp\.n_used\)", "np.delete(largest(probs, c.hp.n_used + 1), -2, axis=1)"
    ),
    "shared expert without its gate": line(r"c\.num\.sigmoid\(share\)", "np.ones_like(share)"),
    "two experts exchanged": operation("experts", shares_expert, lambda hp: hp.n_expert > 1),
    "router's scores rounded to bfloat": line(r"(c\.linear\(\"ffn_moe_logits\", h, w\.ffn_gate_inp\))", r"bfloat(\1)"),
    # embedding, residual sum, head
    "embedding's scale in bfloat": line(
        r"math\.sqrt\(c\.hp\.n_embd\)", "float(bfloat(np.array([math.sqrt(c.hp.n_embd)], np.float32))[0])"
    ),
    "soft cap 1 % off": hparams(softcap=lambda hp: hp.softcap * 1.01),
    "residual sum rounded to bfloat": line(r'c\.tap\("l_out", (.*)\)\n', r'c.tap("l_out", bfloat(\1))\n'),
    "residual sum rounded to half": line(r'c\.tap\("l_out", (.*)\)\n', r'c.tap("l_out", half(\1))\n'),
    "two rows of the head exchanged": tensor(r"output\.weight|token_embd\.weight", exchanged(3, 4), last=True),
    # weights
    "a matrix of the block before": tensor(r"blk\.[1-9]\.(ffn_down|ffn_down_exps|attn_v|ssm_out)\.weight", of_the_block_before),
    "one row with a wrong scale": tensor(r"blk\.\d+\.(ffn_down|ffn_down_exps|attn_output|ssm_out)\.weight", one_scale, last=True),
    "two rows of values exchanged": tensor(r"blk\.\d+\.(attn_v|attn_qkv)\.weight", exchanged(0, 1), last=True),
    "last block of each row not read": tensor(r"blk\.\d+\.(ffn_up|ffn_up_exps)\.weight", last_block_lost),
}
