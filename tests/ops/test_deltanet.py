"""Laws of the delta-rule state update, for the op, its kernel and an independent chunked form side by side."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import near, same_bits
from strategies import DeltaRule, delta_rule, seeds

from refmodel.kernels import deltanet as kernels
from refmodel.ops import deltanet as ops


def returning_both(rule):
    """The rule as a function of the state before it, whose values are the outputs and the state after it."""

    def run(*args):
        after = np.empty_like(args[-1])
        return rule(*args, after), after

    return run


op, kernel = returning_both(ops.gated_delta_rule), returning_both(kernels.gated_delta_rule)
RULES = pytest.mark.parametrize("rule", [op, kernel], ids=["op", "kernel"])
CONVS = pytest.mark.parametrize("conv", [ops.causal_conv1d, kernels.causal_conv1d], ids=["op", "kernel"])


def as_f64(d: DeltaRule) -> tuple[np.ndarray, ...]:
    return tuple(a.astype(np.float64) for a in d.args)


def naive(q, k, v, g, beta, state):
    """Element by element: every sum of the paper's recurrence is written out."""
    S, out = [[[float(x) for x in row] for row in head] for head in state], np.zeros(v.shape)
    for t in range(v.shape[0]):
        for h in range(v.shape[1]):
            for i in range(v.shape[2]):
                row = [x * np.exp(g[t, h]) for x in S[h][i]]
                error = v[t, h, i] - sum(x * y for x, y in zip(row, k[t, h]))
                S[h][i] = [x + beta[t, h] * error * y for x, y in zip(row, k[t, h])]
                out[t, h, i] = sum(x * y for x, y in zip(S[h][i], q[t, h]))
    return out, np.array(S)


def chunked(q, k, v, g, beta, state):
    """All tokens at once, by one triangular system a head: the form that training uses (arXiv:2412.06464, section 3.3)."""
    T, H, _ = v.shape
    out, after = np.zeros(v.shape), np.zeros(state.shape)
    for h in range(H):
        total = np.cumsum(g[:, h])
        decay = np.exp(np.minimum(total[:, None] - total[None, :], 0))  # from token j to token i >= j
        keys, before = k[:, h], np.exp(total)[:, None] * (k[:, h] @ state[h].T)  # what the old state answers
        system = np.eye(T) + beta[:, h, None] * np.tril(decay * (keys @ keys.T), -1)
        delta = np.linalg.solve(system, beta[:, h, None] * (v[:, h] - before))
        out[:, h] = np.exp(total)[:, None] * (q[:, h] @ state[h].T) + np.tril(decay * (q[:, h] @ keys.T)) @ delta
        after[h] = np.exp(total[-1]) * state[h] + (np.exp(total[-1] - total)[:, None] * delta).T @ keys
    return out, after


@RULES
@given(seed=seeds(), T=st.integers(1, 9))
def test_the_rule_stays_near_the_float64_one(rule, seed, T):
    d = delta_rule(seed, T)
    for got, exact in zip(rule(*d.args), op(*as_f64(d)), strict=True):
        near(got, exact, ulps=6)  # sums of 7 products of 9 tokens, each rounded a few times


@given(seed=seeds(), T=st.integers(1, 70))
def test_recurrent_chunked_and_naive_agree_in_float64(seed, T):
    d = as_f64(delta_rule(seed, T))
    recurrent = op(*d)
    for other in (chunked(*d), *([naive(*d)] if T < 6 else [])):
        for got, want in zip(other, recurrent, strict=True):
            near(got, want, ulps=200)  # the triangular system of 70 tokens has a condition number of some hundreds


@RULES
@given(seed=seeds(), T=st.integers(2, 9), data=st.data())
def test_any_split_is_one_call_to_the_bit(rule, seed, T, data):
    d = delta_rule(seed, T)
    cut = data.draw(st.integers(1, T - 1))
    whole, state = rule(*d.args)
    first, between = rule(*d.tokens(slice(0, cut), d.state))
    second, after = rule(*d.tokens(slice(cut, T), between))
    same_bits(np.concatenate([first, second]), whole)
    same_bits(after, state)


@RULES
@given(seed=seeds())
def test_the_state_that_is_given_is_left_alone(rule, seed):
    d = delta_rule(seed, 4)
    before = d.state.copy()
    rule(*d.args)
    same_bits(d.state, before)


