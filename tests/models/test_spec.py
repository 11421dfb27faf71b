"""The spec: a string that identifies a model and survives parsing and printing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.errors import ConfigError
from stella_mteb.models.spec import DTYPES, Spec

_numbers = st.none() | st.integers(1, 10**12)
_names = st.text(st.characters(exclude_characters="[]@", exclude_categories=["Cs"]), min_size=1).map(str.strip)
_specs = st.builds(
    Spec,
    name=_names.filter(bool),
    dimension=_numbers,
    dtype=st.none() | st.sampled_from(sorted(DTYPES.values())),
    prompts=st.none() | st.from_regex(r"\A[A-Za-z][A-Za-z0-9_-]*\Z").filter(lambda name: name not in {*DTYPES, "cut"}),
    max_length=_numbers,
    shots=st.none() | st.integers(0, 10**12),
    cut=st.none() | st.just(True),
    registered_as=st.none() | st.sampled_from(["intfloat/e5-small-v2", "a.b/c_d-1"]),
)


@settings(max_examples=50, deadline=None)
@given(_specs)
def test_every_spec_comes_back_from_its_own_text(spec: Spec) -> None:
    assert Spec.parse(str(spec)) == spec


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from("ab@[],=18 \t.-_/") | st.characters(), max_size=20))
def test_any_text_is_either_a_spec_that_comes_back_or_a_config_error(text: str) -> None:
    try:
        spec = Spec.parse(text)
    except ConfigError as error:
        assert repr(text) in str(error)
    else:
        assert Spec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("stella_en_1.5B_v5", Spec("stella_en_1.5B_v5")),
        ("stella_en_1.5B_v5@1024", Spec("stella_en_1.5B_v5", dimension=1024)),
        ("stella@8192[bf16,card]", Spec("stella", dimension=8192, dtype="bfloat16", prompts="card")),
        ("stella[max_length=256]", Spec("stella", max_length=256)),
        ("./my_models/stella@256", Spec("./my_models/stella", dimension=256)),
        ("NovaSearch/stella_en_1.5B_v5[fp32]", Spec("NovaSearch/stella_en_1.5B_v5", dtype="float32")),
        ("stella[leaderboard, max_length=64 ,fp16]", Spec("stella", None, "float16", "leaderboard", 64)),
        ("./mine@128[cut]", Spec("./mine", dimension=128, cut=True)),
        ("./mine[as=intfloat/e5-small-v2]", Spec("./mine", registered_as="intfloat/e5-small-v2")),
        ("bge_en_icl[shots=3]", Spec("bge_en_icl", shots=3)),
        ("bge_en_icl[shots=0,bf16]", Spec("bge_en_icl", dtype="bfloat16", shots=0)),
        ("  stella @256  ", Spec("stella", dimension=256)),
        ("stella[]", Spec("stella")),
    ],
)
def test_the_documented_forms_are_parsed(text: str, spec: Spec) -> None:
    assert Spec.parse(text) == spec


def test_equal_specs_written_differently_print_the_same() -> None:
    """The text is an identity in results and caches, so the order of options must not make two of it."""
    assert str(Spec.parse("stella@256[card,max_length=64,bf16]")) == "stella@256[bf16,card,max_length=64]"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "The form is NAME[@DIMENSION]"),
        ("   ", "invalid model spec"),
        ("[bf16]", "invalid model spec"),
        ("@1024", "invalid model spec"),
        ("stella@", "invalid model spec"),
        ("stella@big", "invalid model spec"),
        ("stella@-5", "invalid model spec"),
        ("stella@256@1024", "invalid model spec"),
        ("stella[bf16", "invalid model spec"),
        ("stella[bf16]card", "invalid model spec"),
        ("stella[bf16][card]", "invalid model spec"),
        ("stella[bf16]@256", "invalid model spec"),
        ("stella@0", "dimension must be a positive whole number (got '0')"),
        ("stella@\uff11\uff10\uff12\uff14", "dimension must be a positive whole number"),
        ("stella[max_length=0]", "max_length must be a positive whole number (got '0')"),
        ("stella[max_length=]", "max_length must be a positive whole number (got '')"),
        ("stella[max_length=1.5]", "max_length must be a positive whole number (got '1.5')"),
        ("stella[max_length=-1]", "max_length must be a positive whole number"),
        ("stella[max_len=8]", "unknown setting 'max_len=8'; the settings are max_length=N, shots=N and as="),
        ("stella[as=e5]", "unknown setting 'as=e5'"),
        ("stella[cut,cut]", "sets cut twice"),
        ("stella[shots=]", "shots must be a positive whole number (got '')"),
        ("stella[shots=-1]", "shots must be a positive whole number (got '-1')"),
        ("stella[shots=00]", "shots must be a positive whole number (got '00')"),
        ("stella[shots=0,shots=0]", "sets shots twice"),
        ("stella[8bit]", "option '8bit' is neither a dtype (bf16, fp32, fp16)"),
        ("stella[bf16,fp32]", "sets dtype twice"),
        ("stella[bf16,bf16]", "sets dtype twice"),
        ("stella[card,leaderboard]", "sets prompts twice"),
        ("stella[max_length=8,max_length=9]", "sets max_length twice"),
    ],
)
def test_a_spec_that_is_wrong_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        Spec.parse(text)

    assert says in str(error.value)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["stella@" + "9" * 5_000, "stella[max_length=" + "9" * 5_000 + "]"])
def test_a_number_with_thousands_of_digits_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="model spec"):
        Spec.parse(text)
