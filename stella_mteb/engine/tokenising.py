"""From texts to token ids, all cores at once; nothing here knows the model.

The prompt is tokenised with every text, not once: where it ends, its last token may merge with the text's first,
and a text of STS length costs 5 microseconds less without it, of some 100 on the fastest GPU (docs/lab-log.md).
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
# No tokenizer seen gives fewer than one token for 16 characters of prose; where one does, more is looked at.
_CHARACTERS_PER_TOKEN = 16


class Tokeniser:
    """A fast tokenizer at one maximum length.

    Args:
        tokenizer: A fast tokenizer of transformers that adds the model's special tokens.
        max_length: Longest sequence in tokens, special tokens included; longer texts are cut.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._all_special_ids = frozenset(tokenizer.all_special_ids)
        # A copy: transformers' own calls set and lift the truncation of theirs, in the middle of ours.
        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.no_padding()
        self._backend.enable_truncation(max_length)
        added = self._backend.get_added_tokens_decoder().values()
        # An added token (<|endoftext|>, [SEP]) that a cut divides falls into at most as many words as characters.
        self._margin = 2 + max((len(token.content) for token in added), default=0)
        self.max_length = max_length

    def __call__(self, texts: Sequence[str], prompt: str = "") -> list[Ids]:
        """Token ids of prompt + text; the same as transformers' own call gives with `truncation=True`."""
        ids: list[Ids] = []
        for start in range(0, len(texts), CHUNK):
            chunk = [well_formed(prompt + text) for text in texts[start : start + CHUNK]]
            ids += self._encode(chunk, self.max_length * _CHARACTERS_PER_TOKEN)
        return ids

    def longest(self, prompt: str) -> int:
        """Tokens of the longest text under a prompt; one of so many was cut, or just fits."""
        return self.max_length

    def prompt_tokens(self, prompt: str) -> int:
        """How many tokens a prompt is, the opening special token included and the closing one not."""
        if not prompt:
            return 0
        ids = self._backend.encode(prompt).ids
        # A closing special token (EOS, [SEP]) stands after the text, not after the prompt.
        return len(ids) - (ids[-1] in self._all_special_ids)

    def _encode(self, texts: list[str], size: int) -> list[Ids]:
        # A book costs a second to tokenise, and all but its first page is thrown away: of long texts only the first
        # `size` characters are looked at, and four times as many where those do not settle it.
        short = [i for i, text in enumerate(texts) if len(text) <= size]
        long = [i for i, text in enumerate(texts) if len(text) > size]
        # The fast one knows no words and offsets, and takes a quarter less time; nobody asks it for them.
        found = dict(zip(short, self._backend.encode_batch_fast([texts[i] for i in short]), strict=True))
        begun = zip(long, self._backend.encode_batch([texts[i][:size] for i in long]), strict=True)
        found |= {i: encoding for i, encoding in begun if self._is_settled(encoding)}
        # Arrays at once: as lists of Python integers, a corpus of long texts would not fit in memory.
        ids = {i: np.asarray(encoding.ids, dtype=np.int32) for i, encoding in found.items()}
        unsettled = [i for i in long if i not in found]
        if unsettled:
            ids |= zip(unsettled, self._encode([texts[i] for i in unsettled], size * 4), strict=True)
        return [ids[i] for i in range(len(texts))]

    def _is_settled(self, encoding: Any) -> bool:
        # A tokenizer splits a text from left to right into words and merges tokens inside a word. So if the last
        # kept token is some words before the cut, nothing behind the cut can have touched it.
        kept, rest = _last_word(encoding), encoding.overflowing
        return bool(rest) and kept + self._margin <= _last_word(rest[-1])


def _last_word(encoding: Any) -> int:
    return max((word for word in encoding.word_ids if word is not None), default=0)


def well_formed(text: str) -> str:
    """The text with U+FFFD, as a decoder would give, for each lone surrogate; a tokenizer fails on those."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