@pytest.mark.parametrize("rule", [ops.gated_delta_rule, kernels.gated_delta_rule], ids=["op", "kernel"])
@given(seed=seeds(), T=st.integers(1, 3))
def test_the_state_may_be_renewed_where_it_stands(rule, seed, T):
    *args, state = delta_rule(seed, T).args
    after = np.empty_like(state)
    same_bits(rule(*args, state, state), rule(*args, delta_rule(seed, T).state, after))
    same_bits(state, after)


@RULES
@given(seed=seeds())
def test_value_head_h_reads_key_head_h_modulo_the_number_of_key_heads(rule, seed):
    d, every = delta_rule(seed, 5, Hk=2, Hv=6), [0, 1, 0, 1, 0, 1]
    for got, want in zip(rule(*d.args), rule(d.q[:, every], d.k[:, every], *d.args[2:]), strict=True):
        same_bits(got, want)


@given(seed=seeds(), threads=st.integers(1, 3))
def test_any_number_of_threads_has_the_same_bits(seed, threads):
    d = delta_rule(seed, 5)
    whole = kernel(*d.args)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        for got, want in zip(kernel(*d.args), whole, strict=True):
            same_bits(got, want)
    finally:
        numba.set_num_threads(before)


@RULES
@given(seed=seeds())
def test_beta_zero_writes_nothing_and_no_decay_forgets_nothing(rule, seed):
    d = delta_rule(seed, 5)
    zeros = np.zeros_like(d.beta)
    out, state = rule(d.q, d.k, d.v, zeros, zeros, d.state)
    same_bits(state, d.state)
    near(out, np.einsum("hvk,thk->thv", d.state.astype(np.float64), d.q.astype(np.float64)), ulps=4)


@RULES
@given(seed=seeds())
def test_beta_one_stores_the_value_under_its_unit_key(rule, seed):
    d = delta_rule(seed, 1)
    out, _ = rule(d.k, d.k, d.v, d.log_decay, np.ones_like(d.beta), d.state)
    size = float(np.abs(d.state).max())
    assert np.abs(out - d.v).max() <= 16 * np.finfo(np.float32).eps * max(size, 1)  # the key is of length 1 to one ulp


@RULES
@given(seed=seeds())
def test_heads_are_independent(rule, seed):
    d, order = delta_rule(seed, 5), np.array([2, 0, 1])
    out, state = rule(*d.args)
    permuted = [np.ascontiguousarray(a[:, order]) for a in d.args[:5]]
    got, after = rule(*permuted, d.state[order])
    same_bits(got, np.ascontiguousarray(out[:, order]))
    same_bits(after, np.ascontiguousarray(state[order]))


@RULES
@given(seed=seeds())
def test_outputs_are_linear_in_values_and_state(rule, seed):
    d = delta_rule(seed, 5)
    out, state = rule(*d.args)
    doubled, twice = rule(d.q, d.k, 2 * d.v, d.log_decay, d.beta, 2 * d.state)
    same_bits(doubled, 2 * out)  # a factor of 2 rounds nothing
    same_bits(twice, 2 * state)


@CONVS
@given(seed=seeds(), T=st.integers(1, 6), K=st.integers(2, 5))
def test_the_convolution_sees_its_own_past_alone(conv, seed, T, K):
    r = np.random.default_rng(seed)
    x, w = r.standard_normal((K - 1 + T, 5)).astype(np.float32), r.standard_normal((5, K)).astype(np.float32)
    exact = np.array([[np.dot(x[t : t + K, c].astype(float), w[c].astype(float)) for c in range(5)] for t in range(T)])
    near(conv(x, w), exact, ulps=4)
    changed = x.copy()
    changed[-1] += 1
    same_bits(conv(changed, w)[:-1], conv(x, w)[:-1])


@given(seed=seeds(), C=st.sampled_from([5, 16, 64, 139]), K=st.integers(2, 5))
def test_convolution_and_its_twin_have_the_same_bits(seed, C, K):
    r = np.random.default_rng(seed)
    x, w = r.standard_normal((8, C)).astype(np.float32), r.standard_normal((C, K)).astype(np.float32)
    same_bits(kernels.causal_conv1d(x, w), ops.causal_conv1d(x, w))
