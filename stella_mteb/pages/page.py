"""The shell of every page: escaping, content security policy, style, and a script that sorts and searches tables.

Every value passes through `_as_text` and jinja's escaping. The policy allows one style sheet and one script, by hash.
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


def template(package: str, filters: Mapping[str, Callable[..., Any]], name: str = "page") -> Template:
    """Load a page template of a package: `templates/<name>.html.j2`, which extends `shell.html.j2`.

    Args:
        package: The package; its `<name>.css` and `<name>.js`, if there are any, are appended to those of the shell.
        filters: Filters of the template, in addition to `breakable` and `exact`.
        name: Name of the template.
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
    for kind, ending in (("style", "css"), ("script", "js")):
        # These are our own files, not templates; the policy's hash covers every byte between the tags.
        sources = [(shell, f"shell.{ending}"), (own, f"{name}.{ending}")]
        there = [(loader, file) for loader, file in sources if file in loader.list_templates()]
        part = "".join(loader.get_source(environment, file)[0] for loader, file in there)
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        environment.globals |= {kind: Markup(part), f"{kind}_hash": f"sha256-{digest}"}  # noqa: S704
    return environment.get_template(f"{name}.html.j2")


def breakable(text: object) -> Markup:
    """Add line-break opportunities between the parts of a name, such as stella_en_1.5B_v5@1024 or ClimateFEVER."""
    between = r"(?<=[_/,-])(?=.)|(?<=.)(?=[@\[])|(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z][a-z])"
    return Markup("<wbr>").join(re.split(between, plain(text)))


def typeset(text: str) -> str:
    """Replace the hyphen of a negative figure by a minus sign."""
    return text if text == "-" else text.replace("-", "\N{MINUS SIGN}")


def _as_text(value: Any) -> Any:
    # Control characters and bidirectional overrides pass the escaping, but mislead a reader. Access tokens are masked.
    return value if isinstance(value, Markup) else plain(value)


def _exact(value: float | None) -> str:
    # For sorting; missing values sort last.
    return "" if value is None or not math.isfinite(value) else repr(float(value))
