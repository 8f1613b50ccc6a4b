import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import near, same_bits
from strategies import seeds

from refmodel.kernels.attention import attention as kernel
from refmodel.ops.attention import attention as op
from refmodel.ops.attention import growth

ATTENTIONS = pytest.mark.parametrize("attention", [op, kernel], ids=["op", "kernel"])
NOBODY = np.zeros((0, 0, 0), np.float32)


def arguments(seed, T, S, H=6, G=2, D=5):
    r = np.random.default_rng(seed)
    return tuple(r.standard_normal(shape).astype(np.float32) for shape in ((T, H, D), (S, G, D), (S, G, D)))


def whole_matrix(q, k, v, scale):
    """Softmax over a T x S matrix with a mask, float64; query head h reads head h // (H/G)."""
    (T, H, _), (S, G, _) = q.shape, k.shape
    k, v = (np.repeat(a.astype(float), H // G, axis=1) for a in (k, v))
    raw = np.einsum("thd,shd->hts", q.astype(float), k)
    future = np.arange(S)[None, :] > (S - T + np.arange(T))[:, None]
    p = np.exp(np.where(future, -np.inf, raw * scale))
    p /= p.sum(-1, keepdims=True)
    return np.einsum("hts,shd->thd", p, v), np.where(future, 0, raw), p


@ATTENTIONS
@given(seed=seeds(), T=st.integers(1, 7), past=st.integers(0, 9))
def test_attention_is_a_masked_softmax(attention, seed, T, past):
    q, k, v = arguments(seed, T, T + past)
    kq, p = np.zeros((2, 6, T, T + past), np.float32)
    out = attention(q, k, v, 0.4, kq, p, 0)
    for got, want in zip((out, kq, p), whole_matrix(q, k, v, 0.4), strict=True):
        near(got, want, ulps=8)  # exp of a score of size 4 carries its error times 4


@ATTENTIONS
@given(seed=seeds(), T=st.integers(2, 7), data=st.data())
def test_any_split_and_any_onlooker_leave_the_bits(attention, seed, T, data):
    q, k, v = arguments(seed, T, T)
    cut = data.draw(st.integers(1, T - 1))
    looked = attention(q, k, v, 0.4, *np.zeros((2, 6, T, T), np.float32), 0)
    first = attention(q[:cut], k[:cut], v[:cut], 0.4, NOBODY, NOBODY, 0)
    second = attention(q[cut:], k, v, 0.4, NOBODY, NOBODY, 0)
    same_bits(np.concatenate([first, second]), looked)


@ATTENTIONS
@given(seed=seeds(), T=st.integers(1, 9), window=st.integers(1, 12))
def test_a_window_is_the_attention_of_each_token_over_its_newest_keys(attention, seed, T, window):
    q, k, v = arguments(seed, T, T)
    kq, p = np.zeros((2, 6, T, T), np.float32)
    out = attention(q, k, v, 0.4, kq, p, window)
    for t in range(T):
        first = max(0, t + 1 - window)
        alone = np.zeros((2, 6, 1, t + 1 - first), np.float32)
        same_bits(out[t], attention(q[t : t + 1], k[first : t + 1], v[first : t + 1], 0.4, *alone, 0)[0])
        for seen, want in zip((kq, p), alone, strict=True):
            same_bits(seen[:, t, first : t + 1], want[:, 0])
            assert not seen[:, t, :first].any()


@ATTENTIONS
@given(seed=seeds())
def test_enormous_scores_do_not_overflow(attention, seed):
    q, k, v = arguments(seed, 3, 3)
    assert np.isfinite(attention(q * 1e18, k * 1e18, v, 1.0, NOBODY, NOBODY, 0)).all()


@pytest.mark.parametrize("D", [16, 40])
@pytest.mark.parametrize("H", [1, 2, 8])
def test_many_parts_of_keys_in_any_split_of_memory_and_tokens(D, H):
    """Rows on both sides of a multiple of 256, keys as rows and as heads in memory, one token and many."""
    T, S = 5, 515
    q, k, v = arguments(3, T, S, H=H, G=1, D=D)
    looked = np.zeros((2, H, T, S), np.float32)
    out = kernel(q, k, v, 0.3, *looked, 0)
    for got, want in zip((out, *looked), whole_matrix(q, k, v, 0.3), strict=True):
        near(got, want, ulps=8)
    one_by_one = [kernel(q[t : t + 1], k[: S - T + t + 1], v[: S - T + t + 1], 0.3, NOBODY, NOBODY, 0) for t in range(T)]
    same_bits(np.concatenate(one_by_one), out)


@given(seed=seeds(), T=st.integers(1, 7), past=st.integers(0, 9))
def test_a_cache_of_half_floats_is_read_exactly_and_wherever_it_lies(seed, T, past):
    q, k, v = arguments(seed, T, T + past, D=16)
    k, v = k.astype(np.float16), v.astype(np.float16)
    by_head = [np.ascontiguousarray(np.pad(x, ((0, 3), (0, 0), (0, 0))).transpose(1, 0, 2)) for x in (k, v)]
    views = [x[:, : T + past].transpose(1, 0, 2) for x in by_head]
    want = kernel(q, k.astype(np.float32), v.astype(np.float32), 0.4, NOBODY, NOBODY, 0)
    same_bits(kernel(q, k, v, 0.4, NOBODY, NOBODY, 0), want)
    same_bits(kernel(q, *views, 0.4, NOBODY, NOBODY, 0), want)


@given(st.integers(1, 1 << 20), st.floats(0.01, 2.0), st.integers(0, 1 << 20))
def test_queries_grow_with_each_context_of_the_training_and_not_within_one(trained, scale, position):
    at = lambda *positions: growth(np.array(positions), trained, scale)
    same_bits(at(0, trained - 1), np.ones(2))
    before, here, behind = at(position, position // trained * trained, position + trained)
    assert before == here
    assert behind > here
    assert np.isclose(np.exp((here - 1) / scale), 1 + position // trained, rtol=1e-12)
