"""Vision encoders trained on what is surprising in video.

    clip = ove.read("video.mp4", budget=2048)        # the most surprising patches of a video, or those of a picture
    model = ove.load("org/model")                    # hub, published folder or file, or training run
    out = model([clip, "photo.jpg"])                 # out[0].pooled: one embedding
    ove.write_shards("shards", [("a.mp4", "run"), ("b.mp4", "jump")])
    for batch in ove.batches("shards", batch_size=16): ...
    train, val = ove.split("videos")                 # stratified lists of (path, label)
    ove.probe(model, train, val)                     # linear, k-NN or attentive

Each name is imported when it is first used. The rooms behind them: docs/architecture.md.
"""

import importlib
from typing import Any

_FRONT_DOOR = {
    "read": "ove.api.read",
    "EncoderInput": "ove.api.read",
    "load": "ove.api.model",
    "Model": "ove.api.model",
    "write_shards": "ove.api.data",
    "batches": "ove.api.data",
    "split": "ove.api.split",
    "Split": "ove.api.split",
    "probe": "ove.api.probe",
    "ProbeResult": "ove.api.probe",
    "OveError": "ove.errors",
}
__all__ = list(_FRONT_DOOR)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("ove")
    if name not in _FRONT_DOOR:
        raise AttributeError(f"module 'ove' has no attribute {name!r}; it offers {', '.join(_FRONT_DOOR)}")
    value = getattr(importlib.import_module(_FRONT_DOOR[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_FRONT_DOOR)
