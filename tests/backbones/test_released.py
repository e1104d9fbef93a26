"""The list of published files, and how one comes here: whole and the right one, or not at all with what to do."""

import hashlib
import resource
import signal

import pytest

from backbones import BackboneError, WeightsFileError, find_architecture
from backbones.__main__ import main
from backbones.weights import download
from backbones.weights.files import open_weights
from backbones.weights.released import fetch, find_released, released
from tests.backbones.file_server import serving

NAME = "a2mim-r50-300e"
FILE = "full_a2mim_r50_l3_sz224_init_8xb256_cos_ep300.pth"
CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def there(tmp_path, monkeypatch):
    """(server, its folder, the cache), with NAME's file on the server."""
    folder, cache = tmp_path / "server", tmp_path / "cache"
    folder.mkdir()
    (folder / FILE).write_bytes(CONTENT)
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    monkeypatch.setenv("MIM_CACHE", str(cache))
    with serving(folder) as server:
        monkeypatch.setenv("MIM_RELEASED_URL", server.url)
        yield server, folder, cache


def refused(name: str = NAME) -> str:
    with pytest.raises(WeightsFileError) as caught:
        fetch(name)
    assert caught.value.exit_code == 5
    return str(caught.value)


def test_a_file_is_fetched_once_and_its_hash_kept(there, capsys):
    server, _, cache = there
    assert fetch(NAME) == cache / FILE
    assert (cache / FILE).read_bytes() == CONTENT
    assert (cache / f"{FILE}.sha256").read_text().split() == [hashlib.sha256(CONTENT).hexdigest(), FILE]
    assert capsys.readouterr().err == f"fetching {FILE}, 1 MB\n"
    server.status = 500
    assert main(["released", "--fetch", f"released:{NAME}"]) == 0
    assert capsys.readouterr().out == f"{cache / FILE}\n"
    assert len(server.ranges) == 1
    assert sorted(path.name for path in cache.iterdir()) == [f".{FILE}.lock", FILE, f"{FILE}.sha256"]


def test_a_cut_connection_is_taken_up_where_it_stopped(there):
    server, _, _ = there
    server.cut_after, server.cuts = 300_000, 2
    assert fetch(NAME).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_an_answer_without_a_length_is_not_taken_for_whole_where_it_was_cut(there):
    server, _, _ = there
    server.chunked, server.cut_after, server.cuts = True, 300_000, 2
    assert fetch(NAME).read_bytes() == CONTENT


def test_a_folder_that_others_fill_is_read_without_a_lock(there):
    server, _, cache = there
    (cache / f".{FILE}.lock").mkdir(parents=True)
    (cache / FILE).write_bytes(CONTENT)
    assert fetch(NAME) == cache / FILE
    assert server.ranges == []


def test_what_came_before_the_connection_went_is_used_by_the_next_command(there):
    server, _, _ = there
    server.cut_after, server.cuts = 100_000, 99
    message = refused()
    assert "the transfer ended after 300,000 of 1,024,000 bytes. The same command continues" in message
    server.cuts = 0
    assert fetch(NAME).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=300000-"


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(there):
    server, folder, _ = there
    server.cut_after, server.cuts = 100_000, 3
    refused()
    (folder / FILE).write_bytes(CONTENT[::-1])
    assert fetch(NAME).read_bytes() == CONTENT[::-1]


def test_more_here_than_there_begins_again(there):
    _, _, cache = there
    cache.mkdir()
    (cache / f"{FILE}.partial").write_bytes(bytes(2_000_000))
    assert fetch(NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("gone", "the server answers 404 Not Found"),
        ("broken", "the server answers 503 Service Unavailable."),
        ("page", "the server sends a web page instead of the file"),
        ("no network", "cannot be reached: [Errno 111] Connection refused"),
        ("no name", "cannot be reached"),
    ],
)
def test_what_keeps_a_file_away_is_said_with_the_place_to_put_it(trouble, said, there, monkeypatch):
    server, folder, cache = there
    server.page, server.status = trouble == "page", 503 if trouble == "broken" else 200
    if trouble == "gone":
        (folder / FILE).unlink()
    if trouble.startswith("no "):
        place = "http://127.0.0.1:9" if trouble == "no network" else "http://nowhere.invalid"
        monkeypatch.setenv("MIM_RELEASED_URL", place)
    message = refused()
    assert said in message and f"put the file of {find_released(NAME).url} at {cache / FILE}" in message
    assert [path.name for path in cache.iterdir()] == [f".{FILE}.lock"]
    (cache / FILE).write_bytes(CONTENT)
    assert fetch(NAME) == cache / FILE


