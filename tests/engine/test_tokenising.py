"""Token ids equal those of transformers for any text, and long texts are not tokenised to their end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stella_mteb.engine.tokenising import _CHARACTERS_PER_TOKEN, Tokeniser
from tests.conftest import SHARED, needs_shared

PROSE = "The camera pans across the harbour; three boats leave, and nobody waves them goodbye. "
ODD = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",  # one family of seven characters
    "\U0001f44b\U0001f3fd",  # a hand and its skin
    "e\u0301\u0327",  # marks that NFC orders anew
    "a\u0308\u0301\u0300" * 5,
    "\u1100\u1161\u11a8",  # Hangul in parts
    "\u0e01\u0e33",
    " " * 40,
    "\n \n\t\r\n" * 6,
    "\u00a0\u3000\u2003" * 4,
    "..." * 10,
    "?!\u2026\u2014-" * 5,
    "1234567890" * 5,
    "I'll we've DON'T it's",
    "\u4e8c\u4eba\u306e\u5b50\u4f9b\u304c\u5854\u3092\u5efa\u3066\u308b",
    "<|endoftext|>",
    "<|im_start|>",
    "[SEP]",
    "[CLS] [MASK]",
    "\ud83d",
    "\udc00\ud83d",
    "\ufdfa\u0130\u1e9e\ufb03",  # one character becomes several, or another length
    "\0\x07\u200b\ufeff\ufffd",
    "x" * 130,  # WordPiece gives up at 100
]


@pytest.fixture(scope="session")
def real_stella() -> Any:
    """The published tokenizer, as in the engine."""
    from stella_mteb.models.loading import load_tokenizer

    return load_tokenizer(SHARED / "stella_repo_layout", closes=151_643)


@pytest.fixture(scope="session", params=["minilm", "tiny stella", pytest.param("real stella", marks=needs_shared)])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """A fast tokenizer of transformers, WordPiece or byte-level BPE."""
    match request.param:
        case "minilm":
            return request.getfixturevalue("minilm").tokenizer
        case "tiny stella":
            return request.getfixturevalue("stella").tokenizer
    return request.getfixturevalue("real_stella")


def of_transformers(tokenizer: Any, texts: list[str], max_length: int) -> list[list[int]]:
    """Call transformers, with U+FFFD for a lone surrogate, which it cannot read."""
    readable = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    return tokenizer(readable, truncation=True, max_length=max_length)["input_ids"]


def ours(tokenizer: Any, texts: list[str], max_length: int) -> list[list[int]]:
    return [ids.tolist() for ids in tokeniser_of(tokenizer, max_length)(texts)]


tokeniser_of = cache(Tokeniser)


class Counting:
    """A backend that records the characters it receives."""

    def __init__(self, tokeniser: Tokeniser) -> None:
        self._backend, self.characters = tokeniser._backend, 0
        tokeniser._backend = self

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._backend, name)
        if not name.startswith("encode"):
            return method

        def encode(texts: str | list[str], *arguments: Any, **options: Any) -> Any:
            self.characters += len(texts) if isinstance(texts, str) else sum(map(len, texts))
            return method(texts, *arguments, **options)

        return encode


# --------------------------------------------------------------------------------------------------- the same ids

pieces = st.sampled_from([*ODD, PROSE, "a", " ", "\n", "."]) | st.text(max_size=12)


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.lists(pieces, max_size=8).map("".join), min_size=1, max_size=6),
    max_length=st.sampled_from([8, 13, 50, 100, 512]),
)
def test_the_ids_are_those_of_transformers(tokenizer: Any, texts: list[str], max_length: int) -> None:
    assert ours(tokenizer, texts, max_length) == of_transformers(tokenizer, texts, max_length)


@settings(max_examples=50, deadline=None)
@given(
    piece=st.lists(pieces, min_size=1, max_size=4).map("".join).filter(bool),
    other=pieces,
    offset=st.integers(-30, 30),
    max_length=st.sampled_from([8, 9, 16, 33, 64]),
    prose=st.booleans(),
)
def test_the_ids_of_a_long_text_are_those_of_the_whole_wherever_it_is_cut(
    tokenizer: Any, piece: str, other: str, offset: int, max_length: int, prose: bool
) -> None:
    """Texts with the cut in or near `other`, after prose or a repeated piece."""
    cut = max_length * _CHARACTERS_PER_TOKEN
    before = ((PROSE if prose else piece) * cut)[: cut + offset]
    text = before + other + piece * 100 + PROSE

    assert ours(tokenizer, [text], max_length) == of_transformers(tokenizer, [text], max_length)


@pytest.mark.parametrize("inside", range(-2, 3))
@pytest.mark.parametrize("number", range(len(ODD)))
@pytest.mark.parametrize("spaced", [False, True], ids=["joined", "spaced"])
def test_a_cut_inside_a_long_run_of_odd_characters_changes_no_id(
    tokenizer: Any, number: int, inside: int, spaced: bool
) -> None:
    piece = ODD[number] + " " * spaced
    text = PROSE[: 10 + inside] + piece * (4_000 // len(piece))

    assert ours(tokenizer, [text], 16) == of_transformers(tokenizer, [text], 16)


@pytest.mark.parametrize("max_length", [8, 20, 64])
def test_a_special_token_that_the_cut_divides_changes_no_id(tokenizer: Any, max_length: int) -> None:
    """Divided, it falls into several words; whole, it is one token, and parts the words beside it.

    The words before it are so long that the last token to be kept may stand right before it.
    """
    specials = sorted({str(token) for token in tokenizer.get_added_vocab()})
    cut = max_length * _CHARACTERS_PER_TOKEN
    filler = {"wide": "x" * 130 + " ", "blank": " " * 30 + "a", "marks": "=" * 64 + "\n", "prose": PROSE}
    texts = []
    for special in specials:
        for word in filler.values():
            for visible in range(1, len(special) + 1):
                before = (word * cut)[: cut - visible]
                texts += [before[:-3] + "!!!" + special + PROSE, before + special + PROSE * 20]

    assert ours(tokenizer, texts, max_length) == of_transformers(tokenizer, texts, max_length)


@pytest.mark.parametrize("characters", [1_000, 20_000])
def test_one_endless_word_is_tokenised_whole_and_to_the_same_ids(tokenizer: Any, characters: int) -> None:
    """Texts are not cut if the text behind the cut might matter."""
    tokeniser = Tokeniser(tokenizer, 8)
    counting = Counting(tokeniser)
    text = "a" * characters

    found = [ids.tolist() for ids in tokeniser([text])]

    assert found == of_transformers(tokenizer, [text], 8)
    assert counting.characters >= characters


# ------------------------------------------------------------------------------------------------------- the cost


@pytest.mark.parametrize("max_length", [32, 128, 512])
def test_only_the_first_pages_of_a_book_are_tokenised(tokenizer: Any, max_length: int) -> None:
    tokeniser = Tokeniser(tokenizer, max_length)
    counting = Counting(tokeniser)
    book = PROSE * (1_000_000 // len(PROSE))

    found = [ids.tolist() for ids in tokeniser([book])]

    assert counting.characters <= 4 * max_length * _CHARACTERS_PER_TOKEN
    assert found == of_transformers(tokenizer, [book], max_length)
    assert len(found[0]) == max_length


def test_a_text_that_may_fit_is_tokenised_once(tokenizer: Any) -> None:
    tokeniser = Tokeniser(tokenizer, 64)
    counting = Counting(tokeniser)
    text = (PROSE * 20)[: 64 * _CHARACTERS_PER_TOKEN]

    tokeniser([text])

    assert counting.characters == len(text)


# ------------------------------------------------------------------------------------------------- beside others


def test_the_length_of_one_call_does_not_stay_for_another_users_tokenizer(tokenizer: Any) -> None:
    """The backend is shared: each call sets its own length, and transformers' call sets its own."""
    text = PROSE * 10
    short, long = Tokeniser(tokenizer, 8), Tokeniser(tokenizer, 32)
    lengths = []
    for _ in range(2):
        lengths += [len(short([text])[0]), len(long([text])[0]), len(tokenizer(text)["input_ids"]) > 100]

    assert lengths == [8, 32, True] * 2


