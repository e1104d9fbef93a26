"""`benchmarks prepare` as a command: what it checks, refuses, completes and downloads."""

import functools
import hashlib
import http.server
import io
import json
import os
import signal
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.prepare import cifar, download, writer
from benchmarks.prepare.catalogue import DATA_SETS
from engine.data.index import index_images
from engine.errors import DataError
from tests.benchmarks import shipped


class TestChecks:
    COUNTS = {"train": 6, "val": 2}  # noqa: RUF012

    def source(self, folder):
        return shipped.write_zip(folder / "tiny-imagenet-200.zip", shipped.tiny_imagenet())

    def test_another_archive_is_refused_by_its_hash_and_taken_on_request(self, tmp_path, prepare):
        source = self.source(tmp_path)
        md5 = hashlib.md5(source.read_bytes()).hexdigest()
        code, said = prepare("tiny-imagenet", source)
        assert code == 3
        assert f"its md5 is {md5}, of Tiny-ImageNet 90528d7ca1a48142e341f4ef8d21d0de is published" in said
        code, said = prepare("tiny-imagenet", source, "--unchecked")
        assert code == 0, said
        assert "train has 6 images instead of 100,000" in said
        state = json.loads((tmp_path / "out/prepared.json").read_text())
        assert state["complete"] and state["differences"]

    def test_a_wrong_archive_leaves_nothing_so_that_the_right_name_may_be_given(self, tmp_path, prepare):
        source = self.source(tmp_path)
        code, said = prepare("cifar10", source, "--unchecked")
        assert (code, "there is no batches.meta" in said) == (3, True)
        assert not (tmp_path / "out").exists()
        code, said = prepare("tiny-imagenet", source, counts=self.COUNTS)
        assert code == 0, said
        (tmp_path / "file").write_text("mine")
        code, said = prepare("tiny-imagenet", source, directory=tmp_path / "file")
        assert (code, "file is no folder: choose another name" in said) == (2, True)
        assert (tmp_path / "file").read_text() == "mine"

    def test_missing_images_are_counted_and_the_same_command_completes_them(self, tmp_path, prepare):
        files = shipped.tiny_imagenet()
        source = shipped.write_folder(tmp_path / "in", {n: d for n, d in files.items() if not n.endswith("_2.JPEG")})
        code, said = prepare("tiny-imagenet", source, "--copy", counts=self.COUNTS)
        assert (code, "train has 4 images instead of 6" in said) == (3, True)
        assert not json.loads((tmp_path / "out/prepared.json").read_text())["complete"]
        before = (tmp_path / "out/train/n01443537/n01443537_0.JPEG").stat().st_mtime_ns
        shipped.write_folder(source, files)
        code, said = prepare("tiny-imagenet", source, "--copy", counts=self.COUNTS)
        assert code == 0, said
        assert (tmp_path / "out/train/n01443537/n01443537_0.JPEG").stat().st_mtime_ns == before
        assert not list((tmp_path / "out").rglob("*.partial"))

    @pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
    @pytest.mark.parametrize("name", ["tiny-imagenet", "food101", "cifar10", "stl10", "imagenet"])
    def test_an_archive_that_ends_early_is_named(self, tmp_path, prepare, name, share):
        if name == "tiny-imagenet":
            source = self.source(tmp_path)
        else:
            files = {
                "food101": shipped.food101,
                "cifar10": lambda: shipped.cifar(b"labels", b"label_names", shipped.CIFAR10_BATCHES)[0],
                "stl10": lambda: shipped.stl10()[0],
                "imagenet": lambda: shipped.devkit() | shipped.imagenet_val(),
            }[name]()
            source = shipped.write_tar(tmp_path / "x.tar.gz", files)
        data = source.read_bytes()
        source.write_bytes(data[: int(share * len(data))])
        code, said = prepare(name, source, "--unchecked", counts={"train": 4, "val": 2})
        assert code == 3
        assert f"error: {source}: " in said
        assert "ends early" in said
        assert "Traceback" not in said

    @pytest.mark.parametrize("source", ["/dev/zero", "pipe", "text"])
    def test_what_is_no_archive_is_named_and_nothing_written(self, tmp_path, prepare, source):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "text").write_text("hello")
        code, said = prepare("cifar10", tmp_path / source, "--unchecked")
        assert code == 3
        assert f"error: {tmp_path / source}: " in said

    def test_a_signal_leaves_with_75_and_nothing_half_written(self, tmp_path, prepare, monkeypatch):
        source, written = self.source(tmp_path), []

        def kill_at_the_third(*arguments):
            written.append(1)
            if len(written) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return link_or_write(*arguments)

        link_or_write = writer._write
        with monkeypatch.context() as patch:
            patch.setattr(writer, "_write", kill_at_the_third)
            code, said = prepare("tiny-imagenet", source, counts=self.COUNTS)
        assert (code, "stopped; the same command goes on from here" in said) == (75, True)
        assert not list((tmp_path / "out").rglob("*.partial"))
        assert prepare("tiny-imagenet", source, counts=self.COUNTS)[0] == 0

    def test_two_writers_of_one_folder_are_refused(self, tmp_path, prepare):
        with writer.only_writer(tmp_path / "out"):
            code, said = prepare("tiny-imagenet", self.source(tmp_path), counts=self.COUNTS)
        assert (code, "another process is writing it" in said) == (2, True)

    def test_label_lists_are_what_a_fraction_draws(self, tmp_path, prepare):
        prepare("tiny-imagenet", self.source(tmp_path), counts=self.COUNTS)
        listed = (tmp_path / "out/labels/10percent.txt").read_text().split()
        assert sorted(path.split("/")[0] for path in listed) == ["n01443537", "n01629819"]
        assert set(listed) < set(index_images(tmp_path / "out/train", labelled=True).paths)

    def test_paths_that_lead_out_and_links_are_not_followed(self, tmp_path, prepare):
        files = shipped.food101()
        files["food-101/images/../../../outside.jpg"] = b"x"
        listed = json.loads(files["food-101/meta/train.json"])
        files["food-101/meta/train.json"] = json.dumps(listed | {"..": ["../outside"]}).encode()
        code, said = prepare(
            "food101", shipped.write_tar(tmp_path / "food-101.tar.gz", files), counts={"train": 4, "val": 2}
        )
        assert not (tmp_path / "outside.jpg").exists()
        assert code in (0, 3), said
        with tarfile.open(tmp_path / "link.tar", "w") as archive:
            link = tarfile.TarInfo("food-101/meta/train.json")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        code, said = prepare("food101", tmp_path / "link.tar", counts={}, directory=tmp_path / "other")
        assert (code, "there is no meta/train.json" in said) == (3, True)


