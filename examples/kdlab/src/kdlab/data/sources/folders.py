"""Reads images from class folders, and explains what other folders lack."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import SupportsIndex

from kdlab.basics.reading import UserError, reading
from kdlab.data.fingerprint import hash_files
from kdlab.data.images import EncodedImage

_SUFFIXES = {
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}
_TESTS = ("test", "val", "validation")
# Files that archivers, file servers and file systems leave behind.
_FOREIGN = {"__MACOSX", "@eaDir", "lost+found"}


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder was left by a tool, such as ``.DS_Store``.

    Examples:
        >>> [is_hidden(name) for name in (".ipynb_checkpoints", "__MACOSX", "cat")]
        [True, True, False]
    """
    return name.startswith(".") or name in _FOREIGN


class FolderSource:
    """The images in one folder per class, at any depth below it.

    Hidden files and folders and other files are ignored; links are followed.

    Args:
        root: Folder of the class folders. Classes are numbered by the order of their
            names.
        class_names: Expected classes, those of the training split; None if this is the
            training split.

    Raises:
        FileNotFoundError: If there is no image below `root`.
        ValueError: If `root` has a class that is not in `class_names`, or if the
            training split has a class without images or fewer than two classes.
    """

    mode = "RGB"

    def __init__(self, root: Path, class_names: list[str] | None = None):
        self._root = root
        with reading(root):
            found = sorted(p.name for p in _entries(root) if p.is_dir())
        self.class_names = found if class_names is None else class_names
        self.num_classes = len(self.class_names)
        unknown = sorted(set(found) - set(self.class_names))
        if unknown:
            raise UserError(
                f"{root} has the class folder {unknown[0]!r}, which the training split "
                f"lacks; both need the same classes: {_few(self.class_names)}"
            )
        with reading(root):
            by_class = [sorted(_images(root / name)) for name in self.class_names]
        self._files = [
            (path, label) for label, paths in enumerate(by_class) for path in paths
        ]
        if not self._files:
            raise FileNotFoundError(
                f"no image in {root}; put one folder per class there, with images "
                f"({', '.join(sorted(_SUFFIXES))}). It holds {contents(root)}"
            )
        if class_names is None:
            self._check_classes([len(paths) for paths in by_class])

    def _check_classes(self, counts: list[int]) -> None:
        names = self.class_names
        empty = [name for name, n in zip(names, counts, strict=True) if not n]
        if empty:
            raise UserError(
                f"{self._root} has no image of {_few(empty)}: fill or remove "
                f"{'these folders' if len(empty) > 1 else 'this folder'}"
            )
        if len(names) == 1:
            only = self._root / names[0]
            raise UserError(
                f"{self._root} has only one class, {names[0]!r}; expected two or more "
                f"class folders. It holds {contents(only)}: if these are the class "
                f"folders, move them up"
            )

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._files)

    def __getitem__(self, index: SupportsIndex) -> EncodedImage:
        """Returns one image and its label."""
        path, label = self._files[index.__index__()]
        with reading(path):
            return EncodedImage(path.read_bytes(), label)

    def where(self, index: int) -> str:
        """Returns the path of an image."""
        return str(self._files[index][0])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the images and their classes."""
        return hash_files((path for path, _ in self._files), root=self._root)


def open_folder(root: Path, split: str) -> FolderSource:
    """Opens ``root/train``, or for the split ``test`` whichever of val and test exists.

    Args:
        root: Folder with ``train`` and one of ``test``, ``val`` and ``validation``: the
            first that has class folders, as a published test split may have no labels.
        split: ``train`` or ``test``.

    Raises:
        FileNotFoundError: If one is missing; the message says what was found instead.
    """
    train = root / "train"
    tests = [root / name for name in _TESTS]
    with reading(root):
        there = [path for path in tests if path.is_dir()]
        sorted_in = (p for p in there if any(x.is_dir() for x in _entries(p)))
        test = next(sorted_in, there[0] if there else None)
    if not train.is_dir() or test is None:
        raise FileNotFoundError(
            f"folder:{root}: expected {train} and one of {', '.join(map(str, tests))}, "
            f"each with one folder of images per class; {_instead(root)}"
        )
    source = FolderSource(train)
    return source if split == "train" else FolderSource(test, source.class_names)


def _instead(root: Path) -> str:
    """Describes a folder without splits, and what to do."""
    if not root.exists():
        return "there is no such folder"
    if not root.is_dir():
        return "it is a file: unpack it if it is an archive"
    with reading(root):
        folders = [path for path in _entries(root) if path.is_dir()]
        found = f"found {contents(root)}"
        nested = [path for path in folders if (path / "train").is_dir()]
        if nested:
            return f"{found}. Did you mean folder:{nested[0]}?"
        if root.name in ("train", *_TESTS) and (root.parent / "train").is_dir():
            return f"{found}. Did you mean folder:{root.parent}?"
        if (root / "train").is_dir():
            return f"{found}. Move some images of each class to {root / 'val'}"
        if any(True for path in folders for _ in _images(path)):
            return (
                f"{found}. If these are class folders, divide their images between "
                f"{root / 'train'} and {root / 'val'}"
            )
        return found


def contents(folder: Path) -> str:
    """Describes the contents of a folder without hidden files."""
    entries = sorted(_entries(folder))
    folders = [path for path in entries if path.is_dir()]
    images = [p for p in entries if p not in folders and _is_image(p.name)]
    others = [p for p in entries if p not in folders and p not in images]
    kinds = (("folder", folders), ("image", images), ("other file", others))
    found = [
        f"{len(paths)} {kind}{'s' * (len(paths) > 1)} ({_few([p.name for p in paths])})"
        for kind, paths in kinds
        if paths
    ]
    return ", ".join(found) or "nothing"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not is_hidden(path.name)]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def _images(folder: Path) -> Iterator[Path]:
    """Yields the images at any depth."""
    seen = set()
    for place, folders, files in os.walk(folder, onerror=_fail, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to an enclosing folder
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in files:
            if _is_image(name) and not is_hidden(name):
                yield Path(place, name)


def _fail(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # the split lacks this class
        raise error
