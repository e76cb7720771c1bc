"""`ove.load`: an encoder by its name or path, which is called with videos and pictures."""

import logging
import os
from collections.abc import Iterator
from typing import Any, Literal, overload

from ove.api.arguments import arguments, local_path, path_given, refuse
from ove.api.read import EncoderInput, read_as
from ove.config import EncoderConfig, VideoConfig
from ove.config.section import Count, Natural
from ove.encoder.published.hub import is_on_hub
from ove.errors import ConfigError
from ove.features.from_files import FileFeatures, Outputs, Weights, encode_sequences, open_weights
from ove.paths import uri_of
from ove.tokens.preprocessing import differs_from_training
from ove.tokens.read import InputConfig, Tokens

_log = logging.getLogger("ove")
_NAMED = arguments(video__size_px="size", size_px="size", n_frames="frames", budget_tokens="budget")


class Model:
    """A frozen encoder, made by `ove.load`; call it with one input or a list of them."""

    def __init__(self, weights: Weights, name: str) -> None:
        self.weights, self.name = weights, name
        self._told: set[str] = set()

    def __repr__(self) -> str:
        config, step = self.config, self.weights.step
        at = "" if step is None else f", step {step}"
        return f"<ove.Model {self.name}{at}: {config.layers} layers, width {config.width}, patch {config.patch_px}>"

    @property
    def config(self) -> EncoderConfig:
        """Sizes and layout of the encoder."""
        return self.weights.config

    @property
    def inputs(self) -> InputConfig:
        """How inputs are read unless told otherwise: as in training, where the weights say so."""
        if self.weights.inputs is None:
            self._tell(f"{self.name} does not say what it was trained on; inputs are read at 224 px, 2,048 patches of a clip")
        return self.weights.inputs or InputConfig("codec", VideoConfig(patch_px=self.config.patch_px))

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            _log.warning(sentence)

    @_NAMED
    def read(
        self, source: Any, /, *, mode: Literal["auto", "codec", "frames", "image"] = "auto", **options: Any
    ) -> EncoderInput:
        """Reads a file, bytes, URL or array as this encoder was trained; options are those of `ove.read`."""
        return read_as(source, self.inputs, options, mode)

    @overload
    def __call__(
        self,
        inputs: list[Any] | tuple[Any, ...],
        *,
        tokens: bool = ...,
        hidden: int | None = ...,
        batch_tokens: int = ...,
        **options: Any,
    ) -> list[FileFeatures]: ...
    @overload
    def __call__(
        self, inputs: Any, *, tokens: bool = ..., hidden: int | None = ..., batch_tokens: int = ..., **options: Any
    ) -> FileFeatures: ...
    @_NAMED
    def __call__(
        self,
        inputs: Any,
        *,
        tokens: bool = False,
        hidden: Natural | None = None,
        batch_tokens: Count = 16384,
        **options: Any,
    ) -> FileFeatures | list[FileFeatures]:
        """Encodes inputs; a list is packed into rows together, and the result of each is independent of the others.

        Args:
            inputs: what `ove.read` returned, or anything that it reads (path, bytes, file object, URL, uint8 array), which is
                then read as the encoder was trained; or a list of these.
            tokens: also return the token of every patch.
            hidden: also return the tokens after this many blocks.
            batch_tokens: tokens that go through the encoder at a time.
            **options: of `ove.read`, such as ``budget=512``, for inputs that are still to be read; each is for those whose
                mode has it, and refused if none does.

        Returns:
            For each input ``.pooled`` (D,), one embedding (None for weights without a pooling head), ``.tokens`` and
            ``.hidden`` (N, D) where asked for, float32, and ``.seen``, the patches and positions. A list for a list.

        Raises:
            BadClip, BadInput, Unavailable: see `ove.read`.
        """
        several = isinstance(inputs, (list, tuple))
        read = self._inputs(list(inputs) if several else [inputs], options)
        found = list(self._encoded([one.tokens for one in read], tokens, hidden, batch_tokens))
        return found if several else found[0]

    def _inputs(self, given: list[Any], options: dict[str, Any]) -> list[EncoderInput]:
        options, unused = dict(options), []  # type: ignore[var-annotated]
        mode = options.pop("mode", "auto")
        read = []
        for source in given:
            if not isinstance(source, EncoderInput):
                source = read_as(source, self.inputs, options, mode, called="inputs", unused=unused)
            elif options or mode != "auto":
                named = ", ".join([*options, *(["mode"] if mode != "auto" else [])])
                raise ConfigError(f"{source.name}: has been read already; give {named} to ove.read.")
            else:
                self._compare(source)
            read.append(source)
        for name in options if unused else ():
            if all(name in sentences for sentences in unused):
                raise ConfigError(unused[0][name])
        return read

    def _compare(self, source: EncoderInput) -> None:
        """Says what an input is otherwise than in training."""
        told = "; ".join(differs_from_training(self.weights.inputs, source.config)) if self.weights.inputs else ""
        if told:
            self._tell(f"{self.name} was trained on other inputs than {source.name}: {told}")

    def _encoded(self, items: list[Tokens], tokens: bool, hidden: int | None, batch_tokens: int) -> Iterator[FileFeatures]:
        others = tokens or hidden is not None
        outputs = Outputs(self.config.pooling_head or not others, tokens, hidden)
        lengths = [len(item.patches) for item in items]
        if not lengths:
            return iter(())
        equal = min(lengths) == max(lengths)
        return encode_sequences(self.weights, items, outputs, longest=max(lengths), batch_tokens=batch_tokens, equal=equal)


@arguments()
def load(
    name: str | os.PathLike[str], *, revision: str | None = None, compute: Literal["float32", "bfloat16"] = "float32"
) -> Model:
    """Loads a trained encoder.

    Args:
        name: a model on the Hugging Face hub (``"lmms-lab-encoder/onevision-encoder-large"``), which is downloaded once; a
            folder or file of published weights; or the folder of a training run, whose newest checkpoint is used.
        revision: branch, tag or commit on the hub; not for paths.
        compute: dtype of activations; parameters are float32.

    Returns:
        The encoder; call it with videos and pictures.

    Raises:
        BadCheckpoint: if there is no such encoder, or its files are damaged.
        ConfigError: for a ``revision`` of a path, or one that is not the one after ``@``.
        Unavailable: if it is not on the hub, or the hub cannot be reached.

    Examples:
        >>> model = ove.load("runs/mine")
        >>> model("video.mp4").pooled.shape
        (64,)
        >>> [out.pooled.shape for out in model(["video.mp4", "photo.jpg"])]
        [(64,), (64,)]
    """
    given = path_given(name, "name", "the name of a model on the hub, or the path of weights or of a run")
    if uri_of(given) is None:
        local_path(given, "name", "weights are read")
    if not is_on_hub(given):
        local_path(given, "name", "weights are read")
        refuse({"revision": revision}, "models on the hub", f"{given} is a path")
    return Model(open_weights(given, compute, revision), given)
