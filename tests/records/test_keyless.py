"""Signing without a key, through a private sigstore: the sigstore project's own mock of its services, over HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_steps.documents import json_text
from cl_steps.errors import Unavailable, UsageError
from cl_steps.ledger.record import Record
from cl_steps.records.keys import TRUSTED
from cl_steps.records.signer import KEYLESS, TOKEN, event_files, signature_path, version_files
from cl_steps.repository.line import Line
from cl_steps.verify.authenticity import Doubt, Trust, check_act, check_provenance, check_version
from tests.lasting import event
from tests.lines.cheap import put_first_version

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="sigstore's mock needs Node.js and npm"),
]

SERVICES = Path(__file__).parent / "sigstore"
WHO = "night@example.org"
PATH, RECORD = "events/20260101T000000000000Z-rollback-v6.json", "versions/v0001.json"
ROLLBACK = event(kind="rollback", by="ops", version="v6", lineage=["v6"])
SIG, INTOTO = "versions/v0001.sig", "versions/v0001.intoto.json"


@dataclass(frozen=True)
class Sigstore:
    """A running one: the file of its trust configuration, and who issues identities."""

    file: Path
    issuer: str


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("services")
    for file in SERVICES.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder


def start(services: Path, file: Path) -> tuple[Sigstore, subprocess.Popen[str]]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen(["node", "server.js"], cwd=services, **pipes)
    assert server.stdout
    file.write_text(server.stdout.readline(), encoding="utf-8")
    config = json.loads(file.read_text(encoding="utf-8"))
    return Sigstore(file, config["signingConfig"]["oidcUrls"][0]["url"]), server


@pytest.fixture(scope="module")
def sigstore(services: Path) -> Iterator[Sigstore]:
    found, server = start(services, services / "private.json")
    yield found
    server.communicate()


def token(issuer: str, who: str, audience: str = "sigstore") -> str:
    """An identity token. The mock does not check who signed it; everything else about it is as from an issuer."""
    moment = int(time.time()) - 5
    claims = {"iss": issuer, "aud": audience, "sub": who, "email": who, "iat": moment, "nbf": moment}
    parts = ({"alg": "RS256", "typ": "JWT"}, {**claims, "exp": moment + 600}, "no signature")
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)


@pytest.fixture
def line(sigstore: Sigstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    shutil.copy(sigstore.file, tmp_path / "private.json")
    monkeypatch.setenv(TOKEN, token(sigstore.issuer, WHO))
    return Line("", "", "", "", f"{KEYLESS}:{sigstore.file}", str(tmp_path / TRUSTED))


def trusting(line: Line, **entry: Any) -> Trust:
    """Who trusts one identity, from a day before now on unless `entry` says otherwise."""
    since = datetime.now(UTC) - timedelta(days=1)
    values = {"name": "night", "identity": WHO, "sigstore": "private.json", "from": since.isoformat(), **entry}
    Path(line.trusted_keys).write_text(yaml.safe_dump({"keys": [values]}), encoding="utf-8")
    found = Trust.read(line.trusted_keys)
    assert found
    return found


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return put_first_version(tmp_path / "state")


def test_versions_and_acts_are_signed_and_checked(
    line: Line, sigstore: Sigstore, record: Record, tmp_path: Path
) -> None:
    trust = trusting(line, issuer=sigstore.issuer)
    files = version_files(line, record, tmp_path / "state/adapter")
    check_version(trust, record, files[RECORD], files[SIG])
    check_provenance(trust, record, files[RECORD], files[INTOTO])
    act, now = ROLLBACK.document(), datetime.now(UTC)
    made = event_files(line, PATH, ROLLBACK)
    signature = made[signature_path(PATH)]
    check_act(trust, PATH, made[PATH], signature, now)
    with pytest.raises(Doubt, match="not about"):
        check_act(trust, PATH, json_text({**act, "by": "eve"}).encode(), signature, now)
    with pytest.raises(Doubt, match="not about"):
        check_version(
            trust, record.model_copy(update={"files": {"adapter/deep/weights": "0" * 64}}), files[RECORD], files[SIG]
        )


def test_every_byte_of_a_keyless_signature_counts(line: Line, sigstore: Sigstore) -> None:
    trust, now = trusting(line, issuer=sigstore.issuer), datetime.now(UTC)
    content = signed_act(line)
    assert trust.statement(content, now)
    for changed in (content[:-1], content[:-200], content + b" ", b""):
        with pytest.raises(Doubt):
            trust.statement(changed, now)
    free = [at for at in range(len(content)) if counts_not(trust, content, at, now)]
    # Nothing is signed over what the log calls itself where it signs its checkpoint, and sigstore does not read it.
    name = sigstore.issuer.removeprefix("http://").encode()
    at = content.rindex(b" " + name + b" ") + 1
    assert free == list(range(at, at + len(name)))


def counts_not(trust: Trust, content: bytes, at: int, moment: datetime) -> bool:
    try:
        trust.statement(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], moment)
    except Doubt:
        return False
    return True


def signed_act(line: Line) -> bytes:
    """The signature of an act."""
    return event_files(line, PATH, ROLLBACK)[signature_path(PATH)]


def test_only_who_is_named_counts_and_only_then(
    line: Line, sigstore: Sigstore, services: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature, now = signed_act(line), datetime.now(UTC)
    for wrong in ({"identity": "eve@example.org"}, {"issuer": "https://elsewhere.example"}):
        with pytest.raises(Doubt, match="nobody"):
            trusting(line, **{"issuer": sigstore.issuer, **wrong}).statement(signature, now)
    with pytest.raises(Doubt):
        trusting(line, issuer=sigstore.issuer, **{"from": (now + timedelta(days=1)).isoformat()}).statement(
            signature, now
        )
    other, server = start(services, tmp_path / "other.json")
    try:
        with pytest.raises(Doubt, match="nobody"):
            trusting(line, issuer=sigstore.issuer, sigstore="other.json").statement(signature, now)
        monkeypatch.setenv(TOKEN, token(sigstore.issuer, WHO))
        forged = signed_act(replace(line, signing_key=f"{KEYLESS}:{other.file}"))
        with pytest.raises(Doubt, match="nobody"):
            trusting(line, issuer=sigstore.issuer).statement(forged, now)
    finally:
        server.communicate()


def test_what_sigstore_does_not_take_says_so(
    line: Line, sigstore: Sigstore, services: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    for file in ("none.json", "bad.json"):
        with pytest.raises(UsageError, match="client trust configuration"):
            signed_act(replace(line, signing_key=f"{KEYLESS}:{tmp_path / file}"))
    monkeypatch.setenv(TOKEN, token(sigstore.issuer, WHO, audience="somebody else"))
    with pytest.raises(Unavailable, match="sigstore"):
        signed_act(line)
    gone, server = start(services, tmp_path / "gone.json")
    server.communicate()
    monkeypatch.setenv(TOKEN, token(gone.issuer, WHO))
    with pytest.raises(Unavailable, match="sigstore"):
        signed_act(replace(line, signing_key=f"{KEYLESS}:{gone.file}"))


def test_model_signing_s_own_verifier_takes_the_signature(
    line: Line, sigstore: Sigstore, record: Record, tmp_path: Path
) -> None:
    from model_signing.verifying import Config

    files = version_files(line, record, tmp_path / "state/adapter")
    (tmp_path / "v1").mkdir()
    shutil.copytree(tmp_path / "state/adapter", tmp_path / "v1/adapter")
    (tmp_path / "v1/record.json").write_bytes(files[RECORD])
    (tmp_path / "sig").write_bytes(files[SIG])
    issuer = {"identity": WHO, "oidc_issuer": sigstore.issuer, "trust_config": sigstore.file}
    Config().use_sigstore_verifier(**issuer).verify(tmp_path / "v1", tmp_path / "sig")
    (tmp_path / "v1/adapter/deep/weights").write_text("another", encoding="utf-8")
    with pytest.raises(ValueError, match="weights"):
        Config().use_sigstore_verifier(**issuer).verify(tmp_path / "v1", tmp_path / "sig")
