"""Records → a shard, shards → a finished folder: each file whole or not at all, the manifest last."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter

from ove.errors import BadClip, BadShard
from ove.files import atomic_write, sha256_of
from ove.shards.index import write_index
from ove.shards.manifest import MANIFEST, Manifest, Shard, fingerprint_of_shards, write_manifest
from ove.shards.markers import BankLabels, Form, Group, marker_path, merged_labels, shard_path, write_group
from ove.shards.schema import Record, VideoRecord, kind_of, pack
from ove.sources.quarantine import QUARANTINE, BadFile, write_quarantine


@dataclass(frozen=True)
class WriteSummary:
    """A finished folder."""

    n_good: int
    bad: list[BadFile]
    n_shards: int
    n_earlier: int
    """Files, good and bad, that an earlier run had finished."""
    fingerprint: str


@dataclass(frozen=True)
class Packed:
    """One record as bytes, with what goes into the manifest."""

    data: bytes
    key: str
    label: str | None
    banks: dict[str, BankLabels]
    form: Form


def packed(record: Record, centers: Mapping[str, int]) -> Packed:
    """Packs a record for a shard; BadClip for a label not below the number of centers of its bank."""
    banks = {bank: BankLabels(1, len(found), len(found), int(found.max())) for bank, found in record.labels.items()}
    for bank, found in banks.items():
        if found.largest >= centers.get(bank, found.largest + 1):
            raise BadClip(
                f"{record.key}: has the label {found.largest} of the bank {bank}, which has the {centers[bank]} centers "
                f"0…{centers[bank] - 1}; correct the label or shards.centers_{bank}."
            )
    form = Form(kind_of(record))
    if isinstance(record, VideoRecord):
        form = Form("video", record.size_px, record.patch_px, record.grid_tyx, record.forms)
    return Packed(pack(record), record.key, record.label, banks, form)


def finish_group(out: Path, n: int, inputs: str, outcomes: Sequence[Packed | BadFile]) -> Group:
    """Writes the shard of a group, then its marker."""
    good = [o for o in outcomes if isinstance(o, Packed)]
    bad = [o for o in outcomes if isinstance(o, BadFile)]
    marker_path(out, n).unlink(missing_ok=True)
    path = shard_path(out, n)
    shard = None
    if good:
        with atomic_write(path) as temporary:
            # One record a chunk, so that no other is read with it; uncompressed, as JPEG and H.264 do not shrink further.
            writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            for outcome in good:
                writer.write(outcome.data)
            writer.close()
            shard = Shard(path.name, len(good), temporary.stat().st_size, sha256_of(temporary))
    else:
        path.unlink(missing_ok=True)
    classes = sorted({o.label for o in good if o.label is not None})
    form, banks = _common_form(o.form for o in good), merged_labels(o.banks for o in good)
    done = Group(inputs, shard, form, classes, banks, bad, [(o.key, o.label) for o in good])
    write_group(out, n, done)
    return done


def finish_folder(
    out: Path, groups: Sequence[Group], bad: Sequence[BadFile], centers: Mapping[str, int], made_with: Mapping[str, Any]
) -> Manifest:
    """Writes the quarantine list, the index and, last, the manifest; `bad` are inputs that are in no group.

    BadClip, and no manifest, if no group has a record.
    """
    every = [*bad, *(entry for group in groups for entry in group.bad)]
    write_quarantine(out / QUARANTINE, every)
    shards = [group.shard for group in groups if group.shard is not None]
    form = _common_form(group.form for group in groups if group.form is not None)
    if form is None:
        (out / MANIFEST).unlink(missing_ok=True)
        reason = f"; the first: {every[0].reason}" if every else ""
        raise BadClip(f"none of the {len(every)} inputs is usable (reasons in {out / QUARANTINE}){reason}")
    records = sum(shard.records for shard in shards)
    banks = merged_labels(group.banks for group in groups)
    manifest = Manifest(
        shards=shards,
        records=records,
        kind=form.kind,
        size_px=form.size_px,
        patch_px=form.patch_px,
        grid_tyx=form.grid_tyx,
        forms=list(form.forms),
        mosaics=made_with.get("mosaics") if "mosaics" in form.forms else None,
        classes=sorted({label for group in groups for label in group.classes}),
        banks={bank: centers.get(bank, found.largest + 1) for bank, found in banks.items()},
        labels_per_record={bank: (b.fewest if b.records == records else 0, b.most) for bank, b in banks.items()},
        made_with=dict(made_with),
        fingerprint=fingerprint_of_shards(shards),
        index=write_index(out, [group.names for group in groups if group.shard is not None]),
    )
    write_manifest(out, manifest)
    return manifest


def _common_form(forms: Iterable[Form]) -> Form | None:
    found = set(forms)
    if len(found) > 1:
        raise BadShard(f"records of one set differ: {' and '.join(sorted(map(str, found)))}; make them alike.")
    return found.pop() if found else None