@pytest.mark.parametrize("prompt", ["Represent this: ", "query:", "  ", ""])
def test_the_tokens_of_a_prompt_are_those_that_a_text_does_not_add(tokenizer: Any, prompt: str) -> None:
    tokeniser = Tokeniser(tokenizer, 64)
    tokeniser([PROSE])
    opening = tokenizer("x")["input_ids"][0] in tokenizer.all_special_ids
    expected = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) + opening if prompt else 0

    assert tokeniser.prompt_tokens(prompt) == expected


def test_two_tokenising_threads_give_the_ids_of_one(tokenizer: Any) -> None:
    tokeniser = Tokeniser(tokenizer, 64)
    texts = [f"{number} {PROSE}" * (number % 60) for number in range(100)]
    expected = [ids.tolist() for ids in tokeniser(texts)]
    found = in_threads(*[lambda: [[ids.tolist() for ids in tokeniser(texts)] for _ in range(3)]] * 2)

    assert found == [[expected] * 3] * 2


def test_transformers_own_call_in_another_thread_neither_fails_nor_changes_an_id(tokenizer: Any) -> None:
    """It lifts the truncation of the backend that the engine's thread is reading."""
    tokeniser = Tokeniser(tokenizer, 64)
    texts = [f"{number} {PROSE}" * (number % 60) for number in range(100)]
    expected = [ids.tolist() for ids in tokeniser(texts)]
    ended = threading.Event()

    def engine() -> list[list[list[int]]]:
        try:
            return [[ids.tolist() for ids in tokeniser(texts)] for _ in range(5)]
        finally:
            ended.set()

    def user() -> list[int]:
        lengths = set()
        while not ended.is_set():
            lengths.add(len(tokenizer(PROSE * 20)["input_ids"]))
        return sorted(lengths)

    found, lengths = in_threads(engine, user)

    assert found == [expected] * 5
    assert lengths == [len(tokenizer(PROSE * 20)["input_ids"])]


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result() for future in [threads.submit(function) for function in functions]]
