"""What a file of a landing is by its name: metadata, a caption beside its picture, or nothing that holds a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

METADATA = ("metadata.csv", "metadata.jsonl")
"""What files with captions are called; bounds of their own hold for them."""
SIDECARS = (".txt", ".caption", ".json")
"""What a caption beside its picture ends with, as kohya, OneTrainer, SimpleTuner, ai-toolkit and WebDataset have it.

The first of them that is there counts.
"""
ARCHIVES = (".tar", ".parquet")
"""What is opened, as if it were a folder."""
MAX_SIDECAR_BYTES = 2**20
NO_PICTURES: Mapping[str, str] = MappingProxyType(
    {
        "texts": "files of text",
        "misnamed": "files that look like metadata: call one metadata.jsonl or metadata.csv, and it is read",
        "opened": "archives, and took in what they hold",
        "archives": "archives: unpack them",
        "videos": "videos",
        "others": "files of other kinds",
    }
)
"""Kinds of files that hold no picture of a landing, and how a person is told of them."""

_PICTURES = re.compile(r"\.(a?png|jp[eg]|jpeg|jfif|webp|bmp|avif|hei[cf]|jxl|gif|tiff?|jp2|psd|svg|ico)")
_ENDINGS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "texts": re.compile(r"\.(md|rst|log|pdf|docx?|html?|ya?ml|toml|xml|[ct]sv|jsonl|ini|xmp|aae|url|lnk)"),
        "archives": re.compile(r"\.(zip|7z|rar|gz|tgz|bz2|xz|zst)"),
        "videos": re.compile(r"\.(mp[34]|mov|webm|avi|mkv|m4v|wav)"),
        "others": re.compile(
            r"\.(np[yz]|pth?|safetensors|ckpt|bin|onnx|[lm]?db|arrow|lock|pyc?|ipynb|sh|js|exe|dll|part|crdownload|tmp)"
        ),
    }
)
_NAMES = re.compile(r"(eh)?thumbs\.db|desktop\.ini|icon\r|licen[sc]e|copying|notice|citation|readme")
_FOLDERS = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found"})
"""What network drives, archivers and bins keep beside the pictures."""
_MISNAMED = re.compile(r"(metadata|captions?|annotations?|labels?)\.(jsonl?|csv|tsv)(\.gz)?")
_REPEATS = re.compile(r"(\d{1,3})_(.*\S.*)")


def is_metadata(name: str) -> bool:
    """Whether a file tells of others."""
    return name.rpartition("/")[2] in METADATA


def is_hidden(name: str) -> bool:
    """Whether it lies in, or is, what begins with a dot: left alone unless a metadata line names it."""
    return name.startswith(".") or "/." in name


def suffix(name: str) -> str:
    """What a name ends with, in small letters."""
    last = name.rpartition("/")[2]
    dot = last.rfind(".")
    return last[dot:].lower() if dot > 0 else ""


def stem(name: str) -> str:
    """A picture and the captions beside it have this in common."""
    return name[: len(name) - len(suffix(name))]


def no_picture(name: str, num_bytes: int) -> str:
    """Which of `NO_PICTURES` it is; empty where it may be a picture, metadata or a caption."""
    *folders, last = name.lower().split("/")
    ending = suffix(name)
    if is_hidden(name) or is_metadata(name):
        return ""
    if not _FOLDERS.isdisjoint(folders) or _NAMES.fullmatch(last):
        return "others"
    if _MISNAMED.fullmatch(last):
        return "misnamed"
    if ending in ARCHIVES:
        return "opened"
    if ending in SIDECARS:
        return "texts" if num_bytes > MAX_SIDECAR_BYTES else ""
    return next((kind for kind, endings in _ENDINGS.items() if endings.fullmatch(ending)), "")


def is_picture(name: str) -> bool:
    """Whether it is called as pictures are."""
    return bool(_PICTURES.fullmatch(suffix(name)))


def repeats(folder: str) -> tuple[int, str]:
    """What kohya's folder names say, `10_name class`: how often its pictures are repeated, and their caption."""
    found = _REPEATS.fullmatch(folder)
    return (int(found[1]), found[2].strip()) if found else (0, "")
