"""Pictures of every mode, depth, orientation and size: read as they are meant, or refused (F15, F16)."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from engine.data.decode import UnreadableImageError, decode_image, read_image
from engine.data.header import ImageHeader, jpeg_header, read_header, read_headers
from engine.data.images import index_images
from engine.data.options import ImageOptions
from engine.data.order import SampleKey
from engine.data.pixels import oriented, stored, to_rgb
from engine.errors import DataError
from pretrain.data import PretrainDataset
from tests.faults.test_data_faults import jpeg_bytes
from tests.helpers import run_code

RAMP = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(depth, colour, pixels, transparent=b""):
    """One row of a PNG; Pillow writes neither 2- nor 16-bit colour."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width = len(pixels) * 8 // (depth * {0: 1, 2: 3, 4: 2, 6: 4}[colour])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
    extra = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(b"\0" + pixels)) + chunk(b"IEND", b"")


DEEP_GREY = {
    "png": lambda: encoded(Image.fromarray(RAMP), "PNG"),
    "tiff": lambda: encoded(Image.fromarray(RAMP), "TIFF"),
    "tiff big-endian": lambda: encoded(Image.frombytes("I;16B", (8, 8), RAMP.astype(">u2").tobytes()), "TIFF"),
    "jpeg 2000": lambda: encoded(Image.fromarray(RAMP), "JPEG2000"),
    "pgm": lambda: b"P5\n8 8\n65535\n" + RAMP.astype(">u2").tobytes(),
}


class TestDepth:
    @pytest.mark.parametrize("kind", DEEP_GREY)
    def test_16_bit_grey_keeps_its_scale(self, kind):
        expected = np.repeat((RAMP >> 8).astype(np.uint8)[..., None], 3, axis=2)
        np.testing.assert_array_equal(decode_image(DEEP_GREY[kind]()), expected)

    def test_16_bit_grey_is_as_bright_as_16_bit_colour(self):
        grey = decode_image(png(16, 0, RAMP.astype(">u2").tobytes()))
        colour = decode_image(png(16, 2, np.repeat(RAMP.reshape(-1, 1), 3, axis=1).astype(">u2").tobytes()))
        np.testing.assert_array_equal(grey, colour)

    def test_white_is_zero_in_a_16_bit_tiff(self):
        data = encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0})
        np.testing.assert_array_equal(decode_image(data)[..., 0], 255 - (RAMP >> 8))

    def test_12_bit_tiff_is_scaled_by_its_depth(self):
        tags = [(256, 4, 2), (257, 4, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 3)]
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        data = b"II*\0" + struct.pack("<I", 12) + b"\x80\x0f\xff\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
        assert decode_image(data)[0, :, 0].tolist() == [0x800 >> 4, 255]  # 0x800, 0xfff packed into three bytes

    @pytest.mark.parametrize("kind", [np.float32, np.int32])
    def test_values_without_a_scale_are_refused_with_the_reason(self, kind):
        with pytest.raises(UnreadableImageError, match=r"(floating-point|32-bit integer) grey values, of which"):
            decode_image(encoded(Image.fromarray(RAMP.astype(kind)), "TIFF"))

    def test_signed_values_are_refused(self):
        with pytest.raises(UnreadableImageError, match="signed or 32-bit integer grey values"):
            decode_image(encoded(Image.fromarray(RAMP.astype(np.uint8)), "TIFF", tiffinfo={339: 2}))

    def test_a_picture_that_does_not_fit_into_memory_is_one_line(self, tmp_path, monkeypatch):
        (tmp_path / "x.png").write_bytes(DEEP_GREY["png"]())
        monkeypatch.setattr("engine.data.decode.to_rgb", lambda _: np.empty(2**60, dtype=np.uint8))
        with pytest.raises(DataError, match=r"x\.png: its pixels do not fit into the memory .* --data\.max-pixels"):
            read_image(tmp_path / "x.png")


