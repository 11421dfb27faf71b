"""Names of rows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.compare.naming import labels, with_organisation
from stella_mteb.compare.records import System
from tests.support.result_folders import (
    RERUN,
    STELLA,
)

OWN = st.fixed_dictionaries(
    {
        "embed_dim": st.sampled_from([256, 1024, 8192, True, "x", -1, None]),
        "dtype": st.sampled_from(["bfloat16", "float32", "\x1bevil"]),
        "prompts": st.sampled_from(["card", "leaderboard", "own-12345678", "no spec, this", 7]),
        "max_length": st.sampled_from([512, 256, 0]),
        "pipeline": st.sampled_from(["2", "3"]),
    }
)
SYSTEMS = st.lists(
    st.builds(
        System,
        label=st.just(""),
        model=st.sampled_from([STELLA, "a/b", "a/b #2"]),
        provenance=st.sampled_from(["measured here", "measured by others", "self-reported"]),
        origin=st.sampled_from(["one", "two"]),
        revision=st.sampled_from([RERUN, "0" * 40, "0" * 7 + "1" * 33, None]),
        settings=OWN,
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(SYSTEMS)
def test_labels_of_rows_are_unique(systems: list[System]) -> None:
    names = labels(systems)

    assert len(names) == len(systems)
    assert len(set(names)) == len(names)
    assert all(name.isprintable() for name in names)


def test_a_name_without_its_organisation_is_completed_if_only_one_model_has_it() -> None:
    known = ["nvidia/NV-Embed-v2", "intfloat/e5-base", "sentence-transformers/e5-base", "NovaSearch/stella_en_1.5B_v5"]

    assert with_organisation("NV-Embed-v2", known) == "nvidia/NV-Embed-v2"
    assert with_organisation("nv-embed-v2", known) == "nvidia/NV-Embed-v2"
    assert with_organisation("nvidia/NV-Embed-v2", known) == "nvidia/NV-Embed-v2"
    assert with_organisation("e5-base", known) == "e5-base"  # two organisations have one
    assert with_organisation("stella_en_1.5B_v5", known) == "stella_en_1.5B_v5"  # the config's name
