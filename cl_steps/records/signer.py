"""Signatures over versions and over the acts of persons, as files beside what they sign.

    versions/v0007.json          the record
    versions/v0007.sig           over record and adapter: OpenSSF model-signing, a sigstore bundle
    versions/v0007.intoto.json   where the version came from: an in-toto statement with SLSA provenance, in DSSE
    events/...-rollback-v6.sig   over an act of a person: an in-toto statement with the event's SHA-256, in DSSE

Without a key nothing is signed, and nothing that signs is imported. `cl_steps.verify.authenticity` checks them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from cl_steps.digests import sha256
from cl_steps.documents import Json, json_text
from cl_steps.errors import RetainError, Unavailable, UsageError
from cl_steps.ledger.events import Act, event_bytes
from cl_steps.ledger.names import version_file
from cl_steps.ledger.record import Record, record_bytes
from cl_steps.records.keys import load_private, read_sigstore, refuse_uncounted
from cl_steps.records.provenance import PROVENANCE, provenance, provenance_subjects
from cl_steps.repository.line import Line

KEYLESS = "sigstore"
TOKEN = "SIGSTORE_IDENTITY_TOKEN"  # noqa: S105  (the variable's name, as sigstore's own tools call it)
PAYLOAD_TYPE = "application/vnd.in-toto+json"
ACT = "urn:retain:act:1"
"""The type of the statement about an act of a person."""
RECORD = "record.json"
"""What a version's record is called in the folder that is signed; the adapter's files lie in `adapter/` beside it."""


class Signer(Protocol):
    """Who signs: a key in a file, or an identity that sigstore vouches for."""

    def sign_folder(self, folder: Path) -> bytes:
        """A model signature over all files of a folder, as a sigstore bundle (JSON)."""

    def sign_statement(self, statement: bytes) -> bytes:
        """An in-toto statement in its signed envelope (JSON)."""


def event_files(line: Line, path: str, event: Act) -> dict[str, bytes]:
    """An event as its files on main: the event itself (`path` ends in `.json`) and, with a key, its signature."""
    content, signer = event_bytes(event), _signer_at(line, event.at)
    if signer is None:
        return {path: content}
    facts = {name: value for name in ("kind", "by", "at") if (value := getattr(event, name))}
    signature = sign_statement(signer, _by_sha256({path: sha256(content)}), ACT, facts)
    return {path: content, signature_path(path): signature}


def version_files(line: Line, record: Record, adapter: Path) -> dict[str, bytes]:
    """A version's files on main: its record and, with a key, its signature and its provenance.

    `adapter` is the folder with the adapter; `record.files` holds the SHA-256 of each of its files.
    """
    path, signer = version_file(record.version), _signer_at(line, record.created)
    content = record_bytes(record)
    if signer is None:
        return {path: content}
    with _model(record.version, content, adapter) as folder:
        signature = signer.sign_folder(folder)
    subjects = _by_sha256(provenance_subjects(record, content))
    origin = sign_statement(signer, subjects, PROVENANCE, provenance(record))
    return {path: content, signature_path(path): signature, provenance_path(path): origin}


def signature_path(path: str) -> str:
    """Where the signature of a record or an event lies."""
    return f"{path.removesuffix('.json')}.sig"


def provenance_path(path: str) -> str:
    """Where the provenance of a record lies."""
    return f"{path.removesuffix('.json')}.intoto.json"


def signer_of(line: Line) -> Signer | None:
    """Who signs for this process; None where nobody does. Raises UsageError where the key is no key."""
    if not line.signing_key:
        return None
    kind, _, file = line.signing_key.partition(":")
    return Keyless(Path(file) if file else None) if kind == KEYLESS else KeyFile(Path(line.signing_key))


def _signer_at(line: Line, made: str) -> Signer | None:
    """As `signer_of`; raises UsageError, too, where what is signed as of that moment would not count."""
    signer = signer_of(line)
    if isinstance(signer, KeyFile):
        refuse_uncounted(signer.file, line.trusted_keys, datetime.fromisoformat(made))
    return signer


class KeyFile:
    """Signs with an EC P-256 private key, offline."""

    def __init__(self, file: Path) -> None:
        self.file, self._key = file, load_private(file)

    def sign_folder(self, folder: Path) -> bytes:
        """See `Signer`."""
        from model_signing.signing import Config

        return _signed(Config().use_elliptic_key_signer(private_key=self.file), folder)

    def sign_statement(self, statement: bytes) -> bytes:
        """See `Signer`."""
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import CryptoSigner

        envelope = Envelope(statement, PAYLOAD_TYPE, {})
        envelope.sign(CryptoSigner(self._key))
        return json_text(envelope.to_dict()).encode()


class Keyless:
    """Signs with a certificate that sigstore gives for a few minutes to who proves an identity; needs the network.

    `sigstore` is the client trust configuration (JSON) of a private one; None is the public one.
    """

    def __init__(self, sigstore: Path | None) -> None:
        self._sigstore = sigstore

    def sign_folder(self, folder: Path) -> bytes:
        """See `Signer`; raises Unavailable."""
        from model_signing.signing import Config

        with _sigstore() as token:
            if self._sigstore:
                read_sigstore(
                    self._sigstore
                )  # The library reads it again, and says of a wrong file what nobody understands.
            config = Config().use_sigstore_signer(identity_token=token, trust_config=self._sigstore)
            return _signed(config, folder)

    def sign_statement(self, statement: bytes) -> bytes:
        """See `Signer`; raises Unavailable."""
        from sigstore.dsse import Statement
        from sigstore.oidc import IdentityToken
        from sigstore.sign import SigningContext

        with _sigstore() as token:
            context = SigningContext.from_trust_config(read_sigstore(self._sigstore))
            with context.signer(IdentityToken(token)) as signer:
                bundle = signer.sign_dsse(Statement(statement))
        return json_text(json.loads(bundle.to_json())).encode()


def sign_statement(
    signer: Signer, subjects: Mapping[str, Mapping[str, str]], predicate_type: str, predicate: Json
) -> bytes:
    """An in-toto statement in its signed envelope (JSON); `subjects` are digests (algorithm to hex) by name."""
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import STATEMENT_TYPE_URI, Statement

    about = [{"name": name, "digest": dict(digest)} for name, digest in sorted(subjects.items())]
    plain = json.loads(json_text(predicate))
    Statement([ResourceDescriptor(**subject).pb for subject in about], predicate_type, plain).validate()
    # Not the library's own JSON: it makes every whole number a fraction.
    statement = {"_type": STATEMENT_TYPE_URI, "subject": about, "predicateType": predicate_type, "predicate": plain}
    return signer.sign_statement(json.dumps(statement, sort_keys=True, allow_nan=False).encode())


def _by_sha256(subjects: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"sha256": digest} for name, digest in subjects.items()}


def _signed(config: Any, folder: Path) -> bytes:
    """The signature as we write JSON: whoever changes one byte of it is seen."""
    file = folder.with_name("signature")
    config.sign(folder, file)
    return json_text(json.loads(file.read_bytes())).encode()


@contextmanager
def _model(version: str, record: bytes, adapter: Path) -> Iterator[Path]:
    """The folder that is signed, beside the adapter, whose files it need not copy."""
    with tempfile.TemporaryDirectory(prefix=".signing-", dir=adapter.parent) as scratch:
        folder = Path(scratch) / version
        folder.mkdir()
        (folder / RECORD).write_bytes(record)
        shutil.copytree(adapter, folder / "adapter", copy_function=_link)
        yield folder


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def _sigstore() -> Iterator[str]:
    """An identity token of this process; whatever sigstore says is Unavailable, told without what may hold the token.

    Raises:
        UsageError: nobody vouches for who runs this.
        Unavailable: sigstore cannot be reached, or does not take the token.
    """
    try:
        yield _token()
    except RetainError:
        raise
    except Exception as error:
        raise Unavailable(f"sigstore cannot be used now ({type(error).__name__}): try again, or use a key") from None


def _token() -> str:
    """The token that this process was given, or that a CI system or a cloud gives its jobs; raises UsageError."""
    from sigstore.oidc import detect_credential

    token = os.environ.get(TOKEN) or detect_credential()
    if not token:
        raise UsageError(
            f"keyless signing needs an identity: set {TOKEN}, run where one is ambient, or sign with a key"
        )
    return token