class TestTransparentColour:
    @pytest.mark.parametrize(("depth", "grey"), [(2, 1), (4, 3), (8, 77), (16, 0x1234)])
    def test_of_grey(self, depth, grey):
        pixel = struct.pack(">H", grey) if depth == 16 else bytes([grey << (8 - depth), 0])[: max(1, depth // 8)]
        shown = decode_image(png(depth, 0, pixel, struct.pack(">H", grey)))
        assert shown[0, 0].tolist() == [255, 255, 255]
        assert decode_image(png(depth, 0, pixel))[0, 0, 0] < 255

    def test_of_16_bit_colour(self):
        pixels = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 1, 2, 3)
        shown = decode_image(png(16, 2, pixels, struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)))
        assert shown[0].tolist() == [[255, 255, 255], [0, 0, 0]]

    @pytest.mark.parametrize("mode", ["La", "RGBa"])
    def test_premultiplied_alpha_is_over_white(self, mode):
        image = Image.new("LA", (1, 1), (0, 127)) if mode == "La" else Image.new("RGBA", (1, 1), (0, 0, 0, 127))
        assert to_rgb(image.convert(mode))[0, 0].tolist() == [128, 128, 128]


def turned(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(PIXELS), kind, exif=exif)


class TestExifOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_ignored_applied_and_refused_alike_in_every_format(self, kind, tmp_path):
        plain = decode_image(encoded(Image.fromarray(PIXELS), kind))
        for orientation in range(2, 9):
            path = tmp_path / f"{orientation}.x"
            path.write_bytes(turned(kind, orientation))
            np.testing.assert_array_equal(read_image(path), plain)
            with Image.open(path) as image:
                upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            np.testing.assert_array_equal(read_image(path, ImageOptions(exif="apply")), upright)
            with pytest.raises(DataError, match=f"{path}: has the EXIF orientation {orientation}") as caught:
                read_image(path, ImageOptions(exif="stop"))
            assert not isinstance(caught.value, UnreadableImageError)  # a choice to make, nothing to skip
            header = read_header(path)
            assert header == ImageHeader(7, 5, orientation)
            assert header.upright_size == upright.shape[1::-1]

    def test_upright_and_senseless_tags_change_nothing(self):
        for orientation in (1, 0, 9):
            for exif in ("apply", "stop"):
                shown = decode_image(turned("PNG", orientation), ImageOptions(exif=exif))
                np.testing.assert_array_equal(shown, PIXELS)

    def test_damaged_tags_do_not_lose_the_picture(self):
        data = bytearray(turned("JPEG", 6))
        place = data.find(b"Exif\0\0")
        data[place + 6 : place + 20] = b"\xff" * 14
        assert decode_image(bytes(data), ImageOptions(exif="apply")).shape == (5, 7, 3)

    def test_turning_is_undone_for_any_array(self):
        for orientation in range(1, 9):
            np.testing.assert_array_equal(stored(oriented(PIXELS[..., 0], orientation), orientation), PIXELS[..., 0])

    def test_no_bytes_crash_the_reader_of_headers(self):
        data = turned("JPEG", 6)
        source = np.random.default_rng(0)
        for _ in range(2000):
            damaged = bytearray(data[: source.integers(2, len(data))])
            for place in source.integers(2, len(damaged), 3) if len(damaged) > 2 else ():
                damaged[place] = source.integers(256)
            header = jpeg_header(bytes(damaged))
            assert header is None or 1 <= header.orientation <= 8

    def test_headers_of_many_files_keep_order_and_errors(self, tmp_path):
        for i in range(20):
            (tmp_path / f"{i}.jpg").write_bytes(turned("JPEG", 1 + i % 8) if i != 7 else b"no picture")
        found = list(read_headers(str(tmp_path / f"{i}.jpg") for i in range(20)))
        assert [getattr(header, "orientation", None) for header in found] == [
            None if i == 7 else 1 + i % 8 for i in range(20)
        ]
        assert str(found[7]).startswith(f"{tmp_path}/7.jpg: not a readable image")


