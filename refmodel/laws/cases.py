"""What Hypothesis draws for the laws: sizes of which no two agree, so that a swapped axis shows."""

from hypothesis import strategies as st

from .laws import Case


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A case with 2 to 12 tokens."""
    T, H, Dk, Dv = draw(st.lists(st.integers(2, 12), min_size=4, max_size=4, unique=True))
    K = draw(st.integers(2, 5))
    C = draw(st.integers(2, 9).filter(lambda C: K not in (C, C + 1)))
    return Case(draw(st.integers(0, 2**32 - 1)), T, draw(st.integers(1, T - 1)), H, Dk, Dv, C, K)
