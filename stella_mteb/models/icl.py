r"""Tokenises the input of BGE-en-ICL, token for token like FlagEmbedding.

    <s> example 1 \n\n example 2 \n\n <instruct>{instruction}\n<query>{text}\n<response> </s>

Examples have the form `<instruct>…\n<query>…\n<response>…`. Documents have no prompt. The steps are those of
`ICLLLMEmbedder.encode_queries_single_device` (FlagEmbedding 1.4): instruction and text are tokenised, truncated,
*decoded again*, framed and tokenised a second time. The round trip changes the text. A tokenizer like Mistral's marks
the first word after an added token, so every text gets a second space after `<instruct>` and `<query>`; a character
whose bytes are split by the truncation becomes U+FFFD. `compat` reproduces this, because the published scores were
computed that way. `clean` tokenises once and truncates the token ids.

The prompt of a text is everything before it, as one string; stores, results and logs use this string.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from stella_mteb.engine.tokenising import CHUNK, Ids, Tokeniser, well_formed
from stella_mteb.errors import ConfigError
from stella_mteb.prompts.examples import TOKENS

INSTRUCT, RESPONSE = TOKENS[0], "\n<response>"


class IclTokeniser(Tokeniser):
    """A tokeniser for few-shot prompts.

    Args:
        tokenizer: The model's tokenizer with the added tokens `<instruct>`, `<query>` and `<response>`.
        max_length: Longest text with its instruction, first and last token, without examples.
        compat: Whether to decode and tokenise a second time, as FlagEmbedding does.
        most: Longest input with examples that the model can process; None for no limit.
    """

    def __init__(self, tokenizer: Any, max_length: int, *, compat: bool = True, most: int | None = None) -> None:
        super().__init__(tokenizer, max_length)
        self._most = most
        self._tokenizer, self._compat = tokenizer, compat
        self._whole = copy.deepcopy(tokenizer.backend_tokenizer)
        self._whole.no_padding()
        self._whole.no_truncation()
        opened = self._whole.encode("").ids
        self._opening, self._closing = opened[:1], opened[-1:]
        self._response = self._ids([RESPONSE])[0]
        # Its ids behind a text; without a text, the tokenizer marks it as the beginning of a word.
        self._closing_response = self._ids(["x" + RESPONSE])[0][len(self._ids(["x"])[0]) :]
        # The same calculation as in FlagEmbedding.
        self._room = max_length - len(self._opening) - len(self._response) - len(self._closing)

    def __call__(self, texts: Sequence[str], prompt: str = "") -> list[Ids]:
        """Tokenise texts under a prompt that ends with an instruction; under any other prompt, as the base class."""
        if INSTRUCT not in prompt:
            return super().__call__(texts, prompt)
        rows: list[Ids] = []
        for start in range(0, len(texts), CHUNK):
            rows += self._assemble(texts[start : start + CHUNK], *_divide(prompt))
        return rows

    def longest(self, prompt: str) -> int:
        """Return the number of tokens of a truncated text, examples included."""
        if INSTRUCT not in prompt:
            return super().longest(prompt)
        around = len(self._opening) + len(self._closing_response) + len(self._closing)
        return len(self._ids([_divide(prompt)[0]])[0]) + self._room + around

    def _assemble(self, texts: Sequence[str], examples: str, instruction: str) -> list[Ids]:
        shared = self._ids([examples])[0]
        before = len(shared)
        asked = [instruction + well_formed(text) for text in texts]
        if self._compat:
            cut = [ids[: self._room] for ids in self._ids(asked)]
            framed = [text + RESPONSE for text in self._tokenizer.batch_decode(cut)]
            own = self._ids(framed)
            # Added tokens split a text, so examples and query can be tokenised apart; the first text is checked.
            if examples and self._ids([examples + framed[0]])[0] != shared + own[0]:
                shared, own = [], self._ids([examples + text for text in framed])
        else:
            fits = self._room + len(self._response)
            whole = self._ids([text + RESPONSE for text in asked])
            own = [ids if len(ids) <= fits else ids[: self._room] + self._closing_response for ids in whole]
        # FlagEmbedding's own limit for the second pass, including its multiples of eight.
        limit = (before + len(self._response) + self.max_length + 8) // 8 * 8 + 8
        if self._most is not None and limit > self._most:
            raise ConfigError(
                f"the examples of this task take {before} tokens, too many for a model with an input limit of "
                f"{self._most} and texts of {self.max_length}; use fewer examples ([shots=N]), shorter ones, or a "
                "smaller max_length"
            )
        limit -= len(self._opening) + len(self._closing)
        return [np.asarray([*self._opening, *(shared + ids)[:limit], *self._closing], dtype=np.int32) for ids in own]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._whole.encode_batch_fast(list(texts), add_special_tokens=False)]


def _divide(prompt: str) -> tuple[str, str]:
    """Split a prompt into the examples and the final instruction; a prompt may have examples only."""
    at = max(prompt.rfind(INSTRUCT), 0) if prompt.endswith("<query>") else len(prompt)
    return prompt[:at], prompt[at:]
