"""The shell of every page: escaping, the policy in its head, style, and a script that sorts and searches tables.

Every value passes `_as_text` and jinja's escaping; the policy allows one style sheet and one script, each by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from stella_mteb import __version__
from stella_mteb.files.tables import plain


def template(package: str, filters: Mapping[str, Callable[..., Any]]) -> Template:
    """The page of a package: `templates/page.html.j2`, which extends `shell.html.j2`.

    Args:
        package: Its `page.css` and `page.js` follow those of the shell.
        filters: Of the template, beside `breakable` and `exact`.
    """
    own, shell = PackageLoader(package), PackageLoader("stella_mteb.pages")
    environment = Environment(
        loader=ChoiceLoader([own, shell]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable, "exact": _exact, **filters}
    environment.globals["version"] = __version__
    for name, ending in (("style", "css"), ("script", "js")):
        # Our own files, not templates; the hash in the policy is of every byte between the tags.
        sources = (shell.get_source(environment, f"shell.{ending}"), own.get_source(environment, f"page.{ending}"))
        part = "".join(text for text, *_ in sources)
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        environment.globals |= {name: Markup(part), f"{name}_hash": f"sha256-{digest}"}  # noqa: S704
    return environment.get_template("page.html.j2")


def breakable(text: object) -> Markup:
    """A name with places where it may break: ours are made of parts (stella_en_1.5B_v5@1024, ClimateFEVER)."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/,-])(?=.)|(?<=.)(?=[@\[])|(?<=[a-z])(?=[A-Z])", plain(text)))


def typeset(text: str) -> str:
    """A figure with a minus sign."""
    return text if text == "-" else text.replace("-", "\N{MINUS SIGN}")


def _as_text(value: Any) -> Any:
    # Control characters and changes of writing direction are no markup, but mislead a reader; tokens are masked.
    return value if isinstance(value, Markup) else plain(value)


def _exact(value: float | None) -> str:
    # For sorting; what has no value stands last.
    return "" if value is None or not math.isfinite(value) else repr(float(value))
