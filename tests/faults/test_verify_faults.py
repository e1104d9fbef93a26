"""`engine.verify` on folders as people have them (F14, F16, F20): names everything, never hangs, leaves nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import verify
from engine.data.images import ImageOptions, index_images, read_image
from engine.errors import DataError
from tests.faults.test_data_faults import BAD_FILES, jpeg_bytes, make_folder
from tests.faults.test_folder_faults import REASONS, add_odd_entries, fill, picture


def run(folder, *options, capsys):
    """(exit code, standard output, standard error) of the command in this process."""
    code = 0
    try:
        verify.main([str(folder), "--num-workers", "1", *map(str, options)])
    except SystemExit as left:
        code = left.code
    output = capsys.readouterr()
    return code, output.out, output.err


def test_pipes_devices_sockets_and_links_are_listed_with_what_they_are(tmp_path, capsys):
    add_odd_entries(fill(tmp_path))
    code, out, err = run(tmp_path, capsys=capsys)
    assert code == 3
    assert dict(line.split(": ", 1) for line in out.splitlines()[:5]) == REASONS
    assert "5 bad images, listed above" in err
    assert "1 (a folder, named like an image): folder.jpg" in out


def test_what_is_left_out_or_read_otherwise_than_expected_is_said(tmp_path, capsys):
    fill(tmp_path)
    (tmp_path / "phone.heic").write_bytes(b"anything")
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (8, 9)).save(tmp_path / "phone.jpg", exif=exif)
    Image.fromarray(np.full((4, 4), 7200, dtype=np.uint16)).save(tmp_path / "thermal.png")
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    code, out, _ = run(tmp_path, capsys=capsys)
    assert code == 0
    assert "1 have an EXIF orientation: read as stored unless --data.exif apply: phone.jpg" in out
    assert "1 have more than 8 bits of grey, of which the upper 8 are used: thermal.png" in out
    assert "1 hold several pictures, of which the first is used: film.gif" in out
    assert "1 file looks like an image and is left out: 1 (.heic, which is not read): phone.heic" in out
    assert out.endswith(f"{tmp_path}: every image that is taken is good (9)\n")


ODD_NAMES = (
    "two\nlines.bmp",
    "#5.bmp",
    '"quoted".bmp',
    " blank.bmp",
    os.fsdecode(b"latin-\xe9.bmp"),
    "back\\slash.bmp",
)


class TestList:
    def test_of_the_bad_ones_is_what_a_run_leaves_out(self, tmp_path, capsys):
        images = fill(tmp_path / "images/train")
        for name in (*ODD_NAMES, "bad.bmp"):
            (images / name).write_bytes(b"no image")
        bad = tmp_path / "bad.txt"
        code, out, _ = run(tmp_path / "images", "--list", bad, capsys=capsys)
        assert code == 3
        assert f"7 paths written to {bad}" in out
        for root in (tmp_path / "images", images):
            assert len(index_images(root, labelled=False, options=ImageOptions(exclude=str(bad)))) == 6
        code, out, _ = run(tmp_path / "images", "--exclude", bad, "--list", bad, capsys=capsys)
        assert code == 0
        assert bad.read_text() == ""

    def test_that_cannot_be_written_is_refused_before_anything_is_read(self, tmp_path, capsys):
        fill(tmp_path, 1)
        code, _, err = run(tmp_path, "--list", tmp_path / "no/list.txt", capsys=capsys)
        assert code == 2
        assert f"there is no folder {tmp_path}/no" in err

    def test_the_largest_picture_is_an_option(self, tmp_path, capsys):
        fill(tmp_path, 1)
        assert run(tmp_path, "--max-pixels", 255, capsys=capsys)[0] == 3
        assert run(tmp_path, "--max-pixels", 256, capsys=capsys)[0] == 0
        assert run(tmp_path, "--max-pixels", 0, capsys=capsys)[0] == 2


class TestHashes:
    def test_odd_names_are_read_back_and_understood_by_sha256sum(self, tmp_path, capsys):
        images, hashes = fill(tmp_path / "images"), tmp_path / "hashes"
        for name in ODD_NAMES:
            (images / name).write_bytes(picture(1))
        for _ in range(2):
            assert run(images, "--hashes", hashes, capsys=capsys)[0] == 0
        assert shutil.which("sha256sum")
        subprocess.run(["sha256sum", "--check", "--quiet", "--strict", hashes], cwd=images, check=True)

    @pytest.mark.parametrize("content", [b"\0\1\2\n", b"z" * 64 + b"  a.bmp\n", None])
    def test_a_list_that_is_none_is_named(self, tmp_path, content, capsys):
        images, hashes = fill(tmp_path / "images", 1), tmp_path / "hashes"
        hashes.mkdir() if content is None else hashes.write_bytes(content)
        code, _, err = run(images, "--hashes", hashes, capsys=capsys)
        assert code == 3
        assert ("the list of hashes cannot be read" if content is None else f"{hashes}:1: expected ") in err


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_reader_process_that_dies_is_said_without_a_guess_at_the_cause(tmp_path, monkeypatch):
    fill(tmp_path)

    monkeypatch.setattr(verify, "check_file", _die)
    with pytest.raises(DataError, match=r"a reader process ended unexpectedly between the images 0\.bmp and 5\.bmp"):
        verify.verify(tmp_path, num_workers=2)


def test_sigterm_ends_it_with_its_readers(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.png", compress_level=1)
    for i in range(1, 1000):  # the same file under many names: decoded for long, and yet written at once
        os.link(tmp_path / "0.png", tmp_path / f"{i}.png")
    command = [sys.executable, "-m", "engine.verify", str(tmp_path), "--num-workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while process.poll() is None and len(readers := children.read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    time.sleep(0.5)
    assert not [pid for pid in readers if Path(f"/proc/{pid}/cmdline").exists() and _alive(pid)]


def _alive(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


class TestF20ChangedBytes:
    @pytest.fixture
    def folder(self, tmp_path):
        return make_folder(tmp_path / "images", 4)

    @pytest.fixture
    def hashes(self, tmp_path):
        return tmp_path / "hashes.txt"

    def test_hashes_find_a_flipped_byte_that_still_decodes(self, folder, hashes):
        assert verify.verify(folder, hashes_path=hashes).bad == []
        assert len(hashes.read_text().splitlines()) == 4
        assert verify.verify(folder, hashes_path=hashes).bad == []

        data = bytearray((folder / "0002.jpg").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "0002.jpg").write_bytes(data)
        read_image(folder / "0002.jpg")  # decodes all the same
        (folder / "0003.jpg").unlink()
        (folder / "0004.jpg").write_bytes(jpeg_bytes())
        reasons = dict(verify.verify(folder, hashes_path=hashes).bad)
        assert reasons.keys() == {"0002.jpg", "0003.jpg", "0004.jpg"}
        assert "its bytes have changed" in reasons["0002.jpg"]
        assert reasons["0003.jpg"] == "in the list of hashes, but not in the folder"
        assert reasons["0004.jpg"] == "not in the list of hashes"

    def test_list_is_that_of_sha256sum(self, folder, hashes):
        verify.verify(folder, hashes_path=hashes)
        done = subprocess.run(["sha256sum", "--check", "--quiet", hashes], cwd=folder, check=False)
        assert done.returncode == 0

    def test_command_writes_compares_and_exits_3(self, folder, hashes, capsys):
        command = [str(folder), "--hashes", str(hashes), "--num-workers", "1"]
        verify.main(command)
        assert f"every image is good (4); hashes written to {hashes}" in capsys.readouterr().out
        (folder / "0001.jpg").write_bytes(jpeg_bytes(99))
        with pytest.raises(SystemExit) as caught:
            verify.main(command)
        assert caught.value.code == 3
        output = capsys.readouterr()
        assert output.out.startswith("0001.jpg: sha256 is ")
        assert output.err.startswith(f"error: {folder}: 1 bad images, listed above")

    def test_hashes_of_a_folder_with_bad_images_are_not_written(self, folder, hashes, capsys):
        (folder / "bad.jpg").write_bytes(BAD_FILES["half.jpg"])
        with pytest.raises(SystemExit):
            verify.main([str(folder), "--hashes", str(hashes), "--num-workers", "1"])
        assert f"{hashes} is not written" in capsys.readouterr().err
        assert not hashes.exists()

    def test_damaged_list_of_hashes_is_refused_with_its_line(self, folder, hashes):
        hashes.write_text("no hash here\n")
        with pytest.raises(DataError, match=f"{hashes}:1: expected '<sha256>  <path>', found 'no hash here'"):
            verify.verify(folder, hashes_path=hashes)
