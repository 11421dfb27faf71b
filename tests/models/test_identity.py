"""The identity of a run survives being written into a result and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb import PIPELINE
from stella_mteb.models.config import ModelConfig
from stella_mteb.models.declared import Declared
from stella_mteb.models.identity import expected, fits, identity, is_ours, unusual, with_settings
from stella_mteb.models.layout import Layout
from stella_mteb.models.resolve import ResolvedModel
from stella_mteb.models.spec import Spec
from stella_mteb.prompts.profiles import PromptConfig, profile_of

DTYPES = ["float32", "bfloat16"]
HEADS = [256, 1024]
LENGTHS = [128, 512]

prompts = st.builds(
    PromptConfig,
    profile=st.sampled_from(["card", "leaderboard", "builtin", "own"]),
    s2s=st.sampled_from(["", "Compare: "]),
    own=st.just({"STS": "Same? "}),
)
configs = st.builds(
    ModelConfig,
    name=st.just("my-model"),
    path=st.just("/models/my-model"),
    attention=st.sampled_from([None, "bidirectional", "causal"]),
    pooling=st.sampled_from([None, "mean"]),
    normalize=st.sampled_from([None, True, False]),
    similarity=st.sampled_from([None, "dot"]),
    dimension=st.sampled_from([None, *HEADS]),
    max_length=st.sampled_from([None, *LENGTHS]),
    dtype=st.sampled_from([None, *DTYPES]),
    prompts=prompts,
)
specs = st.builds(
    Spec,
    name=st.just("my-model"),
    dimension=st.sampled_from([None, *HEADS]),
    dtype=st.sampled_from([None, *DTYPES]),
    prompts=st.sampled_from([None, "card", "leaderboard"]),
    max_length=st.sampled_from([None, *LENGTHS]),
)


@st.composite
def models(draw: st.DrawFn, config: ModelConfig | None = None) -> ResolvedModel:
    """A model with its files; the folder decides what neither spec nor config does."""
    width, length = draw(st.sampled_from(HEADS)), draw(st.sampled_from(LENGTHS))
    truncate = draw(st.sampled_from([None, 64]))
    layout = Layout(
        transformer=Path("/models/my-model"),
        config={},
        pooling_modes=("mean",),
        include_prompt=True,
        heads=dict.fromkeys(HEADS, ()),
        width=width,
        normalize=draw(st.booleans()),
        max_length=length,
        lower_case=False,
        declared=Declared(truncate_dim=truncate),
    )
    spec = draw(specs)
    if spec.dimension is None and draw(st.booleans()):
        spec = replace(spec, dimension=32, cut=True)
    layout = layout.with_cuts([layout.default_dimension, *([spec.dimension] if spec.cut else [])])
    return ResolvedModel(spec, config or draw(configs), Path("/models/my-model"), "local-0", layout)


def dtype_of(model: ResolvedModel) -> str:
    return model.spec.dtype or model.config.dtype or "float32"


def whole_spec(model: ResolvedModel) -> Spec:
    """Return the spec that states every setting of a run that a spec can state."""
    return replace(
        model.spec,
        dimension=model.dimension,
        dtype=dtype_of(model),
        prompts=model.prompts,
        max_length=model.max_length,
    )


@given(model=models())
def test_the_spec_that_started_a_run_fits_it(model: ResolvedModel) -> None:
    written = identity(model, dtype_of(model))

    assert is_ours(written)
    assert fits(written, model.spec, model.config)
    assert fits(written, whole_spec(model), model.config)
    assert (
        expected(model.config, model.spec).items()
        <= {"cut": False, "loading": "", "normalize": True, "shots": "all", "similarity": "", **written}.items()
    )


@given(model=models())
def test_a_spec_read_back_from_a_run_starts_the_same_run(model: ResolvedModel) -> None:
    written = identity(model, dtype_of(model))
    spec, rest = with_settings(Spec("my-model"), written)
    again = replace(model, spec=replace(spec, prompts=profile_of(spec.prompts or "")))

    assert identity(again, str(spec.dtype)) == written
    assert rest.keys() <= {"pipeline", "loading", "normalize", "similarity"}


@settings(max_examples=300)
@given(data=st.data())
def test_one_spec_fits_two_runs_of_a_config_only_if_they_are_the_same_run(data: st.DataObject) -> None:
    config = data.draw(configs.filter(lambda config: config.normalize is not None))
    one, other = data.draw(models(config)), data.draw(models(config))
    written = identity(one, dtype_of(one)), identity(other, dtype_of(other))

    assert fits(written[1], whole_spec(one), config) == (written[0] == written[1])


@given(model=models())
def test_a_run_with_the_configs_own_settings_shows_none_as_unusual(model: ResolvedModel) -> None:
    plain = replace(model, spec=Spec("my-model"))

    assert unusual(identity(plain, dtype_of(plain)), plain.config) == set()
    if model.config.dimension:
        other = next(head for head in HEADS if head != model.config.dimension)
        moved = replace(plain, spec=Spec("my-model", dimension=other))
        assert unusual(identity(moved, dtype_of(moved)), plain.config) == {"embed_dim"}


@pytest.mark.parametrize("normalize", [True, False])
def test_a_config_that_sets_unit_length_fits_only_results_with_that_setting(tmp_path: Path, normalize: bool) -> None:
    """In 0.1 `compare my_model.yaml@256` took the other run's results for those of a YAML with `normalize: false`."""
    from stella_mteb.compare.naming import Meaning
    from stella_mteb.compare.records import System

    yaml = tmp_path / "my_model.yaml"
    yaml.write_text(f"name: my-model\npath: .\nnormalize: {str(normalize).lower()}\n")
    meaning = Meaning.of(f"{yaml}@256")
    common = {"dtype": "float32", "embed_dim": 256, "max_length": 512, "pipeline": PIPELINE, "prompts": "none"}

    for normalized in (True, False):
        of_run = common if normalized else {**common, "normalize": False}
        system = System("", "local/my-model", "measured here", "here", "local-0", of_run)
        assert meaning.fits(system) == (normalized == normalize)


def test_results_outlast_a_release_but_not_another_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    import stella_mteb

    layout = Layout(Path("/m"), {}, ("mean",), True, {256: ()}, 256, True, 512, False)
    model = ResolvedModel(Spec("m"), ModelConfig(name="m", path="/m"), Path("/m"), "local-0", layout)
    before = identity(model, "float32")

    monkeypatch.setattr(stella_mteb, "__version__", "99.0.0")
    assert identity(model, "float32") == before
    monkeypatch.setattr(stella_mteb, "PIPELINE", "99")
    assert identity(model, "float32") != before


def test_results_of_version_0_1_are_known_as_ours() -> None:
    assert is_ours({"dtype": "float32", "embed_dim": 384, "max_length": 256, "plugin": "0.1.0", "prompts": "none"})
    assert is_ours({"experiment": "dtype_float32__embed_dim_384__max_length_256__plugin_0.1.0__prompts_none"})
    assert not is_ours({"embed_dim": 384})
