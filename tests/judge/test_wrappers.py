"""The text that chat models put around a summary is detected, and removed completely."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stella_mteb.judge.inputs import read_candidates
from stella_mteb.judge.wrappers import unwrap
from tests.conftest import SHARED, Call, needs_shared

SUMMARY = "A man parks a van. He leaves."


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (f"<think>\nThe user wants a summary.\n</think>\n\n{SUMMARY}", ("reasoning",)),
        (f"The user wants a summary.\n</think>\n\n{SUMMARY}", ("reasoning",)),
        (f"<Reasoning>First a van. </reasoning>{SUMMARY}", ("reasoning",)),
        (
            f"<|channel|>analysis<|message|>A van.<|end|><|channel|>final<|message|>{SUMMARY}<|return|>",
            ("reasoning", "tags"),
        ),
        (f"<answer>{SUMMARY}</answer>", ("tags",)),
        (f"```text\n{SUMMARY}\n```", ("tags",)),
        (f"## Summary of the clip\n\n{SUMMARY}", ("heading",)),
        (f"**Summary**\n{SUMMARY}", ("heading",)),
        (f"**Video summary:** {SUMMARY}", ("heading",)),
        (f"Here is a summary: {SUMMARY}", ("introduction",)),
        (f"Sure! Here's a concise summary of the video clip:\n\n{SUMMARY}", ("introduction",)),
        (f"Certainly. Below is the description you asked for.\n{SUMMARY}", ("introduction",)),
        (f"{SUMMARY}\n\nLet me know if you would like more detail!", ("closing",)),
        (f"{SUMMARY} I hope this helps.", ("closing",)),
        (
            f"<think>A van.</think>Sure, here is the summary:\n# Summary\n{SUMMARY}\nWould you like me to shorten it?",
            ("closing", "heading", "introduction", "reasoning"),
        ),
    ],
)
def test_text_around_a_summary_is_classified_and_removed(text: str, kinds: tuple[str, ...]) -> None:
    rest, found = unwrap(text)

    assert rest == SUMMARY
    assert tuple(sorted(found)) == kinds


@pytest.mark.parametrize(
    "text",
    [
        SUMMARY,
        f"  {SUMMARY}\n",
        "Here is a man who parks a van. He leaves.",
        "Okay, so a man parks a van. He leaves.",
        "Let me know, he says. He leaves.",
        "This is the description of a day. It rains.",
        "A man **never** thinks. He says <b>think</b> and room #3 is empty.",
        "- A man parks a van\n- He leaves",
        "She asks him to summarise: here is the summary of her life. He leaves.",
    ],
)
def test_a_summary_alone_stays_to_the_byte(text: str) -> None:
    assert unwrap(text) == (text, ())


def test_reasoning_that_was_cut_off_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"1": "<think>The user wants", "2": SUMMARY}))
    references = {"1": (SUMMARY,), "2": (SUMMARY,)}

    (kept,) = read_candidates([tmp_path], references)
    (taken_out,) = read_candidates([tmp_path], references, unwrapped=True)

    assert (kept.texts["1"], kept.empty) == ("<think>The user wants", ())
    assert (list(taken_out.texts), taken_out.empty) == (["2"], ("1",))
    assert kept.wrapped == taken_out.wrapped == {"reasoning": ("1",)}


def test_wrappers_are_counted_and_named_and_the_option_takes_them_out(call: Call, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"1": SUMMARY, "2": SUMMARY}))
    (tmp_path / "m.json").write_text(json.dumps({"1": f"<think>A lorry?</think>{SUMMARY}", "2": SUMMARY}))
    arguments = ["judge", "--references", tmp_path / "r.json", "--predictions", tmp_path / "m.json",
                 "-m", "all_minilm_l6_v2", "--format", "json"]  # fmt: skip

    code, out, err = call(*arguments, "--output", tmp_path / "with")
    assert code == 0
    assert "m: 1 clip with reasoning around the summary, scored as part of it (--unwrap removes it): 1" in err
    assert json.loads(out)[0]["mean_hm_cf"] < 0.95

    code, out, err = call(*arguments, "--output", tmp_path / "without", "--unwrap")
    assert code == 0
    assert "m: 1 clip with reasoning around the summary, removed: 1" in err
    assert json.loads(out)[0]["mean_hm_cf"] == pytest.approx(1, abs=1e-6)
    aggregated = json.loads((tmp_path / "without/aggregated/all_minilm_l6_v2/m.json").read_text())
    assert aggregated["wrapped"] == {"reasoning": ["1"]}

    code, _, err = call(*arguments, "--output", tmp_path / "with", "--unwrap")
    assert code == 2
    assert "judged with different settings (unwrapped)" in err


@needs_shared
def test_nothing_is_removed_from_texts_of_people_and_nine_models() -> None:
    texts = [row["summary"] for row in json.loads((SHARED / "clip_cc/ground_truth.json").read_text("utf-8"))]
    for path in (SHARED / "clip_cc/predictions").glob("*.json"):
        texts += json.loads(path.read_text("utf-8")).values()
    for path in (SHARED / "human").glob("*/references.jsonl"):
        texts += [text for line in path.read_text("utf-8").splitlines() for text in json.loads(line)["references"]]

    assert len(texts) > 30_000
    assert [text for text in texts if unwrap(text)[1]] == []
