"""What the policies for a line's store let its users do, asked of an S3 that enforces them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

STORE = Path(__file__).parents[2] / "helm/store"
PLACES = {"store": "my-line/files/md5/ab/c", "work": "work/my-line/x", "landing": "landing/my-line/x", "other": "b/x"}
MAY = {
    "step": {
        "store": {"get", "put"},
        "work": {"get", "put", "delete"},
        "landing": {"get"},
        "other": set(),
    },
    "trusted": {
        "store": {"get", "put", "delete"},
        "work": {"get", "put", "delete"},
        "landing": {"get"},
        "other": set(),
    },
}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "root")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "root")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


def user(name: str) -> Any:
    """A bucket with an object in each place, and S3 as the user with that policy."""
    s3, iam = boto3.client("s3"), boto3.client("iam")
    s3.create_bucket(Bucket="models")
    s3.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    for key in PLACES.values():
        s3.put_object(Bucket="models", Key=key, Body=b"as it was")
    policy = (STORE / f"{name}-policy.json").read_text().replace("BUCKET", "models").replace("LINE", "my-line")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="store", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.client("s3", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])


def may(s3: Any, action: str, key: str) -> bool:
    """Whether the server lets a user do it."""
    calls = {
        "get": lambda: s3.get_object(Bucket="models", Key=key),
        "put": lambda: s3.put_object(Bucket="models", Key=key, Body=b"mine"),
        "delete": lambda: s3.delete_object(Bucket="models", Key=key),
    }
    try:
        calls[action]()
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize("name", MAY)
def test_each_user_may_do_what_its_role_needs_and_no_more(name: str) -> None:
    s3 = user(name)

    @set_initial_no_auth_action_count(0)
    def asked() -> dict[str, set[str]]:
        return {
            place: {action for action in ("get", "put", "delete") if may(s3, action, key)}
            for place, key in PLACES.items()
        }

    assert asked() == MAY[name]


def test_what_a_step_overwrote_is_still_there() -> None:
    s3 = user("step")
    s3.put_object(Bucket="models", Key=PLACES["store"], Body=b"garbage")
    versions = boto3.client("s3").list_object_versions(Bucket="models", Prefix=PLACES["store"])["Versions"]
    [before] = [version["VersionId"] for version in versions if not version["IsLatest"]]
    found = boto3.client("s3").get_object(Bucket="models", Key=PLACES["store"], VersionId=before)
    assert found["Body"].read() == b"as it was"


@pytest.mark.parametrize("name", MAY)
def test_the_policies_name_no_bucket_of_ours_and_nothing_by_star(name: str) -> None:
    policy = json.loads((STORE / f"{name}-policy.json").read_text())
    for statement in policy["Statement"]:
        assert all("*" not in action for action in statement["Action"])
        assert all(resource.startswith("arn:aws:s3:::BUCKET") for resource in statement["Resource"])
