"""Shard folders at URIs: what is fetched, when, how often, and what is said when it cannot be."""

import gc
import json
import multiprocessing
import os
import pickle
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry
from remote_servers import Server, serving

from ove.config import RemoteConfig
from ove.errors import BadShard, ConfigError, Unavailable
from ove.paths import uri_of
from ove.shards.labels import read_centers, read_labels, write_labels
from ove.shards.remote import cache
from ove.shards.remote import remote_shards as remote
from ove.shards.remote.remote_shards import join, local_file, local_folder
from ove.shards.remote.remote_shards import pause_s as remote_pause_s
from ove.shards.shard_set import ShardSet
from ove.shards.verify import verify


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, one attempt, and a time limit of half a second."""
    monkeypatch.setenv("OVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OVE_TIMEOUT_S", "0.5")
    monkeypatch.setenv("OVE_ATTEMPTS", "1")
    return tmp_path / "cache"


@pytest.fixture
def server(shard_folder: Path, tmp_path: Path, cache_folder: Path) -> Iterator[Server]:
    """A server of a copy of the shards, which a test may change."""
    shutil.copytree(shard_folder, tmp_path / "served")
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def in_memory(shard_folder: Path, cache_folder: Path) -> Iterator[str]:
    """The URI of the shards in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    memory.put(str(shard_folder), "/remote/set", recursive=True)
    yield "memory://remote/set"
    memory.rm("/remote", recursive=True)


def test_uris_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:" / "name").mkdir(parents=True)
    assert uri_of("s3://bucket/a/b") == uri_of(Path("s3://bucket/a/b")) == "s3://bucket/a/b"
    assert uri_of(Path("https://host/a")) == "https://host/a"
    assert [uri_of(path) for path in ("a/b", "/a/b", Path("odd:/name"), "file:///a", "C:/a", ".")] == [None] * 6
    assert local_folder("file:///a/b") == Path("/a/b")
    assert join("s3://bucket/a/", "x.json") == "s3://bucket/a/x.json"
    assert join("https://host/a?token=1", "labels/x") == "https://host/a/labels/x?token=1"


def test_records_and_labels_are_those_of_the_local_folder(in_memory: str, shard_folder: Path) -> None:
    local, remote = ShardSet.open(shard_folder), ShardSet.open(Path(in_memory))
    assert remote.fingerprint == local.fingerprint
    assert [remote.bytes_at(i) for i in range(len(local))] == [local.bytes_at(i) for i in range(len(local))]
    assert (read_labels(Path(in_memory), "vid").labels == read_labels(shard_folder, "vid").labels).all()
    assert (read_centers(remote.folder, "obj") == read_centers(shard_folder, "obj")).all()
    assert not verify(in_memory).problems
    with pytest.raises(BadShard, match="is remote"):
        write_labels(remote.folder, "vid", read_labels(shard_folder, "vid").labels, None, {}, 8)


def test_a_shard_is_fetched_once_and_only_when_it_is_read(server: Server) -> None:
    first = ShardSet.open(server.url)
    assert server.asked == ["manifest.json"]
    for index in (0, 1, 20, 0):
        first.record(index)
    again = pickle.loads(pickle.dumps(ShardSet.open(server.url)))
    again.record(3)
    assert sorted(server.asked) == ["manifest.json", "manifest.json", "shard-00000.arrayrecord", "shard-00002.arrayrecord"]


def test_threads_that_want_the_same_shard_share_one_transfer(server: Server, shard_folder: Path) -> None:
    shards, local = ShardSet.open(server.url), ShardSet.open(shard_folder)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shards.bytes_at, range(len(shards))))
    assert found == [local.bytes_at(i) for i in range(len(local))]
    assert sorted(server.asked)[1:] == [shard.file for shard in local.manifest.shards]


def _keys(url: str) -> list[str]:
    shards = ShardSet.open(url)
    return [shards.record(i).key for i in range(len(shards))]


def test_processes_that_want_the_same_shards_share_the_cache(server: Server, shard_folder: Path) -> None:
    local = ShardSet.open(shard_folder)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(_keys, [server.url] * 4, chunksize=1)
    assert found == [[local.record(i).key for i in range(len(local))]] * 4
    assert sorted(name for name in server.asked if name != "manifest.json") == [s.file for s in local.manifest.shards]


