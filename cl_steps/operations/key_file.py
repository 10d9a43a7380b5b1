"""Keys in one file, encrypted with a passphrase: scrypt makes the key, AES-256-GCM encrypts and authenticates.

The file is JSON: how the key is made and the nonce are plain and authenticated, `sealed` is the ciphertext of a JSON
object of file names and their contents. Any program with scrypt and AES-GCM can open it.

Compared with age's format by `pyrage` 1.4 (November 2026): it is the better known one, and `age` opens it without us;
its wheel (2 MB, abi3, aarch64 too) needs nothing else. But pyrage takes scrypt's cost from the machine that writes
(2^16 was measured, as here) and refuses what the machine that reads finds too costly: keys saved on a fast server may
not open on the slow one that is at hand after a loss. As files of today must still be read, both formats would be
more lines than one. So ours stays: a fixed cost, and `cryptography`, which signing needs anyway.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cl_steps.documents import Json
from cl_steps.errors import IntegrityError, NoUsableData, UsageError

FORMAT = "retain-keys/1"
COST = {"n": 2**16, "r": 8, "p": 2}
"""scrypt's, as OWASP recommends it for 64 MiB of memory a try; the first files had p=1."""
MAX_COST, PARALLEL = 2**20, (1, 2)
SHORTEST = 12


def read_keys(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, as Kubernetes mounts a Secret too (links, and folders that begin with two dots).

    Raises:
        NoUsableData: there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    names = {path.relative_to(folder).as_posix(): path for path in files}
    found = {name: path.read_bytes() for name, path in names.items() if not name.startswith("..")}
    if not found:
        raise NoUsableData(f"{folder} holds no key: name the folder with the keys, or leave --keys out")
    return found


def seal(files: Mapping[str, bytes], passphrase_file: Path) -> bytes:
    """The encrypted file; raises UsageError where the passphrase is none, or too short."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header = {"format": FORMAT, "scrypt": COST, "salt": _text(os.urandom(16)), "nonce": _text(os.urandom(12))}
    plain = json.dumps({name: _text(content) for name, content in files.items()}).encode()
    cipher = AESGCM(_key(_passphrase(passphrase_file), header))
    sealed = cipher.encrypt(_bytes(header["nonce"]), plain, _authenticated(header))
    return json.dumps({**header, "sealed": _text(sealed)}, indent=1).encode()


def unseal(content: bytes, passphrase_file: Path) -> dict[str, bytes]:
    """The files of an encrypted file.

    Raises:
        UsageError: the passphrase is none.
        IntegrityError: the passphrase is another one, or the file was changed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    passphrase = _passphrase(passphrase_file)
    try:
        document = _known(json.loads(content))
        sealed = _bytes(document.pop("sealed"))
        cipher = AESGCM(_key(passphrase, document))
        plain = cipher.decrypt(_bytes(document["nonce"]), sealed, _authenticated(document))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError("the file of keys is damaged, or of another format: take another backup") from error
    except InvalidTag as error:
        raise IntegrityError("the keys do not open: the passphrase is another one, or the file was changed") from error
    return {name: _bytes(text) for name, text in json.loads(plain).items()}


def write_keys(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files for their owner alone; raises IntegrityError, before writing, where a name leads elsewhere."""
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise IntegrityError(f"the backup's keys hold a file {name!r}, which leads out of its folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)


def _known(document: dict[str, Any]) -> dict[str, Any]:
    """The header of our own format; a cost beyond reason would only be there to use up memory."""
    cost = document["scrypt"]
    if document["format"] != FORMAT or not 1 < cost["n"] <= MAX_COST or cost["r"] != 8 or cost["p"] not in PARALLEL:
        raise ValueError(document["format"])
    return document


def _passphrase(file: Path) -> bytes:
    try:
        found = file.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: name a file with the passphrase in it") from error
    if len(found) < SHORTEST:
        raise UsageError(f"the passphrase in {file} is shorter than {SHORTEST} characters: take a longer one")
    return found


def _key(passphrase: bytes, header: Json) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=_bytes(header["salt"]), length=32, **header["scrypt"]).derive(passphrase)


def _authenticated(header: Json) -> bytes:
    return json.dumps(header, sort_keys=True).encode()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)
