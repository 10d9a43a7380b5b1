"""Whether a signature is right, was made by somebody who counts, and is about what lies beside it."""

from __future__ import annotations

import base64
import json
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cl_steps import digests
from cl_steps.digests import sha256
from cl_steps.documents import Json, json_text
from cl_steps.errors import Unavailable, UsageError
from cl_steps.ledger.record import Record
from cl_steps.records.keys import KeyRole, TrustedKey, load_public, read_sigstore, read_trusted
from cl_steps.records.provenance import PROVENANCE, adapter_files, provenance_subjects
from cl_steps.records.signer import ACT, PAYLOAD_TYPE, RECORD

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey
    from sigstore.verify import Verifier

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MODEL = "https://model_signing/signature/v1.0"


class Doubt(Exception):
    """A signature that does not count: `bad_signature` (not of these bytes) or `untrusted` (of nobody who counts)."""

    def __init__(self, kind: Literal["bad_signature", "untrusted"], why: str) -> None:
        super().__init__(why)
        self.kind: Literal["bad_signature", "untrusted"] = kind


@dataclass(frozen=True)
class Trust:
    """Whose signatures count; `folder` is where trusted.yaml and the public keys lie."""

    folder: Path
    keys: tuple[TrustedKey, ...]

    @classmethod
    def read(cls, file: str) -> Trust | None:
        """The trust of a trusted.yaml; None where no file is named. Raises UsageError where something is not right."""
        if not file:
            return None
        trust = cls(Path(file).parent, read_trusted(Path(file)).keys)
        assert trust._public is not None
        return trust

    @property
    def begins(self) -> datetime:
        """From when on anybody signed: what was made earlier may be without a signature."""
        return self._since("trusted")

    @property
    def judges_since(self) -> datetime:
        """From when on anybody's findings counted; no moment ever where nobody's do."""
        return self._since("judge")

    @property
    def names_judge(self) -> bool:
        """Whether anybody's findings count."""
        return any(key.role == "judge" for key in self.keys)

    def _since(self, role: KeyRole) -> datetime:
        return min((key.since for key in self.keys if key.role == role), default=datetime.max.replace(tzinfo=UTC))

    def statement(self, signature: bytes, made: datetime, role: KeyRole = "trusted") -> dict[str, Any]:
        """The in-toto statement in a signature of either form, if somebody of that role signed it who counted then.

        Raises:
            Doubt: it is damaged, or of nobody who counts.
            Unavailable: a keyless signature, and sigstore's own keys cannot be had.
        """
        document = _parse(signature)
        if "certificate" in _material(document):
            payload = self._keyless(signature, made, role)
        else:
            payload = self._keyed(document, made, role)
        try:
            return dict(json.loads(payload))
        except (ValueError, TypeError) as error:
            raise Doubt("bad_signature", "what was signed is no statement") from error

    @cached_property
    def _public(self) -> list[tuple[TrustedKey, SSlibKey, str]]:
        """Each key of a file, as the two libraries that sign name it."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        from securesystemslib.signer import SSlibKey

        found = []
        for key in self.keys:
            if key.file:
                public = load_public(self.folder / key.file)
                pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                found.append((key, SSlibKey.from_crypto(public), digests.sha256(pem)))
        return found

    def _keyed(self, document: Json, made: datetime, role: KeyRole) -> bytes:
        envelope = _envelope(document)
        named = _material(document).get("publicKey")
        for key, public, hint in self._public:
            if _is_signed_by(envelope, public):
                if document != _as_written(envelope, public, hint if "dsseEnvelope" in document else None):
                    raise Doubt("bad_signature", "its file was changed")
                _check_counts(key, made, role)
                return bytes(envelope.payload)
            if named == {"hint": hint} or public.keyid in envelope.signatures:
                raise Doubt("bad_signature", f"it is not {key.name}'s signature of what it says: it was changed")
        raise Doubt("untrusted", "it is signed by nobody whom the trusted keys name, or was changed")

    def _keyless(self, signature: bytes, made: datetime, role: KeyRole) -> bytes:
        away: Unavailable | None = None
        for key in self.keys:
            if key.identity and key.issuer:
                try:
                    payload = self._vouched(key.identity, key.issuer, self._sigstore(key.sigstore), signature)
                except Unavailable as error:
                    away, payload = error, None
                if payload is not None:
                    _check_counts(key, made, role)
                    return payload
        raise away or Doubt("untrusted", "sigstore vouches for nobody whom the trusted keys name, or it was changed")

    @staticmethod
    def _vouched(identity: str, issuer: str, sigstore: Verifier, signature: bytes) -> bytes | None:
        """What this identity signed, if this sigstore says so; raises Doubt where the file is no bundle as written."""
        from sigstore.errors import VerificationError
        from sigstore.models import Bundle
        from sigstore.verify.policy import Identity

        try:
            bundle = Bundle.from_json(signature)
            _, payload = sigstore.verify_dsse(bundle, Identity(identity=identity, issuer=issuer))
            if json_text(json.loads(bundle.to_json())).encode() == signature:
                return payload
        except VerificationError:
            return None
        except Exception as error:
            # What its parts are made of (base64, DER, numbers) is read late, by libraries with errors of their own.
            raise Doubt("bad_signature", "its file was changed") from error
        raise Doubt("bad_signature", "its file was changed")

    def _sigstore(self, file: str | None) -> Verifier:
        """Checks against the keys of one sigstore; raises UsageError, or Unavailable for the public one."""
        from sigstore.verify import Verifier

        if file not in self._sigstores:
            try:
                config = read_sigstore(self.folder / file if file else None)
            except UsageError:
                raise
            except Exception as error:
                raise Unavailable(f"sigstore's keys cannot be had now ({type(error).__name__}): try again") from None
            self._sigstores[file] = Verifier(trusted_root=config.trusted_root)
        return self._sigstores[file]

    @cached_property
    def _sigstores(self) -> dict[str | None, Verifier]:
        return {}


def check_act(trust: Trust, path: str, event: bytes, signature: bytes, made: datetime) -> None:
    """Whether the signature is of this event at this path; raises Doubt, or Unavailable."""
    statement = trust.statement(signature, made)
    if statement.get("predicateType") != ACT or _subjects(statement) != {path: sha256(event)}:
        raise Doubt("bad_signature", "it is not about what this file says")


def check_version(trust: Trust, record: Record, content: bytes, signature: bytes) -> None:
    """Whether the signature is of this record (`content` in bytes) and its adapter; raises Doubt, or Unavailable."""
    predicate = _predicate(trust.statement(signature, _created(record)), MODEL)
    adapter = adapter_files(record)
    signed = {item.get("name"): item.get("digest") for item in predicate.get("resources", ())}
    algorithms = {item.get("algorithm") for item in predicate.get("resources", ())}
    if signed != {RECORD: sha256(content), **adapter} or algorithms != {"sha256"}:
        raise Doubt("bad_signature", "it is not about what the record says")


def check_provenance(trust: Trust, record: Record, content: bytes, signature: bytes) -> None:
    """Whether the signed provenance is of this record and its adapter; raises Doubt, or Unavailable."""
    statement = trust.statement(signature, _created(record))
    _predicate(statement, PROVENANCE)
    if _subjects(statement) != provenance_subjects(record, content):
        raise Doubt("bad_signature", "it is not about what the record says")


def _created(record: Record) -> datetime:
    return datetime.fromisoformat(record.created)


def _check_counts(key: TrustedKey, made: datetime, role: KeyRole) -> None:
    if key.role != role:
        raise Doubt("untrusted", f"{key.name} counts as {key.role} alone, and this is signed as {role}")
    if not key.counted(made):
        raise Doubt("untrusted", f"{key.name} counts {key.period}, and this was made at {made.isoformat()}")


def _parse(signature: bytes) -> dict[str, Any]:
    """A signature's JSON, of which every byte must be as we write it: what nobody signed may not be changed either."""
    try:
        document = json.loads(signature)
        if isinstance(document, dict) and json_text(document).encode() == signature:
            return document
    except (ValueError, RecursionError):
        pass
    raise Doubt("bad_signature", "its file was changed" if signature else "there is no signature")


