"""Image folders, with one folder per class."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stcore.base.files import file_checksum
from stcore.data.cache import Decoded, cached
from stcore.data.decoding import SUFFIXES, decode
from stcore.data.images import ImageData, Splits
from stcore.data.photos import JUNK
from stcore.data.readers.decoded import parts_of
from stcore.data.readers.shards import NOTHING, PARTS, REQUIRED, Known, contents, listed
from stcore.data.split import VALIDATION, Validation, check_validation, hold_out, three_parts
from stcore.errors import DataError

NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
TEST = 0.2
"""The share of a folder without parts that becomes the test set."""
OF_FLAT = 1 / 8
"""The share of the rest that becomes its validation set: 2 % of a few photos would choose nothing."""


def load_folder(
    folder: str | Path,
    *,
    validation: Validation = None,
    image_size: int | None = None,
    skip_broken: bool = False,
) -> Splits:
    """Reads train/CLASS/*.png, test/CLASS/*.png and, if any, validation/CLASS/*.png (or val/…) in `folder`.

    A folder without parts, CLASS/*.png alone, is read too: a fifth of each class, always the same, is the test
    set, and a tenth the validation set. Classes and the images of each are in alphabetical order. png may be jpg
    or any other of `decoding.SUFFIXES`; hidden files (.name) and those of systems (Thumbs.db) are ignored. Images
    are uint8 (N, H, W, C), with C = 1 only if all are grey.

    validation: None uses the set's validation part, or else holds out 2 % of train (without parts, an eighth); a
        count or a fraction holds out that much; "test" selects on the test set.
    image_size: make images square with this side in pixels; by default all images must have one size.
    skip_broken: leave out images that cannot be decoded, and files that are none, with a BrokenImageWarning,
        instead of an error.
    Raises DataError, with the file, if the parts differ in classes, a class has no image, or a file is no image;
    UsageError for a setting that does not fit, or if pillow is not installed.
    """
    folder = Path(folder)
    flat = _is_flat(folder)
    check_validation(folder, validation, own=not flat and "validation" in _places(folder, PARTS))
    parts = read_folder(folder, image_size=image_size, skip_broken=skip_broken)
    return three_parts(parts, validation=validation, size=OF_FLAT if flat else VALIDATION)


def read_folder(
    folder: Path,
    parts: Sequence[str] = PARTS,
    known: Known = NOTHING,
    *,
    image_size: int | None = None,
    skip_broken: bool = False,
) -> dict[str, ImageData]:
    """Reads these parts alone, and the names of the classes of all parts that exist; see `load_folder`."""
    if _is_flat(folder):
        return _split(folder, parts, known, image_size, skip_broken)
    places = _places(folder, parts)
    (first, names), *others = ((place, _classes(place)) for place in _places(folder, PARTS, parts).values())
    for place, found in others:
        if found != names:
            difference = sorted(set(found) ^ set(names))
            raise DataError(
                f"{place}: expected the classes of {first}, received {listed(found)}, which "
                f"differ in {listed(difference)}; give all parts the same folders"
            )
    files = {part: [_files(place / name, skip_broken) for name in names] for part, place in places.items()}
    return _parts(folder, files, names, known, image_size, skip_broken)


def _is_flat(folder: Path) -> bool:
    """Whether there are folders of classes alone, and none of a part."""
    names = {path.name for path in _visible(folder) if path.is_dir()} if folder.is_dir() else set()
    return len(names) > 1 and not names & {name for each in NAMES.values() for name in each}


def _split(
    folder: Path, parts: Sequence[str], known: Known, image_size: int | None, skip_broken: bool
) -> dict[str, ImageData]:
    """Train and test of a folder without parts."""
    names = _classes(folder)
    files = {"all": [_files(folder / name, skip_broken) for name in names]}
    whole = _parts(folder, files, names, known, image_size, skip_broken)["all"]
    train, test = hold_out(whole, TEST)
    found = {
        "train": dataclasses.replace(train, name=f"train of {folder} (four fifths of it)"),
        "test": dataclasses.replace(test, name=f"test of {folder} (a fifth of it)"),
    }
    return {part: data for part, data in found.items() if part in parts}


def _places(folder: Path, parts: Sequence[str], required: Sequence[str] = REQUIRED) -> dict[str, Path]:
    """The folder of each of these parts that exists; of REQUIRED those in `required` must."""
    if not folder.is_dir():
        raise DataError(f"expected a folder with train/ and test/, received {str(folder)!r}; check the path")
    places: dict[str, Path] = {}
    for part in parts:
        names = NAMES[part]
        found = [folder / name for name in names if (folder / name).is_dir()]
        if len(found) > 1:
            raise DataError(f"{folder}: expected one of {' and '.join(names)}, received both; remove one")
        if found:
            places[part] = found[0]
        elif part in REQUIRED and part in required:
            remedy = "name the folder that holds it, or give folders of classes alone"
            if part == "test" and "validation" in places:
                remedy = (
                    "rename the validation part to test (another is then held out of train), or add a test part"
                )
            raise DataError(
                f"{folder}: expected {part}/ with a folder for each class, received {contents(folder)}; {remedy}"
            )
    return places


def _classes(folder: Path) -> list[str]:
    return [path.name for path in _visible(folder) if path.is_dir()]


class _Files(NamedTuple):
    """The files of a class.   strange: why others there are none of its images."""

    images: list[Path]
    strange: list[str]


def _files(folder: Path, skip_broken: bool) -> _Files:
    """The files of a class; DataError for one that is no image, unless these are to be left out."""
    files, strange = [], []
    for path in _visible(folder):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            files.append(path)
            continue
        strange.append(f"{path}: expected an image ({', '.join(SUFFIXES)}), received this; move it elsewhere")
        if not skip_broken:
            raise DataError(strange[-1])
    if not files:
        raise DataError(f"{folder}: expected at least one image of this class, received none; add one")
    return _Files(files, strange)


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in JUNK
    )


def _parts(
    folder: Path,
    files: Mapping[str, list[_Files]],
    names: list[str],
    known: Known,
    image_size: int | None,
    skip_broken: bool,
) -> dict[str, ImageData]:
    """The parts from the files of each class; what was left out is theirs, too."""
    read, images = {}, {}
    for part, classes in files.items():
        decoded = _decoded(folder, [of_class.images for of_class in classes], image_size, skip_broken)
        broken = {reason.partition(": ")[0] for reason in decoded.broken}
        paths = [path for of_class in classes for path in of_class.images if str(path) not in broken]
        images[part] = np.array([path.relative_to(folder).as_posix() for path in paths], np.str_)
        strange = [reason for of_class in classes for reason in of_class.strange]
        read[part] = decoded._replace(broken=(*decoded.broken, *strange))
    return {
        part: dataclasses.replace(
            data,
            files=images[part],
            left_out=tuple(reason.removeprefix(f"{folder}/") for reason in read[part].broken),
        )
        for part, data in parts_of(folder, read, names, known).items()
    }


def _decoded(folder: Path, files: list[list[Path]], image_size: int | None, skip_broken: bool) -> Decoded:
    """One part, from the cache or from its files of each class."""
    settings = {"reader": "folder", "image_size": image_size, "skip_broken": skip_broken}
    return cached(str(folder), partial(_digest, files), settings, partial(_read, files, image_size, skip_broken))


def _digest(files: list[list[Path]]) -> str:
    """SHA-256 of the files of each class, with their names, which say the broken ones."""
    digest = hashlib.sha256()
    for paths in files:
        digest.update(len(paths).to_bytes(8))
        for path in paths:
            digest.update(bytes.fromhex(file_checksum(path)) + f"{path.parent.name}/{path.name}\0".encode())
    return digest.hexdigest()


def _read(files: list[list[Path]], image_size: int | None, skip_broken: bool) -> Decoded:
    """Decodes one part."""

    def rows() -> Iterator[tuple[str, bytes]]:
        for path in itertools.chain(*files):
            yield str(path), path.read_bytes()

    images, sound, broken = decode(rows(), image_size, skip_broken)
    return Decoded(images, np.repeat(np.arange(len(files)), [len(each) for each in files])[sound], broken)
