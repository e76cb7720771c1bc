"""Samples to train on and to score on: the same ones are refused, some in both are counted and said."""

import logging
import os
from collections.abc import Sequence

from ove.errors import BadInput
from ove.shards.joined import Shards, sets_of

_log = logging.getLogger("ove")


def check_apart(names: Sequence[Sequence[str]]) -> int:
    """Returns how many files are in both of two lists, links followed; 0 for one list, BadInput if the lists hold the same.

    The same contents in a file of another name are not found.
    """
    if len(names) < 2:
        return 0
    train, val = ({os.path.realpath(name) for name in each} for each in names)
    if train == val:
        raise BadInput(f"train and val hold the same {len(val)} files; give others to score on, or leave val out.")
    return _said(len(train & val), len(val), "files")


def check_sets_apart(train: Shards, val: Shards) -> int:
    """Returns how many records are in shards that both sets hold; BadInput if they hold the same shards.

    A file whose record was written into different shards is not found.
    """
    of_train, of_val = (
        {shard.sha256: shard.records for part in sets_of(shards) for shard in part.manifest.shards} for shards in (train, val)
    )
    if of_train.keys() == of_val.keys():
        raise BadInput(f"{train.folder} and {val.folder} hold the same {len(val)} records; give other shards to score on.")
    return _said(sum(count for name, count in of_val.items() if name in of_train), len(val), "records")


def _said(n_shared: int, n_val: int, what: str) -> int:
    if n_shared:
        _log.warning("%d of the %d %s to score on are also trained on; the score is too good", n_shared, n_val, what)
    return n_shared
