"""The README.md of a published folder: what the encoder is, what it was trained on, how to use it."""

from pathlib import Path

from ove.config import EncoderConfig
from ove.files import write_text
from ove.tokens.read import InputConfig

CARD = "README.md"
_TEXT = """---
library_name: ove
pipeline_tag: feature-extraction
tags: [video, vision-encoder, onevision-encoder]
---

# {name}

A vision encoder with 3D RoPE: {layers} layers, width {width}, {heads} heads, patches of {patch_px} px{head}. {trained}

```python
import ove

model = ove.load("{name}")  # this folder, or its name on the hub
out = model("video.mp4")
{use}
```

{inputs}
"""


def write_model_card(folder: Path, config: EncoderConfig, inputs: InputConfig | None, step: int) -> bool:
    """Writes `folder/README.md` unless there is one, and returns whether it did.

    What is not known, such as data and licence, is left to its author.
    """
    path = folder / CARD
    if path.exists():
        return False
    head = ", with a pooling head" if config.pooling_head else ", without a pooling head"
    use = "out.pooled  # one embedding" if config.pooling_head else "out.tokens"
    card = _TEXT.format(
        name=folder.resolve().name,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        patch_px=config.patch_px,
        head=head,
        trained=f"Trained for {step:,} steps." if step else "",
        use=use,
        inputs=_about_inputs(inputs),
    )
    write_text(path, card.replace("  \n", "\n"))
    return True


def _about_inputs(inputs: InputConfig | None) -> str:
    if inputs is None:
        return "What its inputs looked like in training is not recorded."
    video = inputs.video
    if inputs.mode == "image":
        side = f"{inputs.size_px} px squares" if inputs.size_px else "their own proportions"
        return f"Trained on pictures at {side}. preprocessor_config.json has all settings; `ove.load` uses them by default."
    return (
        f"Trained on {video.n_frames} frames of {video.size_px} × {video.size_px} px a clip ({video.geometry}), of which "
        f"{inputs.budget} patches were kept (sampling {video.sampling}, saliency {video.fusion} of motion and residual). "
        "preprocessor_config.json has all settings; `ove.load` uses them by default."
    )