def test_a_folder_that_was_changed_is_read_anew(server: Server, shard_folder: Path) -> None:
    before = ShardSet.open(server.url)
    labels = read_labels(before.folder, "vid").labels
    manifest = json.loads((server.folder / "manifest.json").read_text())
    (server.folder / "manifest.json").write_text(json.dumps({**manifest, "classes": ["other"]}))
    after = ShardSet.open(server.url)
    assert after.folder != before.folder and after.classes == ["other"] and before.classes == manifest["classes"]
    write_labels(server.folder, "vid", labels[:, ::-1].copy(), None, {}, 8)
    assert (read_labels(before.folder, "vid").labels == labels[:, ::-1]).all()
    shutil.rmtree(server.folder / "labels")
    with pytest.raises(BadShard, match="no labels of the bank vid"):
        read_labels(before.folder, "vid")


@pytest.mark.parametrize(
    ("trick", "error", "words"),
    [
        ("hang", Unavailable, "timed out: 0 bytes came in 0.5 s"),
        ("trickle", Unavailable, "timed out"),
        ("cut", Unavailable, "could not be fetched"),
        ("500", Unavailable, "500"),
        ("403", Unavailable, "may not be read.*give credentials"),
        (b"something else", Unavailable, "broke off after 14 of"),
        (bytes(1 << 20), BadShard, "is not what was written there"),
    ],
)
def test_a_shard_that_does_not_arrive_is_named(
    server: Server, cache_folder: Path, trick: str | bytes, error: type[Exception], words: str
) -> None:
    shards = ShardSet.open(server.url)
    server.tricks["00001.arrayrecord"] = trick
    start = time.monotonic()
    with pytest.raises(error, match=f"{server.url}/shard-00001.arrayrecord.*{words}"):
        shards.record(8)
    assert time.monotonic() - start < 20  # the server would hang for 30
    asked = len(server.asked)
    with pytest.raises(error):
        shards.record(9)
    assert len(server.asked) == asked, "a shard that failed is not asked for again by every record"
    assert shards.record(0).key == "0000"
    assert not [
        path for path in cache_folder.rglob("*") if path.name.endswith(".tmp") or path.name == "shard-00001.arrayrecord"
    ]
    server.tricks.clear()
    assert ShardSet.open(server.url).record(8).key == "0008"


def test_a_transfer_that_breaks_off_is_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVE_ATTEMPTS", "2")
    shards = ShardSet.open(server.url)
    server.tricks["00000.arrayrecord"] = "cut"
    with pytest.raises(Unavailable):
        shards.record(0)
    assert server.asked.count("shard-00000.arrayrecord") == 2


def test_each_attempt_waits_longer_than_the_one_before(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVE_ATTEMPTS", "4")
    waited: list[float] = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(remote, "pause_s", lambda attempt: remote_pause_s(attempt, lambda: 1.0))
    shards = ShardSet.open(server.url)
    assert waited == [], "nothing is waited for where the first attempt succeeds"
    server.tricks["00000.arrayrecord"] = "cut"
    with pytest.raises(Unavailable):
        shards.record(0)
    assert waited == [0.5, 1.0, 2.0], "nor after the last one"


def test_pauses_double_up_to_a_limit_and_are_drawn_from_their_upper_half() -> None:
    assert [remote_pause_s(attempt, lambda: 1.0) for attempt in (1, 2, 3, 6, 7, 50)] == [0.5, 1.0, 2.0, 16.0, 30.0, 30.0]
    assert [remote_pause_s(attempt, lambda: 0.0) for attempt in (1, 2, 50)] == [0.25, 0.5, 15.0]
    assert remote_pause_s(3, lambda: 0.5) == 1.5
    assert len({remote_pause_s(1) for _ in range(20)}) == 20, "two processes do not wait equally long"


def test_records_of_a_lost_shard_keep_nothing_alive(server: Server) -> None:
    shards = ShardSet.open(server.url)
    server.tricks["00001.arrayrecord"] = bytes(1 << 20)

    class Batch:
        """Stands in for the rows that are being filled when a record cannot be read."""

    def fill() -> weakref.ref[Batch]:
        batch = Batch()
        try:
            shards.record(8)
        except BadShard as error:
            assert "is not what was written there" in str(error)
        return weakref.ref(batch)

    left = [fill() for _ in range(5)]
    gc.collect()
    assert [ref() for ref in left] == [None] * 5


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nothere://bucket/set", "no package knows nothere://"),
        ("memory://nothing/here", "holds no manifest.json"),
        ("{url}/elsewhere", "holds no manifest.json"),
        ("http://127.0.0.1:9/set", "could not be fetched"),
        ("smb://host/set", "run `pip install smbprotocol`"),
    ],
)
def test_an_address_that_is_wrong_is_named(server: Server, uri: str, words: str) -> None:
    uri = uri.format(url=server.url)
    with pytest.raises(Unavailable, match=words) as caught:
        ShardSet.open(uri)
    assert str(caught.value).startswith(uri)


