"""Detection of the text that chat models put around a summary: reasoning, greetings, headings, an offer of more.

All of it would be scored as sentences of the summary. It is reported in any case, and removed only on request: the user
decides whether it belongs to the answer.
"""

from __future__ import annotations

import re

_TAGS = "think|thinking|thought|reasoning|reflection|analysis|scratchpad"
_WRAPPERS = {
    # A block without an end tag was cut off: the rest is reasoning. A block without a start tag began in the prompt.
    "reasoning": rf"<({_TAGS})>.*?(?:</\1>|\Z) | \A(?:(?!<(?:{_TAGS})>).)*</(?:{_TAGS})> | "
    r"<\|channel\|>(?!final)\w+<\|message\|>.*?(?=<\|channel\|>|\Z)",
    "tags": r"</?(?:answer|summary|output|response|final|caption)> | <\|[a-z_]+\|>(?:final(?=<\|))? | ^[ ]*```\w*[ ]*$",
    "heading": r"^[ ]*\#{1,6}[ ]+.*$ | ^[ ]*(?:\*\*|__)(?:(?!\*\*|__).)+(?:\*\*|__):?[ ]*$ | "
    r"\A\s*\**(?:(?:final|brief|short|video)[ ])*(?:summary|description|caption)\**:\**",
    "introduction": r"\A\s*(?:(?:sure|certainly|of[ ]course|okay|ok|absolutely|great|gladly)\b[^\n.!:]{0,40}[,.!:]\s*)?"
    r"(?:here(?:['\u2019]s|[ ]is|[ ]are)|below[ ]is|the[ ]following[ ]is)[ ]"
    r"(?:(?!\n|[.:](?:\s|\Z)).){0,200}\b(?:summary|description|caption|overview|recap|synopsis)\b"
    r"(?:(?!\n|[.:](?:\s|\Z)).){0,200}[.:](?=\s|\Z) | \A\s*(?:sure|certainly|of[ ]course|absolutely)[.!](?=\s)",
    "closing": r"(?!\A)(?:^|(?<=[.!?]\s))(?:(?:please[ ])?let[ ]me[ ]know|feel[ ]free|(?:i[ ])?hope[ ]this|"
    r"would[ ]you[ ]like[ ](?:me|a)|is[ ]there[ ]anything|"
    r"if[ ]you(?:['\u2019]d|[ ]would)?[ ](?:like|need|have|want))\b[^\n]*\Z",
}
_PATTERNS = {
    kind: re.compile(pattern, re.IGNORECASE | re.MULTILINE | re.VERBOSE | (re.DOTALL if kind == "reasoning" else 0))
    for kind, pattern in _WRAPPERS.items()
}


def unwrap(text: str) -> tuple[str, tuple[str, ...]]:
    """Remove the text that a chat model puts around a summary.

    Returns:
        The remaining text (which may be empty), and the kinds of removed text: `reasoning`, `tags`, `heading`,
        `introduction`, `closing`. A text without any of them is unchanged.
    """
    found = []
    for kind, pattern in _PATTERNS.items():
        rest = pattern.sub("", text)
        if rest != text:
            found.append(kind)
            text = rest.strip()
    return text, tuple(found)