def huge_png(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def huge_jpeg(width, height):
    data = bytearray(jpeg_bytes())
    place = data.find(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _unusual(mode):
    values = np.random.default_rng(1).integers(0, 256, (21, 34, 4), dtype=np.uint8)
    return Image.fromarray(values[..., :3]).convert(mode)


UNUSUAL = {
    "png.JPEG": lambda path: _unusual("RGB").save(path, "PNG"),
    "webp.jpg": lambda path: _unusual("RGB").save(path, "WEBP"),
    "cmyk.jpg": lambda path: _unusual("CMYK").save(path),
    "grey.jpg": lambda path: _unusual("L").save(path),
    "grey.png": lambda path: _unusual("L").save(path),
    "palette.png": lambda path: _unusual("P").save(path),
    "bits.png": lambda path: _unusual("1").save(path),
    "adobe-rgb.jpg": lambda path: _unusual("RGB").save(path, keep_rgb=True),
    "rotated.jpg": lambda path: _unusual("RGB").save(path, exif=_rotated()),
    "trailing.jpg": lambda path: path.write_bytes(jpeg_bytes() + b"\0" * 500),
    "extra-bytes.jpg": lambda path: path.write_bytes(jpeg_bytes()[:-2] + b"\0" * 50 + b"\xff\xd9"),
    "thumbnail.jpg": lambda path: path.write_bytes(jpeg_bytes(comment=b"a long comment" * 100)),
}


def _rotated():
    exif = Image.Exif()
    exif[0x0112] = 8
    return exif


class TestF15UnusualFiles:
    @pytest.mark.parametrize("name", UNUSUAL)
    def test_unusual_file_decodes_to_pillows_rgb(self, tmp_path, name):
        UNUSUAL[name](tmp_path / name)
        with Image.open(tmp_path / name) as image:
            expected = np.asarray(image.convert("RGB"))
        array = read_image(tmp_path / name)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, expected)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    @pytest.mark.parametrize("suffix", ["png", "webp"])
    def test_alpha_is_over_white(self, tmp_path, mode, suffix):
        image = _unusual("RGB").convert(mode)
        image.putalpha(Image.fromarray(np.arange(714, dtype=np.uint8).reshape(21, 34)))
        image.save(tmp_path / f"x.{suffix}", lossless=True)
        rgba = np.asarray(image.convert("RGBA")).astype(float)
        alpha = rgba[..., 3:] / 255
        expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
        assert np.abs(read_image(tmp_path / f"x.{suffix}") - expected).max() <= 1


# Not getrusage: a child's peak there starts from its parent's.
PRINT_PEAK_KB = "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"


class TestF16Sizes:
    def test_one_pixel_is_upsampled(self, tmp_path):
        Image.new("RGB", (1, 1), (200, 100, 50)).save(tmp_path / "x.png")
        image = PretrainDataset(index=index_images(tmp_path, labelled=False))[SampleKey(0, 0)]["image"]
        assert image.flatten(1).unique(dim=1).tolist() == [[200], [100], [50]]

    @pytest.mark.parametrize("kind", ["jpeg", "png"])
    def test_huge_header_is_refused_with_its_size_below_1_gb_of_memory(self, tmp_path, kind):
        data = {"jpeg": huge_jpeg, "png": huge_png}[kind](30000, 30000)
        (tmp_path / "x.jpg").write_bytes(data)
        code = (
            "import sys; from engine.data.decode import UnreadableImageError, read_image\n"
            "try: read_image(sys.argv[1])\n"
            "except UnreadableImageError as error: print(error)\n"
            f"{PRINT_PEAK_KB}"
        )
        message, peak_kb = run_code(code, tmp_path / "x.jpg").stdout.splitlines()
        assert message.startswith(f"{tmp_path}/x.jpg: 30000x30000 pixels, more than")
        assert int(peak_kb) < 1_000_000

    def test_largest_accepted_png_stays_below_1_gb(self, tmp_path):
        code = (
            "import io; from PIL import Image; from engine.data.decode import MAX_PIXELS, decode_image\n"
            "side = int(MAX_PIXELS ** 0.5); file = io.BytesIO()\n"
            "Image.new('L', (side, side)).save(file, 'PNG', compress_level=1)\n"
            "assert decode_image(file.getvalue()).shape == (side, side, 3)\n"
            f"{PRINT_PEAK_KB}"
        )
        assert int(run_code(code).stdout) < 1_000_000
