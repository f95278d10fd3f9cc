"""The plugin's cache: within its limit, and never without a folder that somebody was given."""

import os
import time
from pathlib import Path

import pytest
import tiny

from lorasmith_vllm.cache import Cache, CacheFull

HOLD = (
    "import sys, time; from pathlib import Path; from lorasmith_vllm.cache import Cache\n"
    "cache = Cache(Path(sys.argv[1]), 10**9)\n"
    "print(cache.hold(sys.argv[2]), flush=True); time.sleep(60)"
)
COMING = (
    "import sys, time; from pathlib import Path; from lorasmith_vllm.cache import Cache\n"
    "with Cache(Path(sys.argv[1]), 10**9).coming(900) as place:\n"
    "    print(place, flush=True); time.sleep(60)"
)


def put(cache: Cache, name: str, size: int) -> Path:
    with cache.coming(size) as place:
        place.mkdir()
        (place / "adapter_model.safetensors").write_bytes(bytes(size))
        path = cache.take(name, place)
    os.utime(path, ns=(0, 0))  # longest unused
    return path


def present(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_an_adapter_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1000)
    assert cache.hold("one") is None
    with pytest.raises(OSError, match="lost"), cache.coming(10) as place:
        place.mkdir()
        (place / "half").write_bytes(b"x")
        raise OSError("lost")
    assert present(tmp_path / "cache") == [] and cache.hold("one") is None
    path = put(cache, "one", 10)
    assert path == tmp_path / "cache" / "one" == cache.hold("one")
    assert [file.name for file in path.iterdir()] == ["adapter_model.safetensors"]


def test_who_comes_second_gets_what_is_there(tmp_path: Path) -> None:
    first, second = Cache(tmp_path, 1000), Cache(tmp_path, 1000)
    with second.coming(10) as place:
        place.mkdir()
        path = put(first, "one", 10)
        inode = path.stat().st_ino
        assert second.take("one", place) == path
    assert path.stat().st_ino == inode and present(tmp_path) == ["one"]


def test_the_longest_unused_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    writer = Cache(tmp_path, 1000)
    for n, name in enumerate(("old", "older", "held", "new")):
        os.utime(put(writer, name, 300 if name != "new" else 100), ns=(n, n))
        writer.release(name)
    os.utime(tmp_path / "older", ns=(0, 0))
    os.utime(tmp_path / "old", ns=(1, 1))
    reader = Cache(tmp_path, 1000)
    assert reader.hold("held")
    os.utime(tmp_path / "held", ns=(0, 0))
    with reader.coming(200):
        assert present(tmp_path)[1:] == ["held", "new", "old"]
    with reader.coming(700):
        assert present(tmp_path)[1:] == ["held"]
    with pytest.raises(CacheFull), reader.coming(701):
        pass
    assert present(tmp_path) == ["held"]


def test_what_is_coming_takes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    with cache.coming(600):
        with pytest.raises(CacheFull), Cache(tmp_path, 1000).coming(500):
            pass
        with cache.coming(400):
            pass
    with cache.coming(1000):
        pass


def test_another_process_keeps_what_it_holds_until_it_ends(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    put(cache, "one", 900)
    cache.release("one")
    process = tiny.start_python(HOLD, str(tmp_path), "one")
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(tmp_path / "one")
    with pytest.raises(CacheFull), cache.coming(500):
        pass
    process.kill()
    process.wait()
    with cache.coming(500):
        assert len(present(tmp_path)) == 1


def test_a_download_of_a_killed_process_makes_room(tmp_path: Path) -> None:
    process = tiny.start_python(COMING, str(tmp_path))
    assert process.stdout is not None
    process.stdout.readline()
    cache = Cache(tmp_path, 1000)
    with pytest.raises(CacheFull), cache.coming(500):
        pass
    process.kill()
    process.wait()
    with cache.coming(500):
        assert len(present(tmp_path)) == 1


def test_holding_an_adapter_makes_it_the_latest(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    path = put(cache, "one", 10)
    assert path.stat().st_mtime == 0
    cache.hold("one")
    assert time.time() - path.stat().st_mtime < 60