class TestCommand:
    def test_an_unknown_name_names_the_nearest(self, tmp_path, prepare):
        code, said = prepare("cifar", tmp_path)
        assert code == 2
        assert "nearest: cifar10, cifar100" in said

    def test_a_missing_source_says_where_it_comes_from(self, tmp_path, prepare):
        code, said = prepare("cifar10", tmp_path / "none.tar.gz")
        assert code == 3
        assert "CIFAR-10 comes from https://www.cs.toronto.edu/~kriz/cifar.html; --download fetches it" in said

    def test_a_folder_that_holds_something_else_is_left_alone(self, tmp_path, prepare):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.tex").write_text("mine")
        code, said = prepare("cifar10", tmp_path)
        assert (code, "is not empty, and prepare did not begin it" in said) == (2, True)
        (tmp_path / "out/prepared.json").write_text('{"name": "pets"}')
        code, said = prepare("cifar10", tmp_path)
        assert (code, "holds pets: choose another folder" in said) == (2, True)


class _Server(http.server.SimpleHTTPRequestHandler):
    """Answers ranges, as the servers of these data sets do."""

    def do_GET(self):
        data = Path(self.directory, self.path[1:]).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def log_message(self, *_):
        pass


class TestDownload:
    @pytest.fixture
    def server(self, tmp_path):
        handler = functools.partial(_Server, directory=tmp_path / "www")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    def test_only_on_request_and_continued_where_it_stopped(self, tmp_path, prepare, server, monkeypatch):
        (tmp_path / "www").mkdir()
        data = shipped.write_zip(tmp_path / "www/tiny-imagenet-200.zip", shipped.tiny_imagenet()).read_bytes()
        urls = {"tiny-imagenet-200.zip": f"{server}/tiny-imagenet-200.zip"}
        monkeypatch.setitem(DATA_SETS, "tiny-imagenet", replace(DATA_SETS["tiny-imagenet"], urls=urls))
        code, said = prepare("tiny-imagenet", tmp_path / "in", counts=TestChecks.COUNTS)
        assert code == 3
        (tmp_path / "in").mkdir()
        (tmp_path / "in/tiny-imagenet-200.zip.partial").write_bytes(data[:500])
        code, said = prepare("tiny-imagenet", tmp_path / "in", "--download", counts=TestChecks.COUNTS)
        assert code == 0, said
        assert (tmp_path / "in/tiny-imagenet-200.zip").read_bytes() == data

    def test_a_server_that_is_not_there_is_one_line(self, tmp_path):
        with pytest.raises(
            DataError, match=r"127\.0\.0\.1:9/x cannot be reached: .*refused; the same command continues"
        ):
            download.download("http://127.0.0.1:9/x", tmp_path / "x")

    def test_what_needs_an_account_says_where_to_get_it(self, tmp_path, prepare):
        code, said = prepare("imagenet", tmp_path / "in", "--download")
        assert (code, "cannot be downloaded without an account: get it from https://image-net.org" in said) == (2, True)


