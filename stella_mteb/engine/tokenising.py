"""Turns texts into token ids on all cores, independently of the model.

The prompt is tokenised with every text, because its last token may merge with the text's first. Tokenising it once
would save 5 of about 100 microseconds for a text of STS length on the fastest GPU (docs/lab-log.md).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
"""The token ids of one text."""

CHUNK = 4_096
# No known tokenizer gives fewer than one token for 16 characters of prose; otherwise more characters are read.
_CHARACTERS_PER_TOKEN = 16


class Tokeniser:
    """A fast tokenizer with a maximum length.

    Args:
        tokenizer: A fast transformers tokenizer that adds the model's special tokens.
        max_length: Longest sequence in tokens, special tokens included; longer texts are truncated.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._all_special_ids = frozenset(tokenizer.all_special_ids)
        # A copy, because transformers changes the truncation of its own backend between our calls.
        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.no_padding()
        self._backend.enable_truncation(max_length)
        added = self._backend.get_added_tokens_decoder().values()
        # An added token (<|endoftext|>, [SEP]) that is cut apart becomes at most as many words as it has characters.
        self._margin = 2 + max((len(token.content) for token in added), default=0)
        self.max_length = max_length

    def __call__(self, texts: Sequence[str], prompt: str = "") -> list[Ids]:
        """Return the token ids of prompt + text, the same as transformers with `truncation=True`."""
        ids: list[Ids] = []
        for start in range(0, len(texts), CHUNK):
            chunk = [well_formed(prompt + text) for text in texts[start : start + CHUNK]]
            ids += self._encode(chunk, self.max_length * _CHARACTERS_PER_TOKEN)
        return ids

    def longest(self, prompt: str) -> int:
        """Return the number of tokens of a truncated text; a text may also just fit."""
        return self.max_length

    def prompt_tokens(self, prompt: str) -> int:
        """Count the tokens of a prompt, with the first special token but without the last."""
        if not prompt:
            return 0
        ids = self._backend.encode(prompt).ids
        # The last special token (EOS, [SEP]) follows the text, not the prompt.
        return len(ids) - (ids[-1] in self._all_special_ids)

    def _encode(self, texts: list[str], size: int) -> list[Ids]:
        # Tokenising a book takes a second, and all but its first page is discarded. So only the first `size` characters
        # of long texts are read, and four times as many if those are not enough.
        short = [i for i, text in enumerate(texts) if len(text) <= size]
        long = [i for i, text in enumerate(texts) if len(text) > size]
        # encode_batch_fast skips words and offsets, which short texts do not need, and takes a quarter less time.
        found = dict(zip(short, self._backend.encode_batch_fast([texts[i] for i in short]), strict=True))
        begun = zip(long, self._backend.encode_batch([texts[i][:size] for i in long]), strict=True)
        found |= {i: encoding for i, encoding in begun if self._is_settled(encoding)}
        # Arrays, because a large corpus does not fit in memory as lists of Python integers.
        ids = {i: np.asarray(encoding.ids, dtype=np.int32) for i, encoding in found.items()}
        unsettled = [i for i in long if i not in found]
        if unsettled:
            ids |= zip(unsettled, self._encode([texts[i] for i in unsettled], size * 4), strict=True)
        return [ids[i] for i in range(len(texts))]

    def _is_settled(self, encoding: Any) -> bool:
        # A tokenizer splits a text from left to right into words and merges tokens inside a word. If the last kept
        # token is some words before the cut, the text behind the cut cannot have changed it.
        kept, rest = _last_word(encoding), encoding.overflowing
        return bool(rest) and kept + self._margin <= _last_word(rest[-1])


def _last_word(encoding: Any) -> int:
    return max((word for word in encoding.word_ids if word is not None), default=0)


def well_formed(text: str) -> str:
    """Replace each lone surrogate by U+FFFD, as a decoder does; tokenizers fail on lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