@pytest.mark.parametrize("section", ["made_with", "mosaics"])
def test_a_remote_manifest_cannot_have_code_imported(server: Server, monkeypatch: pytest.MonkeyPatch, section: str) -> None:
    path = server.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {section: {"video": {"rule": "os:abort"}}}))
    with pytest.raises(BadShard, match=rf"{server.url}: names code to import \({section}\.video\.rule = 'os:abort'\)"):
        ShardSet.open(server.url)
    monkeypatch.setenv("OVE_ALLOW_CODE", "1")
    assert len(ShardSet.open(server.url)) == manifest["records"]


def test_damaged_labels_are_refused(server: Server) -> None:
    (stored,) = (server.folder / "labels").glob("vid.labels-*.npy")
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x07")
    with pytest.raises(BadShard, match="is not what was written there"):
        read_labels(Path(server.url), "vid")


def _config(folder: Path, cache_gb: float) -> RemoteConfig:
    folder.mkdir(exist_ok=True)
    return RemoteConfig(folder, cache_gb)


def _fill(folder: Path, name: str, size: int, config: RemoteConfig, age_s: float = 1000) -> Path:
    """A file in a folder of the cache that was last used so long ago."""
    (folder / name).mkdir(exist_ok=True)
    os.close(cache.lease(folder / name))
    cache.keep(folder / name / "file", size, lambda path: path.write_bytes(bytes(size)) and None, config)
    used = time.time() - age_s
    os.utime(folder / name / cache.LEASE, (used, used))
    return folder / name / "file"


def test_the_cache_drops_what_was_used_longest_ago_and_nothing_in_use(tmp_path: Path) -> None:
    config = _config(tmp_path / "cache", 3500e-9)
    old, older, recent = (
        _fill(config.cache, name, 1000, config, age) for name, age in (("old", 2000), ("older", 3000), ("recent", 1))
    )
    _fill(config.cache, "new", 1000, config)
    assert (old.exists(), older.exists(), recent.exists()) == (True, False, True)
    with os.fdopen(cache.lease(config.cache / "old")):
        os.utime(config.cache / "old" / cache.LEASE, (0, 0))
        _fill(config.cache, "newer", 1000, config)
        assert (old.exists(), recent.exists()) == (True, True) and not (config.cache / "new").exists()
        os.utime(config.cache / "newer" / cache.LEASE)
        with pytest.raises(Unavailable, match=r"has no room.*OVE_CACHE_GB"):
            _fill(config.cache, "newest", 1000, config)


def test_room_is_counted_along_and_not_by_looking_at_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(tmp_path / "cache", 1.0)
    _fill(config.cache, "old", 1000, config)
    looked_at: list[Path] = []
    real = cache._bytes_in
    monkeypatch.setattr(cache, "_bytes_in", lambda folder: looked_at.append(folder) or real(folder))
    for number in range(5):
        cache.keep(config.cache / "old" / str(number), 7, lambda path: path.write_bytes(bytes(7)) and None, config)
    cache.keep(config.cache / "old" / "label", 0, lambda path: path.write_bytes(bytes(50)) and None, config)
    cache.keep(config.cache / "old" / "label", 0, lambda path: path.write_bytes(bytes(40)) and None, config, again=True)
    with pytest.raises(OSError, match="broken"):
        cache.keep(config.cache / "old" / "lost", 900, _broken, config)
    assert not looked_at
    assert json.loads((config.cache / ".sizes.json").read_text()) == {"old": 1000 + 5 * 7 + 40} == {"old": _all_bytes(config)}
    (config.cache / ".sizes.json").write_text('{"old": 10')  # cut off by a crash
    _fill(config.cache, "new", 5, config)
    assert json.loads((config.cache / ".sizes.json").read_text()) == {"old": 1075, "new": 5}


def _broken(path: Path) -> None:
    raise OSError("broken")


def _all_bytes(config: RemoteConfig) -> int:
    return sum(path.stat().st_size for path in config.cache.rglob("*") if path.is_file() and path.parent != config.cache)


def test_a_count_that_is_too_large_is_made_anew_before_a_file_is_refused(tmp_path: Path) -> None:
    config = _config(tmp_path / "cache", 2e-6)
    (config.cache / "set").mkdir()
    (config.cache / ".sizes.json").write_text('{"set": 1900, "gone": 5000}')
    assert _fill(config.cache, "set", 1000, config).exists()
    assert json.loads((config.cache / ".sizes.json").read_text()) == {"set": 1000}


