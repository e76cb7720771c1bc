"""The keys of a configuration, compared with the mapping that it becomes and with sentences of its source."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ove.config import RunConfig, VideoConfig
from ove.config.described import Key, keys_of
from ove.config.mapping import to_mapping
from ove.config.section import Bounds, Own, Section


@dataclass(frozen=True)
class Inner(Section):
    choice: Literal["a", "b"] | Own = "a"
    """First line,
    and second."""
    bare: int | None = None


@dataclass(frozen=True)
class Outer(Section):
    share: Annotated[float, Bounds(0, 1)]
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    names: tuple[str, ...] = ()
    """Of all."""


def test_keys_have_types_defaults_and_the_sentences_beside_them() -> None:
    assert list(keys_of(Outer, "outer.")) == [
        Key("outer.share", "float (within 0…1)", "", ""),
        Key("outer.inner.choice", "a|b|module:name", "'a'", "First line, and second."),
        Key("outer.inner.bare", "int|None", "None", ""),
        Key("outer.several", "list of Inner", "()", ""),
        Key("outer.several[i].choice", "a|b|module:name", "'a'", "First line, and second."),
        Key("outer.several[i].bare", "int|None", "None", ""),
        Key("outer.names", "list of str", "()", "Of all."),
    ]


def test_every_setting_of_a_run_is_listed() -> None:
    def flat(values: dict[str, Any], prefix: str = "") -> set[str]:
        sections = {key for key, value in values.items() if isinstance(value, dict) and value}
        inner = (flat(values[key], f"{prefix}{key}.") for key in sections)
        return {f"{prefix}{key}" for key in values.keys() - sections}.union(*inner)

    listed = {key.name for key in keys_of(RunConfig) if "[i]" not in key.name}
    assert flat(to_mapping(RunConfig())) == listed
    assert {key.name for key in keys_of(VideoConfig)} == flat(to_mapping(VideoConfig()))
