"""Labels of systems, and the systems that a spec matches."""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stella_mteb.compare.records import System
from stella_mteb.files.strict_yaml import COMMIT
from stella_mteb.files.tables import plain
from stella_mteb.models.config import ModelConfig, bundled_models, load_config
from stella_mteb.models.identity import IN_SPEC, fits, stated, unusual, with_settings
from stella_mteb.models.locate import find_config
from stella_mteb.models.spec import Spec

_LONGEST = 60


# -------------------------------------------------------------------------------------------------------- labels


def labels(systems: Sequence[System]) -> list[str]:
    """Give each system a label; all labels differ.

    The label of our own run is a spec with the settings that differ from the bundled config. Other labels are model,
    provenance and settings. Systems with the same label also get the settings that distinguish them, or a number if
    none does.
    """
    shown = [_always_shown(system) for system in systems]
    other = sorted({key for system in systems for key in system.settings} - set(IN_SPEC))
    for key in (*IN_SPEC, *other, "revision", "origin"):
        members = defaultdict(list)
        for i, text in enumerate(map(_label, systems, shown)):
            members[text].append(i)
        for same in members.values():
            if len({str(_detail(systems[i], key)) for i in same}) > 1:
                for i in same:
                    shown[i].add(key)
    unique: dict[str, None] = {}
    for text in map(_label, systems, shown):
        numbered = (f"{text} #{number}" for number in itertools.count(2))
        unique[next(each for each in itertools.chain([text], numbered) if each not in unique)] = None
    return list(unique)


def _always_shown(system: System) -> set[str]:
    if system.provenance != "measured here":
        return set(system.settings)
    shown = {"experiment"} & system.settings.keys()
    config = bundled().get(system.model)
    if config is None:
        return shown
    if config.hub and config.hub.revision and config.hub.revision != system.revision:
        shown.add("revision")
    if "experiment" in system.settings:
        return shown
    return shown | unusual(system.settings, config)


def _detail(system: System, key: str) -> object:
    return {"revision": system.revision, "origin": system.origin}.get(key) or stated(system.settings, key)


def _label(system: System, shown: set[str]) -> str:
    details = {key: value for key in sorted(shown) if (value := _detail(system, key)) is not None}
    if system.provenance == "measured here":
        config = bundled().get(system.model)
        spec, details = with_settings(Spec(config.name if config else system.model), details)
        name, extra = str(spec), []
    else:
        name, extra = system.model, [str(system.provenance)]
    extra += [f"{key}={_short(key, value)}" for key, value in details.items()]
    return plain(name + (f" ({', '.join(extra)})" if extra else ""))


def _short(key: str, value: object) -> str:
    text = re.sub(COMMIT, lambda commit: commit[0][:7], str(value)).removeprefix("https://github.com/")
    if len(text) > _LONGEST:
        text = f"...{text[-_LONGEST:]}" if key == "origin" else f"{text[:_LONGEST]}..."  # folders differ at the end
    return text or "none"


@functools.cache
def bundled() -> Mapping[str, ModelConfig]:
    """Index the bundled configs by all of their names."""
    return {name: config for config in bundled_models() for name in (config.name, *_hub_names(config))}


def _hub_names(config: ModelConfig) -> tuple[str, ...]:
    return (config.full_name, *(config.hub.aliases if config.hub else ()))


# ----------------------------------------------------------------------------------------------------- specs to systems


def with_organisation(name: str, known: Iterable[str]) -> str:
    """Complete a model's name on the hub that lacks the organisation, such as NV-Embed-v2.

    Args:
        name: A spec or a label.
        known: Names of models on the hub.

    Returns:
        The only known name that ends with it, whatever its letter case; `name` itself if none or several do, or if a
        config has this name.
    """
    named = [each for each in known if each.rpartition("/")[2].casefold() == name.casefold()]
    return named[0] if len(named) == 1 and name not in bundled() else name


@dataclass(frozen=True)
class Meaning:
    """The results that a spec matches.

    Attributes:
        spec: The parsed spec.
        models: Names that results of the model may have.
        config: The model's config; None without one.
    """

    spec: Spec
    models: tuple[str, ...]
    config: ModelConfig | None

    @classmethod
    def of(cls, name: str) -> Meaning:
        """Resolve a spec whose name is that of a config, of a hub model, of a YAML file or of a model folder.

        Raises:
            ConfigError: If the text is not a spec, or the YAML file or the folder is not a model.
        """
        spec = Spec.parse(name)
        path = Path(spec.name).expanduser()
        config = bundled().get(spec.name)
        if config is None and path.suffix in {".yaml", ".yml"}:
            config = load_config(path)
        elif config is None and path.is_dir():
            config = find_config(spec.name)
        if registered := spec.registered_as or (config and config.registered_as):
            return cls(spec, (registered,), None)  # its settings are in MTEB's registry, which is not read here
        return cls(spec, _hub_names(config) if config else (spec.name,), config)

    def fits(self, system: System) -> bool:
        """Check whether the spec matches a system.

        A bare name matches every row of the model from every source. A spec with settings matches the rows with exactly
        these settings; those that it does not name have the values of the model's config.
        """
        if system.model not in self.models:
            return False
        if replace(self.spec, registered_as=None) == Spec(self.spec.name):
            return True
        ours = system.provenance == "measured here"
        return fits(system.settings, self.spec, self.config if ours else None)
