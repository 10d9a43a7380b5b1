"""Content credentials (C2PA): what a picture says of the model that drew it, and signing it into the picture.

The manifest says that the picture was made by a trained model, and in an assertion of ours which version that was:
line, version, and the SHA-256 of its record and of its adapter. No prompt, no person.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

from cl_steps.documents import Json
from cl_steps.errors import UsageError, first_line
from cl_steps.formats.facts import Facts
from cl_steps.version import version

LABEL = "retain.version"
ALGORITHM = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
FORMATS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": True}}
"""Nothing is fetched from a network, whatever a picture or a certificate names."""
MISSING = "content credentials need c2pa-python: pip install 'retain[marking]'"


def manifest(facts: Facts) -> dict[str, Any]:
    """The manifest definition of every picture that a version draws, as C2PA's own tools take it."""
    agent = {"name": "Retain", "version": version()}
    created = {"action": "c2pa.created", "digitalSourceType": ALGORITHM, "softwareAgent": agent}
    model = {
        "line": facts.line,
        "version": facts.version,
        "record_sha256": facts.record_sha256,
        "adapter_sha256": facts.adapter_sha256,
    }
    return {
        "claim_generator_info": [agent],
        "title": f"A picture by {facts.line} {facts.version}",
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": LABEL, "data": {key: value for key, value in model.items() if value}},
        ],
    }


@dataclass(frozen=True)
class Credentials:
    """Who signs: a chain of certificates (PEM, the signer's own first), its private key (PEM), the key's algorithm.

    `timestamps` is the URL of a timestamp authority; empty: none, and no network.
    """

    chain: bytes
    key: bytes
    algorithm: str
    timestamps: str = ""

    @classmethod
    def of(cls, chain: bytes, key: bytes, timestamps: str = "") -> Credentials:
        """Checked before any picture is touched.

        Raises:
            UsageError: what is no certificate or key, a key of another certificate, or a kind that C2PA does not take.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        try:
            own, *_ = x509.load_pem_x509_certificates(chain)
        except ValueError as error:
            raise UsageError("--certificates holds no PEM certificates: give the chain, signer's first") from error
        try:
            private = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError) as error:
            raise UsageError("--key holds no PEM private key without a passphrase: give one in PKCS#8") from error
        if private.public_key() != own.public_key():
            raise UsageError("the key is not that of the first certificate: put the signer's own certificate first")
        plain = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(chain, plain, _algorithm(private), timestamps)

    def sign(self, picture: bytes, media_type: str, definition: Json) -> bytes:
        """The same picture, its pixels untouched, with the manifest in it.

        Raises:
            UsageError: the picture or the certificates are not what C2PA takes.
        """
        import c2pa

        information = c2pa.C2paSignerInfo(
            self.algorithm.encode(), self.chain, self.key, self.timestamps.encode() or None
        )
        signed = io.BytesIO()
        try:
            with (
                c2pa.Context.from_dict(SETTINGS) as context,
                c2pa.Signer.from_info(information) as signer,
                c2pa.Builder(json.dumps(definition), context=context) as builder,
            ):
                builder.sign(signer, media_type, io.BytesIO(picture), signed)
        except c2pa.C2paError as error:
            raise UsageError(f"C2PA does not take it: {first_line(error):.200}") from error
        return signed.getvalue()


def read(picture: bytes, media_type: str) -> dict[str, Any] | None:
    """The manifest store of a picture, with what is wrong with it; None where it has none.

    Raises:
        UsageError: C2PA cannot read the picture.
    """
    import c2pa

    try:
        with (
            c2pa.Context.from_dict(SETTINGS) as context,
            c2pa.Reader(media_type, io.BytesIO(picture), context=context) as reader,
        ):
            return dict(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        raise UsageError(f"C2PA cannot read it: {first_line(error):.200}") from error


def require() -> None:
    """Raise UsageError where the library is not installed."""
    try:
        import c2pa  # noqa: F401
    except ImportError as error:
        raise UsageError(MISSING) from error


def _algorithm(key: object) -> str:
    """How C2PA calls signatures by this key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise UsageError("C2PA signs with keys of P-256, P-384, P-521, Ed25519, or RSA of 2048 bits and more: take one")
