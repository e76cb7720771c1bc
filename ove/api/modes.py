"""Which options of `ove.read` which mode has."""

from collections.abc import Mapping
from typing import Any

from ove.config import VideoConfig
from ove.config.mapping import OLD_KEYS
from ove.config.section import hints_of
from ove.errors import ConfigError
from ove.tokens.read import InputConfig

_VIDEO = ("geometry", "patch_px", "time_limit_s", "truncated", "source")
"""Keys of the video section that matter to whole frames."""
_NATIVE = "pictures at their own proportions"


def taken_by(
    options: Mapping[str, Any], config: InputConfig, mode: str, found: str, unused: list[dict[str, str]] | None, *own: str
) -> dict[str, Any]:
    """Returns the options that a mode has; of videos only the keys `own`, if there are any. Otherwise as `read_as`."""
    refused: dict[str, str] = {}
    for name, value in options.items():
        if takes := _needs(name, value, options, config, mode, own):
            shown = f"`{name}`" if name == "n_frames" else name  # which the configuration calls frames: no word to translate
            refused[name] = f"{shown} = {value!r:.60} is for {takes}, but {found}; leave {shown} out."
    if unused is None and refused:
        raise ConfigError(next(iter(refused.values())))
    if unused is not None:
        unused.append(refused)
    return {name: value for name, value in options.items() if name not in refused}


def _needs(name: str, value: Any, options: Mapping[str, Any], config: InputConfig, mode: str, own: tuple[str, ...]) -> str:
    """Returns what would have to be read for an option to matter; empty if it does."""
    if name == "size_px":
        raise ConfigError(f"unexpected argument `size_px`; give size={value!r:.60}.")
    if name in ("budget", "frames"):
        needed = "codec" if name == "budget" else "frames"
        return "" if mode == needed else f"mode {needed}"
    if name in ("max_tokens", "min_tokens"):
        square = mode == "image" and (options.get("size") is not None or config.size_px is not None)
        return "" if mode == "image" and not square else _NATIVE + (", without a size" if square else " (mode image)")
    known = name in ("preset", *hints_of(VideoConfig), *OLD_KEYS["VideoConfig"])
    if mode == "codec" or name == "size" or not known:  # what is not known is refused where the configuration is made
        return ""
    matter = own or (("patch_px",) if mode == "image" else _VIDEO)
    if name == "preset":
        return "" if set(VideoConfig.PRESETS.get(value, matter)) & set(matter) else "mode codec"
    if name in matter:
        return ""
    if name == "n_frames":
        return "mode codec (in mode frames, give frames)"
    return "videos" if name in _VIDEO else "mode codec"
