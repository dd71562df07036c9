"""Every error of a reader becomes one error with the path, the cause and a remedy."""

import errno
import pickle
import zlib

import pytest

from kdlab.basics.reading import UserError, explain, read_json, reading, summarize

ERRORS = [
    OSError("image file is truncated"),
    EOFError(),
    ValueError("two\nlines"),
    KeyError("labels"),
    zlib.error("invalid block"),
    pickle.UnpicklingError("damaged"),
    AttributeError("a decoder's own fault"),
    MemoryError(),
]


def message(path, error, **options):
    with pytest.raises(UserError) as found, reading(path, **options):
        raise error
    assert found.value.__cause__ is error
    return str(found.value)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_every_error_names_the_path_in_one_line(error, tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(b"some bytes")
    text = message(path, error)
    assert text.startswith(f"{path} cannot be read: ")
    assert text.endswith(". Download or copy it again.")
    assert "\n" not in text and "read: ." not in text


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><p>403", "is a web page"),
        (b"<html>", "is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "is a web page"),
        (b"", "it is empty"),
    ],
)
def test_a_file_that_holds_something_else_is_recognised(content, cause, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert cause in message(path, EOFError())
    # Even if only a missing package was noticed.
    assert cause in message(path, ImportError("pip install torch"))


def test_a_missing_package_is_no_fault_of_a_sound_file(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"sound")
    with pytest.raises(ImportError), reading(path):
        raise ImportError("pip install torch")


def test_what_is_in_the_way_is_named(tmp_path):
    link = tmp_path / "cat.png"
    link.symlink_to(tmp_path / "moved.png")
    for path, words in (
        (tmp_path, "is a folder, expected a file"),
        (link, f"is a link to {tmp_path / 'moved.png'}, which does not exist"),
        (tmp_path / "absent", "it does not exist"),
    ):
        with pytest.raises(UserError, match=words), reading(path):
            path.read_bytes()
    denied = PermissionError(errno.EACCES, "Permission denied", str(link))
    assert "chmod -R u+rX" in message(link, denied)


def test_a_checkpoint_of_pointers_is_recognised(tmp_path):
    (tmp_path / "_METADATA").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "_METADATA is a Git LFS pointer" in message(tmp_path, ValueError("zarr"))


def test_an_inner_error_keeps_its_path(tmp_path):
    with (
        pytest.raises(UserError, match=r"inner\.png cannot"),
        reading(tmp_path),
        reading(tmp_path / "inner.png"),
    ):
        raise EOFError


def test_interruptions_pass(tmp_path):
    with pytest.raises(KeyboardInterrupt), reading(tmp_path):
        raise KeyboardInterrupt


def test_long_and_coloured_texts_are_cut():
    assert summarize(ValueError("\x1b[1mbold\x1b[0m")) == "bold"
    assert len(summarize(ValueError("x" * 10_000))) < 400


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "--runs"),
        (errno.EROFS, "--runs"),
        (errno.ENOTDIR, "--runs"),
        (errno.ENAMETOOLONG, "--name"),
    ],
)
def test_an_error_of_the_system_says_what_to_do(number, remedy):
    text = explain(OSError(number, "What it was", "/runs/demo"))
    assert text.startswith("/runs/demo: what it was. ") and remedy in text


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\x00"])
def test_damaged_files_of_our_own_say_how_to_go_on(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"config\.json cannot be read: .*Remove it"):
        read_json(path)