def _material(document: Json) -> dict[str, Any]:
    found = document.get("verificationMaterial")
    return found if isinstance(found, dict) else {}


def _envelope(document: Json) -> Envelope:
    from securesystemslib.dsse import Envelope

    try:
        envelope = Envelope.from_dict(deepcopy(document.get("dsseEnvelope", document)))
    except Exception as error:
        raise Doubt("bad_signature", "its file was changed") from error
    if len(envelope.signatures) != 1:
        raise Doubt("bad_signature", "it holds not one signature")
    return envelope


def _is_signed_by(envelope: Envelope, public: SSlibKey) -> bool:
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
    from securesystemslib.signer import Signature

    # The key's id in an envelope is a hint that nobody signed, and model-signing writes none.
    [found] = envelope.signatures.values()
    try:
        public.verify_signature(Signature(public.keyid, found.signature), envelope.pae())
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True


def _as_written(envelope: Envelope, public: SSlibKey, hint: str | None) -> dict[str, Any]:
    """What the file of a signature says where nothing was changed: a bundle with a `hint`, else an envelope alone."""
    [found] = envelope.signatures.values()
    signature = base64.b64encode(bytes.fromhex(found.signature)).decode()
    inner = {"payload": base64.b64encode(envelope.payload).decode(), "payloadType": PAYLOAD_TYPE}
    if hint is None:
        return {**inner, "signatures": [{"keyid": public.keyid, "sig": signature}]}
    material = {"publicKey": {"hint": hint}, "tlogEntries": []}
    bundle = {**inner, "signatures": [{"keyid": "", "sig": signature}]}
    return {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": bundle}


def _subjects(statement: Json) -> dict[str, str]:
    """What a statement is about: SHA-256 by name."""
    try:
        return {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    except (KeyError, TypeError):
        return {}


def _predicate(statement: Json, kind: str) -> dict[str, Any]:
    found = statement.get("predicate")
    if statement.get("predicateType") != kind or not isinstance(found, dict):
        raise Doubt("bad_signature", "it says something else than it should")
    return found


def trust_of(file: str | None, configured: str) -> Trust | None:
    """The trust of the file that was named, else of the deployment's; raises UsageError where neither is right."""
    if file is not None and not file:
        raise UsageError("--keys needs the name of a trusted.yaml")
    return Trust.read(file or configured)
