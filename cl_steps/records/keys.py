"""Keys: the one that signs, and the file that says whose signatures count, and from when until when.

    FOLDER/signing.pem     the private key in use (EC P-256), for its owner alone; only what may change main has it
    FOLDER/judge.pem       the private key of the judge: only evaluate and gate have it
    FOLDER/retain-1.pem    the public key of each that was ever in use; retain-judge-1.pem the judge's
    FOLDER/trusted.yaml    keys: [{name, role, file, from, until}], or [{name, role, identity, issuer, sigstore, ...}]

Whoever signs needs one private key alone, whoever verifies the rest; neither belongs into the workspace's Git.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AwareDatetime, BeforeValidator, Field, StringConstraints, model_validator

from cl_steps.config import Block, validate_block
from cl_steps.documents import Unreadable, read_yaml
from cl_steps.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from sigstore.models import ClientTrustConfig

SIGNING, JUDGE, TRUSTED = "signing.pem", "judge.pem", "trusted.yaml"
KeyRole = Literal["trusted", "judge"]
PRIVATE: dict[KeyRole, str] = {"trusted": SIGNING, "judge": JUDGE}
"""Where the private key of each role lies."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


def _moment(value: Any) -> Any:
    """A moment as YAML gives it: read already, as text, or a day (its first second, UTC)."""
    if isinstance(value, str):
        value = date.fromisoformat(value) if len(value) == len("2026-11-22") else datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
Text = Annotated[str, StringConstraints(min_length=1)]


class TrustedKey(Block):
    """One whose signatures count, made from `from` to `until` (both included).

    `role` says for what: `trusted` for versions and the acts of persons, `judge` for what evaluate and gate found.
    Either a public key (a PEM `file` beside trusted.yaml), or who sigstore says it was: an `identity` by an `issuer`.
    A private sigstore is known by its client trust configuration, the JSON file `sigstore` beside trusted.yaml.
    """

    name: Text
    role: KeyRole = "trusted"
    file: Text | None = None
    identity: Text | None = None
    issuer: Text | None = None
    sigstore: Text | None = None
    since: Moment = Field(alias="from")
    until: Moment | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> TrustedKey:
        if (self.file is None) == (self.identity is None) or (self.identity is None) != (self.issuer is None):
            raise ValueError("a key has either a file, or an identity and its issuer")
        if self.file and self.sigstore:
            raise ValueError("a key of a file needs no sigstore")
        return self

    def counted(self, moment: datetime) -> bool:
        """Whether what it signed at that moment counts."""
        return self.since <= moment and (self.until is None or moment <= self.until)

    @property
    def period(self) -> str:
        """From when until when it counts, in words."""
        return f"from {self.since.isoformat()} " + (f"until {self.until.isoformat()}" if self.until else "on")