def test_a_link_in_the_cache_is_not_followed_out_of_it(tmp_path: Path) -> None:
    config = _config(tmp_path / "cache", 1.0)
    (config.cache / "set").mkdir()
    (tmp_path / "home").mkdir()
    (config.cache / "set" / "labels").symlink_to(tmp_path / "home")
    with pytest.raises(Unavailable, match="labels: leads out of the cache"):
        cache.keep(config.cache / "set" / "labels" / "x", 1, lambda path: path.write_bytes(b"x") and None, config)
    assert not list((tmp_path / "home").iterdir())


def test_a_label_file_that_is_fetched_again_is_there_all_the_time(server: Server) -> None:
    folder = local_folder(server.url)
    path = local_file(folder, "labels/vid.json")
    missing, ended = [], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            missing.append(not path.exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        local_file(folder, "labels/vid.json")
    ended.set()
    watcher.join()
    assert server.asked.count("labels/vid.json") == 21 and len(missing) > 100 and not any(missing)


def test_a_set_larger_than_the_cache_is_refused_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVE_CACHE_GB", "0.0001")
    with pytest.raises(Unavailable, match=r"its shards take 0.00 GB.*OVE_CACHE_GB"):
        ShardSet.open(server.url)


def test_what_a_killed_process_reserved_is_given_back(tmp_path: Path) -> None:
    config = _config(tmp_path / "cache", 2e-6)
    (config.cache / "set").mkdir()
    (config.cache / "set" / ".gone.lock").write_bytes(bytes(1500))
    (config.cache / "set" / ".file.1.tmp").write_bytes(bytes(10))
    assert _fill(config.cache, "set", 1000, config).exists()
    assert not list((config.cache / "set").glob("*.tmp"))


def test_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = RemoteConfig.from_environment({"OVE_CACHE": "/a", "OVE_CACHE_GB": "2.5", "OVE_ATTEMPTS": "4"})
    assert found == RemoteConfig(Path("/a"), 2.5, 60.0, 4)
    assert RemoteConfig.from_environment({"XDG_CACHE_HOME": "/x"}).cache == Path("/x/ove/shards")
    for variable, value in (("OVE_TIMEOUT_S", "soon"), ("OVE_TIMEOUT_S", "0"), ("OVE_ATTEMPTS", "1.5"), ("OVE_CACHE_GB", "-1")):
        with pytest.raises(ConfigError, match=variable):
            RemoteConfig.from_environment({variable: value})


@pytest.fixture
def google(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server as Google's storage to ArrayRecord; the small files, which gcsfs would fetch, come from its folder."""

    class Google(LocalFileSystem):
        protocol = "gs"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.replace("gs://bucket/set", str(server.folder))

    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", server.url)
    monkeypatch.setitem(_registry, "gs", Google)
    yield server


def test_gs_is_read_in_place(google: Server, shard_folder: Path) -> None:
    local, remote = ShardSet.open(shard_folder), ShardSet.open("gs://bucket/set")
    assert [remote.bytes_at(i) for i in range(len(local))] == [local.bytes_at(i) for i in range(len(local))]
    assert not list(remote.folder.glob("*.arrayrecord")), "nothing is copied"
    assert (read_labels(remote.folder, "vid").labels == read_labels(shard_folder, "vid").labels).all()
    assert not verify("gs://bucket/set").problems


@pytest.mark.parametrize(("trick", "words"), [("hang", "timed out"), ("403", "may not be read"), ("missing", "is not there")])
def test_gs_that_cannot_be_read_is_named(google: Server, trick: str, words: str) -> None:
    shards = ShardSet.open("gs://bucket/set")
    if trick == "missing":
        (google.folder / "shard-00001.arrayrecord").unlink()
    google.tricks["00001.arrayrecord"] = trick
    with pytest.raises(Unavailable, match=f"gs://bucket/set/shard-00001.arrayrecord.*{words}"):
        shards.record(8)
    assert shards.record(0).key == "0000"


def test_gs_that_is_damaged_is_a_bad_shard(google: Server) -> None:
    data = bytearray((google.folder / "shard-00001.arrayrecord").read_bytes())
    data[len(data) // 4] ^= 8
    google.tricks["00001.arrayrecord"] = bytes(data)
    shards = ShardSet.open("gs://bucket/set")
    with pytest.raises(BadShard, match="is damaged"):
        [shards.record(i) for i in range(8, 16)]