def test_a_file_that_only_a_browser_can_fetch_says_so(there, monkeypatch):
    _, _, cache = there
    monkeypatch.delenv("MIM_RELEASED_URL")
    message = refused("spark-r50-1600e")
    assert "only a browser" in message and "drive.google.com" in message
    assert f"at {cache / 'resnet50_1kpretrained_timm_style.pth'}" in message


def test_another_file_than_the_published_one_is_removed(there):
    _, folder, cache = there
    entry = find_released("mae-vit_base")
    (folder / entry.file).write_bytes(CONTENT)
    assert "is not the published file: its md5 begins with" in refused("mae-vit_base")
    assert not (cache / entry.file).exists() and not (cache / f"{entry.file}.sha256").exists()
    (cache / entry.file).write_bytes(CONTENT)  # put there by hand
    assert ", not 8cad7c. Remove it" in refused("mae-vit_base")


def test_a_file_that_changed_since_its_first_use_is_refused(there):
    _, folder, cache = there
    fetch(NAME)
    (cache / FILE).write_bytes(CONTENT[:-1] + b"!")
    assert "is not that of its first use" in refused()
    (cache / FILE).unlink()
    (folder / FILE).write_bytes(CONTENT + b"!")
    assert "gave is not that of its first use" in refused()
    assert not (cache / FILE).exists()


def test_a_full_disk_leaves_no_file_under_its_name(there, monkeypatch):
    _, _, cache = there
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        assert "partial cannot be written: File too large" in refused()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not (cache / FILE).exists()
    assert fetch(NAME).read_bytes() == CONTENT
    (cache / FILE).unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert "1,024,000 bytes are to come, 1,000 are free" in refused()


def test_a_cache_that_cannot_be_used_is_named(there, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIM_CACHE", str(tmp_path / "file"))
    assert "name another in MIM_CACHE" in refused()


def test_names_that_are_none_and_files_without_weights_are_refused(there, capsys):
    with pytest.raises(BackboneError, match="nearest: a2mim-r50-300e"):
        open_weights("released:a2mim-r50-300")
    with pytest.raises(WeightsFileError, match="holds no weights: it is A2MIM, ResNet-50, log of the fine-tuning"):
        open_weights("released:a2mim-r50-300e-ft-a2-log")
    assert main(["released", "nothing-*"]) == 2
    assert "no released file is called 'nothing-*'" in capsys.readouterr().err


# --- the list


def test_every_line_names_a_file_a_licence_and_a_network_that_exists():
    entries = released().values()
    assert len(entries) == len({entry.file for entry in entries}) == len({entry.url for entry in entries})
    for entry in entries:
        assert entry.what and entry.file and entry.url.startswith("https://") and entry.licence, entry.name
        assert entry.kind in ("whole", "encoder", "classifier", "log", "pictures")
        assert entry.model or entry.note or not entry.is_weights, entry.name
        assert not entry.top1 or 30 < float(entry.top1) < 90
        if entry.model:
            find_architecture(entry.model)


def test_the_list_is_printed_with_numbers_and_notes(capsys):
    assert main(["released", "a2mim-r101-*", "--weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["a2mim-r101-300e", "a2mim-r101-800e", "a2mim-r101-300e-ft-a2"]
    assert lines[1].split()[1:7] == ["whole", "r101", "300", "81.9", "rsb-a2", "Apache-2.0"]
    assert "a2mim-r101-800e: no number is published for it" in lines
