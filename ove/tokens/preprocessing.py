"""What an encoder was trained on, kept beside its weights: how files become its tokens.

A training run has it in preprocessing.json, a published folder in preprocessor_config.json, whose other keys say what
transformers' image processors can use of it.
"""

from pathlib import Path
from typing import Any

from ove.config import VideoConfig, read_bounded_json
from ove.config.mapping import from_mapping, merged, renamed, to_mapping
from ove.errors import BadCheckpoint, ConfigError
from ove.files import write_json
from ove.named import refuse_code
from ove.records import MEAN_RGB, STD_RGB
from ove.tokens.read import InputConfig

OF_RUN = "preprocessing.json"
OF_PUBLISHED = "preprocessor_config.json"
_OUR_KEY = "ove"
_MACHINE = ("time_limit_s", "truncated", "source")
"""Keys of the video section that say how far a file is tried, and change nothing in what it becomes."""


def save_preprocessing(path: Path, config: InputConfig) -> None:
    """Writes OF_RUN or OF_PUBLISHED; `path` is that file."""
    ours = to_mapping(config)
    if path.name == OF_RUN:
        write_json(path, ours, indent=2)
        return
    side = config.size_px or config.video.size_px
    theirs: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN_RGB),
        "image_std": list(STD_RGB),
        "do_convert_rgb": True,
    }
    write_json(path, theirs | {_OUR_KEY: ours}, indent=2)


def read_preprocessing(folder: Path) -> InputConfig | None:
    """Reads how the files of a run or a published folder say that inputs were made; None if they do not.

    BadCheckpoint for a file that is damaged, has settings that this version does not know, or is of published weights and names
    code to import.
    """
    for name in (OF_RUN, OF_PUBLISHED):
        path = folder / name
        if not path.is_file():
            continue
        try:
            values = read_bounded_json(path)
            ours = values if name == OF_RUN else values.get(_OUR_KEY)
            if not (folder / "checkpoints").is_dir():  # no run of one's own
                refuse_code(ours, str(path), BadCheckpoint)
            return None if ours is None else from_mapping(InputConfig, ours)
        except (ValueError, AttributeError, TypeError, ConfigError) as error:
            raise BadCheckpoint(f"{path}: cannot be used ({error}); restore it, or delete it and give the settings.") from error
    return None


def changed(config: InputConfig, **options: Any) -> InputConfig:
    """Returns a configuration with some values replaced; keys with a dot are of a section (`video.fusion`).

    ConfigError for unknown keys and impossible values.
    """
    values = to_mapping(config)
    if (preset := options.pop("video.preset", None)) is not None:
        from_mapping(VideoConfig, {"preset": preset}, "video.")  # says what it may be
        values = merged(values, {"video": VideoConfig.PRESETS[preset]})
    for key, value in options.items():
        *sections, last = key.split(".")
        part: dict[str, Any] = {last: value}
        for section in reversed(sections):
            part = {section: part}
        values = merged(values, renamed(InputConfig, part))
    return from_mapping(InputConfig, values)


def differs_from_training(trained: InputConfig, used: InputConfig) -> list[str]:
    """Lists what is `used` otherwise than in training, as `video.size_px = 224 (trained: 84)`."""
    keys = {"codec": ("budget",), "frames": ("n_frames",), "image": ("size_px", "min_tokens", "max_tokens")}[used.mode]
    pairs = [(key, getattr(trained, key), getattr(used, key)) for key in keys if used.mode == trained.mode]
    if used.mode != "image":
        before, now = to_mapping(trained.video), to_mapping(used.video)
        shown = now if used.mode == "codec" else ("size_px", "patch_px", "geometry")
        pairs += [(f"video.{key}", before[key], now[key]) for key in shown if key not in _MACHINE]
    return [f"{key} = {now!r} (trained: {before!r})" for key, before, now in pairs if before != now]
