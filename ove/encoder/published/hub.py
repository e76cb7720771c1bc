"""Weights by their name on the Hugging Face hub, `organisation/model`: downloaded once, verified, read from the local cache."""

import importlib
import os
import re
from pathlib import Path
from typing import Any

from ove.errors import BadCheckpoint, ConfigError, Unavailable
from ove.files import sha256_of

_FILES = ("*.json", "*.safetensors")
"""What is downloaded of a model: never code, never pickles."""
_NAME = re.compile(r"(?:hf:/{1,2})?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def local_weights(name: Path | str, revision: str | None = None) -> Path:
    """Returns where weights lie on this machine: a path as it is (`~` expanded), a hub name as its downloaded snapshot.

    A hub name is ORGANISATION/MODEL, with `@REVISION` for a branch, tag or commit, and `hf://` before it to tell it from a
    folder of that name. A download that was cut off is resumed; files are compared with the hub's SHA-256 sums. The cache,
    tokens and HF_HUB_OFFLINE are huggingface_hub's own. Unavailable if it cannot be had, BadCheckpoint if it is damaged.
    """
    path = Path(name).expanduser()
    found = _NAME.fullmatch(str(name))
    if found is None or path.exists():
        return path
    if revision and found["revision"] not in (None, revision):
        raise ConfigError(f"revision = {revision!r}, but the name says @{found['revision']}; give one of the two.")
    return _snapshot(found["repo"], revision or found["revision"])


def is_on_hub(name: Path | str) -> bool:
    """Returns whether weights are looked for on the hub: by their name, and because there is no such path here."""
    return _NAME.fullmatch(str(name)) is not None and not Path(name).expanduser().exists()


def _snapshot(repo: str, revision: str | None) -> Path:
    hub: Any = importlib.import_module("huggingface_hub")  # takes half a second, which only names on the hub need
    errors: Any = importlib.import_module("huggingface_hub.errors")
    at = f"{repo} (revision {revision})" if revision else repo
    try:
        folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=list(_FILES)))
    except errors.GatedRepoError as error:
        raise Unavailable(f"{at}: access must be asked for at https://hf.co/{repo}, then run `hf auth login`.") from error
    except errors.RevisionNotFoundError as error:
        raise Unavailable(f"{at}: the model has no such branch, tag or commit; check the revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise Unavailable(
            f"{at}: is neither a file or folder here nor a model on the hub; check the name (ORGANISATION/MODEL), or run "
            "`hf auth login` for a private one."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise Unavailable(
            f"{at}: no such file or folder here, not in the cache of the hub, and {_why_not(hub, error)}, or download it "
            f"elsewhere with `hf download {repo}`."
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError) as error:
        raise Unavailable(f"{at}: could not be downloaded ({_brief(error)}); run the same again to resume.") from error
    for file in sorted(folder.glob("*.safetensors")):
        _verify(file, repo)
    return folder


def _why_not(hub: Any, error: BaseException) -> str:
    """Returns why the hub was not reached, and what to do: offline by a variable, or no network."""
    set_ = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
    if hub.constants.HF_HUB_OFFLINE:
        return f"{' and '.join(set_) or 'HF_HUB_OFFLINE'} forbids to ask the hub; unset it"
    return f"the hub cannot be reached ({_brief(error)}); connect to the network"


def _verify(file: Path, repo: str) -> None:
    """Compares a large file with its SHA-256 sum, after which the hub's cache names it; BadCheckpoint if it differs."""
    expected = file.resolve().name
    if not _SHA256.fullmatch(expected):
        return
    if sha256_of(file) != expected:
        raise BadCheckpoint(
            f"{file}: is damaged (its SHA-256 sum is not that of {repo} on the hub); delete {file.resolve()} and try again."
        )


def _brief(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    said = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
