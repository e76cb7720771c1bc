"""Makes clip_golden.npz: what transformers' CLIP vision tower and its image processor give, on random weights and pictures.

Needs `pip install transformers torch pillow`; the tests do not. `python tests/labels/clip_golden.py`; with `--full` it compares
towers of the published sizes (random weights, nothing downloaded) and writes nothing.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

# layers, width, heads, mlp, patch, image, projection, activation
SMALL = {
    "b": (2, 32, 2, 64, 16, 48, 16, "quick_gelu"),
    "l": (3, 48, 3, 96, 14, 56, 24, "quick_gelu"),
    "h": (1, 80, 1, 96, 14, 42, 32, "gelu"),
}
FULL = {
    "B/32": (12, 768, 12, 3072, 32, 224, 512, "quick_gelu"),
    "L/14": (24, 1024, 16, 4096, 14, 224, 768, "quick_gelu"),
    "H/14": (32, 1280, 16, 5120, 14, 224, 1024, "quick_gelu"),
}
PICTURES = {"wide": (61, 137), "tall": (149, 83), "small": (17, 23), "exact": (56, 56), "odd": (57, 301)}
SIDE_PX = 56


def tower(sizes: tuple) -> CLIPVisionModelWithProjection:
    """A tower whose weights are random, and larger than fresh ones, so that every layer matters."""
    layers, width, heads, mlp, patch, image, projection, act = sizes
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=mlp,
        projection_dim=projection,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=image,
        patch_size=patch,
        hidden_act=act,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter) * (1.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.2)
            parameter.copy_(((parameter if parameter.ndim == 1 else 0) + noise).half().float())
    return model


def embed(model: CLIPVisionModelWithProjection, pictures: np.ndarray) -> np.ndarray:
    mean, std = (np.array(x, np.float32) for x in (CLIPImageProcessorPil.image_mean, CLIPImageProcessorPil.image_std))
    pixels = (pictures.astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        return model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).image_embeds.numpy()


def golden() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kept: dict[str, np.ndarray] = {}
    for case, sizes in SMALL.items():
        model, side = tower(sizes), sizes[5]
        pictures = rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8)
        config = json.loads(model.config.to_json_string(use_diff=False))
        if case == "h":  # as the whole model saves it
            config = json.loads(CLIPConfig(vision_config=config, projection_dim=sizes[6]).to_json_string(use_diff=False))
            names = set(CLIPModel(CLIPConfig(vision_config=model.config.to_dict(), projection_dim=sizes[6])).state_dict())
            assert set(model.state_dict()) <= names
        kept[f"{case}/config"] = np.array(json.dumps(config))
        kept |= {f"{case}/tensors/{name}": t.numpy().astype(np.float16) for name, t in model.state_dict().items()}
        kept |= {f"{case}/pictures": pictures, f"{case}/image_embeds": embed(model, pictures)}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX})
    for case, (height, width) in PICTURES.items():
        smooth = rng.normal(size=(height // 4 + 2, width // 4 + 2, 3)).repeat(4, 0).repeat(4, 1)[:height, :width]
        picture = np.clip(128 + 60 * smooth + rng.normal(scale=20, size=(height, width, 3)), 0, 255).astype(np.uint8)
        cut = processor(picture, return_tensors="np", do_rescale=False, do_normalize=False)["pixel_values"][0]
        kept |= {f"processor/{case}/picture": picture, f"processor/{case}/cut": cut.transpose(1, 2, 0).astype(np.uint8)}
    return kept


def compare_full() -> None:
    import jax

    from ove.labels.teachers.clip_files import load_clip

    for name, sizes in FULL.items():
        model = tower(sizes)
        pictures = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
        wanted = embed(model, pictures)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            numbers = sum(p.numel() for p in model.parameters())
            del model
            found = np.asarray(jax.jit(lambda t, p: t(p))(load_clip(folder), pictures))
        off = np.abs(found - wanted).max()
        print(
            f"{name}: {numbers:,} numbers, largest difference {off:.1e}, {off / np.abs(wanted).max():.1e} of the largest number"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    if parser.parse_args().full:
        compare_full()
    else:
        np.savez_compressed(Path(__file__).with_name("clip_golden.npz"), **golden())
