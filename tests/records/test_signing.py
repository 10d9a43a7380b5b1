"""What is signed, by whom, in formats that others read; and that no byte of it can be changed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cl_steps.documents import json_text
from cl_steps.errors import RetainError, Unavailable, UsageError
from cl_steps.ledger.events import event_of
from cl_steps.ledger.record import Record
from cl_steps.records.keys import SIGNING, TRUSTED, make_keys, read_trusted
from cl_steps.records.provenance import PROVENANCE, provenance
from cl_steps.records.signer import (
    KEYLESS,
    TOKEN,
    Keyless,
    event_files,
    signer_of,
    version_files,
)
from cl_steps.repository.line import Line
from cl_steps.verify.authenticity import Doubt, Trust, check_act, check_provenance, check_version, trust_of
from tests.lasting import whole_event, whole_record
from tests.lines.cheap import put_first_version

EVENT = whole_event(
    {
        "kind": "rollback",
        "by": "ops",
        "at": "2026-01-01T00:00:00+00:00",
        "reason": "{{ 7*7 }}",
        "version": "v6",
        "lineage": ["v6"],
    }
)
PATH, RECORD, SIG, INTOTO = (
    "events/20260101T000000000000Z-rollback-v6.json",
    "versions/v0001.json",
    "versions/v0001.sig",
    "versions/v0001.intoto.json",
)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    make_keys(tmp_path / "keys", "retain")
    return Line("", "", "", "", str(tmp_path / "keys" / SIGNING), str(tmp_path / "keys" / TRUSTED))


@pytest.fixture
def trust(line: Line) -> Trust:
    found = Trust.read(line.trusted_keys)
    assert found
    return found


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return put_first_version(tmp_path / "state")


@pytest.fixture
def files(line: Line, record: Record, tmp_path: Path) -> dict[str, bytes]:
    return version_files(line, record, tmp_path / "state/adapter")


def changed(content: bytes, step: int) -> list[bytes]:
    """The content with one byte changed, every `step` bytes, and cut by one."""
    flips = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(0, len(content), step)]
    return [*flips, content[:-1], content + b" ", b""]


def test_a_version_s_signatures_are_right_and_leave_nothing_behind(
    files: dict[str, bytes], record: Record, trust: Trust, tmp_path: Path
) -> None:
    assert list(files) == [RECORD, SIG, INTOTO]
    assert json.loads(files[RECORD]) == record.document()
    check_version(trust, record, files[RECORD], files[SIG])
    check_provenance(trust, record, files[RECORD], files[INTOTO])
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["adapter", "base"]


def test_every_byte_of_a_signature_and_of_what_it_is_about_counts(
    files: dict[str, bytes], record: Record, trust: Trust
) -> None:
    for check, path in ((check_version, SIG), (check_provenance, INTOTO)):
        for content in changed(files[path], 7):
            with pytest.raises(Doubt):
                check(trust, record, files[RECORD], content)
        with pytest.raises(Doubt, match="not about"):
            check(trust, record, files[RECORD] + b" ", files[path])
        files_of = {**record.files, "adapter/deep/weights": "0" * 64}
        forged = record.model_copy(update={"files": files_of})
        with pytest.raises(Doubt, match="not about"):
            check(trust, forged, files[RECORD], files[path])
    with pytest.raises(Doubt, match="something else"):
        check_version(trust, record, files[RECORD], files[INTOTO])


def test_model_signing_s_own_verifier_takes_the_signature(
    files: dict[str, bytes], record: Record, tmp_path: Path
) -> None:
    from model_signing.verifying import Config

    model = tmp_path / "v1"
    (model / "adapter/deep").mkdir(parents=True)
    (model / "record.json").write_bytes(files[RECORD])
    (model / "adapter/deep/weights").write_text("adapter", encoding="utf-8")
    (tmp_path / "sig").write_bytes(files[SIG])
    check = Config().use_elliptic_key_verifier(public_key=tmp_path / "keys/retain-1.pem")
    check.verify(model, tmp_path / "sig")
    (model / "adapter/deep/weights").write_text("adaptor", encoding="utf-8")
    with pytest.raises(ValueError, match="weights"):
        check.verify(model, tmp_path / "sig")


def test_provenance_is_slsa_v1_as_in_toto_reads_it(files: dict[str, bytes], record: Record) -> None:
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    payload = json.loads(base64.b64decode(json.loads(files[INTOTO])["payload"]))
    Statement.copy_from_pb(ParseDict(payload, Message())).validate()
    assert payload["predicateType"] == PROVENANCE
    assert {subject["name"] for subject in payload["subject"]} == {RECORD, "adapter/deep/weights"}
    ParseDict(payload["predicate"], Provenance())
    assert payload["predicate"] == json.loads(json_text(provenance(record)))
    definition = payload["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["parameters"]["file"] == {"seed": 7, "rate": 0.5}
    assert {found["name"] for found in definition["resolvedDependencies"]} == {"base", "extractor", "code"}


def test_what_a_later_version_was_made_from_is_in_its_provenance(record: Record) -> None:
    stages = {"update": {"deps": [{"path": "state/replay", "md5": f"{'c' * 32}.dir"}]}}
    told = record.document()
    digests = {**told["digests"], "teacher": f"{'d' * 32}.dir", "batch": "f" * 64}
    image = {**told["environment"], "image": f"example.org/steps@sha256:{'9' * 64}"}
    later = Record.from_document(
        whole_record(
            {
                **told,
                "version": "v2",
                "parent": "v1",
                "digests": digests,
                "stages": stages,
                "environment": image,
                "main": "0" * 40,
                "begun": {"commit": "0" * 40, "main": "0" * 40},
            }
        )
    )
    found = {dep["name"]: dep for dep in provenance(later)["buildDefinition"]["resolvedDependencies"]}
    assert set(found) == {"base", "extractor", "teacher", "replay", "batch", "image", "code"}
    assert found["replay"]["digest"] == {"md5": "c" * 32}
    assert found["image"]["digest"] == {"sha256": "9" * 64}


def test_an_act_is_signed_at_its_place_and_time(line: Line, trust: Trust) -> None:
    moment = trust.begins
    event = {**EVENT, "at": moment.isoformat()}
    files = event_files(line, PATH, event_of(event))
    signature = files[PATH.replace(".json", ".sig")]
    assert list(files) == [PATH, PATH.replace(".json", ".sig")]
    assert json.loads(files[PATH]) == event
    check_act(trust, PATH, files[PATH], signature, moment)
    with pytest.raises(Doubt, match="not about"):
        check_act(trust, PATH.replace("2026", "2027"), files[PATH], signature, moment)
    for content in changed(files[PATH], 3):
        with pytest.raises(Doubt, match="not about"):
            check_act(trust, PATH, content, signature, moment)
    for content in changed(signature, 11):
        with pytest.raises(Doubt):
            check_act(trust, PATH, files[PATH], content, moment)
    with pytest.raises(Doubt, match="counts from") as raised:
        check_act(trust, PATH, files[PATH], signature, moment - timedelta(seconds=1))
    assert raised.value.kind == "untrusted"


def test_another_s_key_is_nobody_s(line: Line, trust: Trust, tmp_path: Path) -> None:
    make_keys(tmp_path / "other", "retain")
    forger = replace(line, signing_key=str(tmp_path / "other" / SIGNING))
    files = event_files(forger, PATH, event_of({**EVENT, "at": trust.begins.isoformat()}))
    with pytest.raises(Doubt) as raised:
        check_act(trust, PATH, files[PATH], files[PATH.replace(".json", ".sig")], trust.begins)
    assert raised.value.kind == "untrusted"


HOSTILE = [b"{}\n", b"[]\n", b"1\n", b"\xff", b'{\n "payload": 3\n}\n', b'{\n "verificationMaterial": []\n}\n']


@pytest.mark.parametrize("content", HOSTILE)
def test_what_is_no_signature(content: bytes, trust: Trust) -> None:
    with pytest.raises(Doubt):
        trust.statement(content, trust.begins)


def test_without_a_key_nothing_is_signed_and_nothing_that_signs_is_imported(
    line: Line, record: Record, tmp_path: Path
) -> None:
    unsigned = replace(line, signing_key="")
    assert version_files(unsigned, record, tmp_path / "state/adapter") == {
        RECORD: json_text(record.document()).encode()
    }
    assert event_files(unsigned, PATH, event_of(EVENT)) == {PATH: json_text(EVENT).encode()}
    code = (
        "import sys, cl_steps.steps.promote, cl_steps.steps.close; "
        "sys.exit(any(name in sys.modules for name in ('model_signing', 'securesystemslib', 'sigstore', 'jsonschema')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_signing_key_that_is_none_says_so(line: Line, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="signing key"):
        event_files(replace(line, signing_key=str(tmp_path / "none.pem")), PATH, event_of(EVENT))
    with pytest.raises(UsageError, match="cannot be read"):
        trust_of(str(tmp_path / "none.yaml"), "")
    assert trust_of(None, "") is None


@pytest.mark.parametrize("sign", [lambda s, f: s.sign_folder(f), lambda s, f: s.sign_statement(b"{}")])
def test_keyless_needs_an_identity_and_a_network(
    sign: Callable[[Keyless, Path], bytes], line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sigstore.models
    import sigstore.oidc

    signer = signer_of(replace(line, signing_key=KEYLESS))
    assert isinstance(signer, Keyless)

    def away() -> None:
        raise OSError("no route for hush")

    monkeypatch.setattr(sigstore.models.ClientTrustConfig, "production", away)
    monkeypatch.setattr(sigstore.oidc, "detect_credential", lambda: None)
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(UsageError, match="identity"):
        sign(signer, tmp_path / "state/adapter")
    for ambient, given in (("hush", ""), (None, "hush")):
        monkeypatch.setattr(sigstore.oidc, "detect_credential", lambda ambient=ambient: ambient)
        monkeypatch.setenv(TOKEN, given)
        with pytest.raises(Unavailable, match="sigstore") as raised:
            sign(signer, tmp_path / "state/adapter")
        assert "hush" not in str(raised.value)
        assert raised.value.__cause__ is None


def test_a_keyless_signature_asks_sigstore(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sigstore.models

    who = {"name": "ci", "identity": "a@example.org", "issuer": "https://i", "from": "2026-01-01"}
    (tmp_path / "t.yaml").write_text(json.dumps({"keys": [who]}), encoding="utf-8")
    trust = trust_of(str(tmp_path / "t.yaml"), "")
    assert trust

    def away() -> None:
        raise OSError

    monkeypatch.setattr(sigstore.models.ClientTrustConfig, "production", away)
    content = json_text({"verificationMaterial": {"certificate": {}}}).encode()
    with pytest.raises(RetainError, match="sigstore") as raised:
        trust.statement(content, datetime.fromisoformat("2026-02-01T00:00:00+00:00"))
    assert isinstance(raised.value, Unavailable)
    assert read_trusted(tmp_path / "t.yaml").keys[0].identity == "a@example.org"


RECORDED = Path(__file__).parent / "sigstore/recorded"
"""A signature of `{"kind": "rollback"}` at PATH by sigstore's own mock, and its trust: `test_keyless.py` makes such."""