def test_pictures_are_read_by_the_suite(tmp_path, prepare):
    """The lines that prepare prints as the next commands find what it made."""
    files, _ = shipped.stl10()
    prepare(
        "stl10",
        shipped.write_tar(tmp_path / "stl10_binary.tar.gz", files),
        counts={"train": 4, "val": 2, "unlabelled": 5},
    )
    assert len(index_images(tmp_path / "out/train", labelled=True).classes) == 2
    assert len(index_images(tmp_path / "out/unlabelled", labelled=False)) == 5
    assert Image.open(io.BytesIO(cifar.png(np.zeros((3, 4), np.uint8)))).mode == "L"


def shipped_files(name):
    """{path: bytes} of an unpacked data set."""
    images = shipped.RNG.integers(0, 256, (4, 28, 28), dtype=np.uint8)
    pets, annotations = shipped.pets()
    imagenet = {f"val/{file}": data for file, data in shipped.imagenet_val().items()}
    return {
        "cifar10": lambda: shipped.cifar(b"labels", b"label_names", shipped.CIFAR10_BATCHES)[0],
        "stl10": lambda: shipped.stl10()[0],
        "mnist": lambda: shipped.idx(images, [0, 9, 9, 0], "train") | shipped.idx(images[:2], [9, 0], "t10k"),
        "tiny-imagenet": shipped.tiny_imagenet,
        "food101": shipped.food101,
        "pets": lambda: pets | annotations,
        "imagenet": lambda: imagenet | {"LOC_val_solution.csv": shipped.kaggle_solution()},
        "imagenet100": lambda: imagenet | shipped.devkit(),
    }[name]()


@pytest.mark.parametrize(
    "name", ["cifar10", "stl10", "mnist", "tiny-imagenet", "food101", "pets", "imagenet", "imagenet100"]
)
def test_no_damage_of_a_list_or_table_is_a_crash(tmp_path, name):
    files = shipped_files(name)
    source = shipped.write_folder(tmp_path / "in", files)
    for path in [path for path in files if not path.lower().endswith((".jpg", ".jpeg"))]:
        for damage in (b"", b"\xff\xfe\0 garbage", files[path][:-3], b"\0" * 40, files[path].replace(b"1", b"\xe9")):
            (source / path).write_bytes(damage)
            try:
                writer.write_pictures(tmp_path / "out", DATA_SETS[name].pictures([source]), total=1, copy=False)
            except DataError as error:
                assert str(error)
        (source / path).write_bytes(files[path])