class TrustedKeys(Block):
    """`trusted.yaml`."""

    keys: Annotated[tuple[TrustedKey, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_once(self) -> TrustedKeys:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have the same name")
        return self


@dataclass(frozen=True)
class Made:
    """The names of the key that signs versions from now on, and of the one that did before."""

    new: str
    old: str | None = None


def read_trusted(file: Path) -> TrustedKeys:
    """Whose signatures count; raises UsageError where the file is missing or not right."""
    try:
        values = read_yaml(file.read_bytes())
    except OSError as error:
        raise UsageError(f"the trusted keys {file} cannot be read: `retain keys FOLDER` makes them") from error
    except Unreadable as error:
        raise UsageError(f"the trusted keys {file} are not valid YAML ({error}): mend the file") from error
    if not isinstance(values, dict):
        raise UsageError(f"the trusted keys {file} must hold `keys:` and a list of them")
    return validate_block(TrustedKeys, values, file.name)


def make_keys(folder: Path, name: str) -> Made:
    """The first keys of a folder, valid from now on: the one that signs versions, and the judge's.

    Raises:
        UsageError: there is a key already, the name is none, or the folder cannot be written.
    """
    if (folder / SIGNING).exists():
        raise UsageError(f"{folder} holds a key already: add --rotate for a new one, or name another folder")
    return _add_keys(folder, name)


def rotate_keys(folder: Path, name: str) -> Made:
    """New keys from now on; those before count for what they signed so far, and their private halves are deleted.

    A folder of before the judge had a key of its own gets one.

    Raises:
        UsageError: there is no key yet, the name is none, or the folder cannot be written.
    """
    if not (folder / SIGNING).exists():
        raise UsageError(f"{folder} holds no key yet: leave --rotate out to make the first one")
    return _add_keys(folder, name)


def add_judge(folder: Path) -> str | None:
    """The judge's first key, in a folder of before the judge had one: its name; None where one is trusted already.

    The private half is there before anybody is told to trust it, so that killed in between nothing is lost.

    Raises:
        UsageError: the key that signs versions is not in the folder, or the folder cannot be written.
    """
    known = read_trusted(folder / TRUSTED).keys
    if any(key.role == "judge" for key in known):
        return None
    signs = _name_now(folder, SIGNING, known)
    if signs is None:
        raise UsageError(f"{folder} holds no {SIGNING} that its {TRUSTED} names: do this where the line's keys are")
    fresh = _fresh(folder, "judge", f"{signs.rpartition('-')[0] or signs}-judge", known)
    with _writing(folder):
        _write(folder / f"{fresh.name}.pem", fresh.public, 0o644)
        _write(folder / JUDGE, fresh.private, 0o600)
        entries = [*(_entry(key, None) for key in known), fresh.entry(datetime.now(UTC).replace(microsecond=0))]
        _write_trusted(folder, entries)
    return fresh.name


def load_private(file: Path) -> EllipticCurvePrivateKey:
    """A signing key; raises UsageError, which tells nothing of what the file holds."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), None)
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
            return key
    except (OSError, ValueError, TypeError):
        pass
    raise UsageError(f"the signing key {file} is not there, or is no plain EC P-256 private key in PEM: `retain keys`")


def load_public(file: Path) -> EllipticCurvePublicKey:
    """A trusted public key; raises UsageError."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(file.read_bytes())
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
            return key
    except (OSError, ValueError):
        pass
    raise UsageError(f"the trusted key {file} is not there, or is no EC P-256 public key in PEM")


def refuse_uncounted(private: Path, trusted: str, made: datetime) -> None:
    """Raise UsageError where the key in `private` would sign at a moment at which the trusted keys do not count it.

    A key that they do not name is left to whoever verifies: this machine's list may be older than theirs.
    """
    if not (trusted and Path(trusted).is_file()):
        return
    own = load_private(private).public_key()
    named = [key for key in read_trusted(Path(trusted)).keys if key.file]
    same = [key for key in named if load_public(Path(trusted).parent / str(key.file)) == own]
    if same and not any(key.counted(made) for key in same):
        raise UsageError(
            f"the key {same[0].name} counts {same[0].period}, and this would be signed as of {made.isoformat()}: set "
            "this machine's clock right, or make a new key (`retain keys`)"
        )


def read_sigstore(file: Path | None) -> ClientTrustConfig:
    """The services and keys of the private sigstore that a file describes, or of the public one.

    Raises:
        UsageError: the file is not there, or describes none.
        Exception: whatever sigstore says where the public one's keys cannot be had.
    """
    from sigstore.models import ClientTrustConfig

    if file is None:
        return ClientTrustConfig.production()
    try:
        return ClientTrustConfig.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is not there, or is no client trust configuration of a sigstore (JSON)") from error


def _add_keys(folder: Path, name: str) -> Made:
    """The public keys first, then whom to trust, and last the private keys in place of those before."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a key: take small letters, digits and hyphens")
    known = read_trusted(folder / TRUSTED).keys if (folder / TRUSTED).exists() else ()
    moment = datetime.now(UTC).replace(microsecond=0)
    fresh = [_fresh(folder, "trusted", name, known), _fresh(folder, "judge", f"{name}-judge", known)]
    # One of the same name that does not sign was left by a rotation that was killed: its private half is nowhere.
    ended = {
        key.name for key in known for new in fresh if key.name == new.old or key.name.rpartition("-")[0] == new.stem
    }
    entries = [_entry(key, moment if key.name in ended else None) for key in known]
    entries += [new.entry(moment) for new in fresh]
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for new in fresh:
            _write(folder / f"{new.name}.pem", new.public, 0o644)
        _write_trusted(folder, entries)
        for new in fresh:
            _write(folder / PRIVATE[new.role], new.private, 0o600)
    return Made(fresh[0].name, fresh[0].old)


@dataclass(frozen=True)
class _Fresh:
    """A key that was made now: whose it is, what it is called, which one it replaces, and its halves in PEM."""

    role: KeyRole
    stem: str
    name: str
    old: str | None
    public: bytes
    private: bytes

    def entry(self, since: datetime) -> dict[str, str]:
        """Its lines in trusted.yaml."""
        return {"name": self.name, "role": self.role, "file": f"{self.name}.pem", "from": since.isoformat()}


def _fresh(folder: Path, role: KeyRole, stem: str, known: tuple[TrustedKey, ...]) -> _Fresh:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = generate_private_key(SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _Fresh(role, stem, _next_name(stem, known), _name_now(folder, PRIVATE[role], known), public, private)


def _name_now(folder: Path, file: str, known: Iterable[TrustedKey]) -> str | None:
    """What the key is called whose private half lies in the folder as `file`."""
    if not (folder / file).exists():
        return None
    own = load_private(folder / file).public_key()
    return next((key.name for key in known if key.file and load_public(folder / key.file) == own), None)


def _next_name(name: str, known: Iterable[TrustedKey]) -> str:
    """`name` with the first number that no key has yet."""
    used = {key.name for key in known}
    return next(own for own in (f"{name}-{number}" for number in count(1)) if own not in used)


def _entry(key: TrustedKey, ended: datetime | None) -> dict[str, str]:
    """A key's lines in trusted.yaml, where it ends at `ended` unless it did before."""
    until = key.until or ended
    facts = {name: getattr(key, name) for name in ("name", "role", "file", "identity", "issuer", "sigstore")}
    facts |= {"from": key.since.isoformat(), "until": until.isoformat() if until else None}
    return {name: fact for name, fact in facts.items() if fact is not None}


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{folder} cannot hold keys: {error.strerror}") from error


def _write_trusted(folder: Path, entries: list[dict[str, str]]) -> None:
    _write(folder / TRUSTED, yaml.safe_dump({"keys": entries}, sort_keys=False).encode(), 0o644)


def _write(file: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, never readable by more than `mode` says."""
    draft = file.with_name(f".{file.name}.draft")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