def test_a_private_sigstore_vouches_for_whom_trusted_yaml_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = json.loads((RECORDED / "private.json").read_text())["signingConfig"]["oidcUrls"][0]["url"]
    act, signature = json_text({"kind": "rollback"}).encode(), (RECORDED / "act.sig").read_bytes()
    made = datetime.fromisoformat("2026-11-23T09:00:00+00:00")
    shutil.copy(RECORDED / "private.json", tmp_path)

    def trust(**entry: str) -> Trust:
        who = {"name": "night", "identity": "night@example.org", "issuer": issuer, "from": "2026-11-22"}
        values = {"keys": [{**who, "sigstore": "private.json", **entry}]}
        (tmp_path / "t.yaml").write_text(json.dumps(values), encoding="utf-8")
        found = trust_of(str(tmp_path / "t.yaml"), "")
        assert found
        return found

    check_act(trust(), PATH, act, signature, made)
    for content in changed(signature, 97):
        with pytest.raises(Doubt):
            trust().statement(content, made)
    with pytest.raises(Doubt, match="not about"):
        check_act(trust(), PATH, act + b" ", signature, made)
    with pytest.raises(Doubt, match="nobody"):
        trust(identity="eve@example.org").statement(signature, made)
    with pytest.raises(Doubt):
        trust(**{"from": "2026-11-24"}).statement(signature, made)
    with pytest.raises(UsageError, match="client trust configuration"):
        trust(sigstore="none.json").statement(signature, made)
    # Another sigstore that is away keeps nobody from being believed whom this one vouches for.
    monkeypatch.setattr("sigstore.models.ClientTrustConfig.production", lambda: 1 / 0)
    entries = [{"name": n, "identity": "night@example.org", "issuer": issuer, "from": "2026-11-22"} for n in "ab"]
    (tmp_path / "t.yaml").write_text(json.dumps({"keys": [entries[0], {**entries[1], "sigstore": "private.json"}]}))
    both = trust_of(str(tmp_path / "t.yaml"), "")
    assert both
    check_act(both, PATH, act, signature, made)
    key = {"name": "a", "file": "a.pem", "from": "2026-11-22", "sigstore": "private.json"}
    (tmp_path / "t.yaml").write_text(json.dumps({"keys": [key]}), encoding="utf-8")
    with pytest.raises(UsageError, match="needs no sigstore"):
        trust_of(str(tmp_path / "t.yaml"), "")


def test_who_signs_without_a_key_is_said_with_the_key(line: Line) -> None:
    assert isinstance(signer_of(replace(line, signing_key="sigstore:private.json")), Keyless)
    assert isinstance(signer_of(replace(line, signing_key="sigstore")), Keyless)
    assert not isinstance(signer_of(line), Keyless)
