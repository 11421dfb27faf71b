"""SVG elements are drawn at the place of their value."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stella_mteb.pages import svg

VALUES = st.floats(-1000, 1000)


@given(VALUES, st.floats(0.01, 1000), st.integers(3, 12))
def test_ticks_are_round_few_and_inside_the_range(low: float, width: float, most: int) -> None:
    ticks = svg.round_ticks(low, low + width, most)

    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-6 <= tick <= low + width + 1e-6 for tick in ticks)
    if len(ticks) > 1:
        apart = Fraction(str(round(ticks[1] - ticks[0], 9)))
        while apart < 1:
            apart *= 10
        while apart >= 10:
            apart /= 10
        assert apart in {1, 2, 5}


@given(VALUES, st.floats(0.01, 1000), st.floats(0, 1))
def test_a_scale_keeps_proportions(low: float, width: float, share: float) -> None:
    scale = svg.linear(low, low + width, 100, 300)

    assert scale(low + share * width) == pytest.approx(100 + 200 * share, abs=1e-3)


def test_text_is_escaped_everywhere() -> None:
    hostile = '"><script>x</script>'
    drawn = svg.figure("a", 9, hostile, hostile, [svg.group(hostile, svg.written(0, 0, hostile, "end", hostile))])

    assert "<script" not in drawn
    assert drawn.count("&lt;script&gt;") == 5
