"""The write-once object store on S3 or a store that speaks it, and the one place where S3 clients are made.

Every object is put on the condition that its key is free, with its SHA-256 for the store to check, and read back
and compared. With a `Retention`, versioning and Object Lock must be on, and the lock is read back too. Not here:
credentials, which boto3 finds where AWS' own tools do.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from greenops_pipelines.errors import (
    BadInput,
    ConfigurationError,
    GreenopsError,
    ObjectExists,
    ObjectMissing,
    PermanentError,
    TransientError,
)
from greenops_pipelines.store.objects import MAX_KEY_BYTES, check_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

LockMode = Literal["GOVERNANCE", "COMPLIANCE"]

# S3 keeps whole seconds of the date it is given.
_ROUNDING = timedelta(seconds=1)

_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_OTHER_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_PASSING = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        "ConditionalRequestConflict",
    }
)


@dataclass(frozen=True)
class Retention:
    """How long Object Lock keeps an object. COMPLIANCE: nobody can shorten it, not even the account's root."""

    days: int
    mode: LockMode = "GOVERNANCE"

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ConfigurationError(f"object lock retention: found {self.days} days, allowed: at least 1")


class S3ObjectStore:
    """An `ObjectStore` in `bucket`, below `prefix`. Needs s3:ListBucket, s3:GetObject and s3:PutObject.

    With `retention` also s3:PutObjectRetention, s3:GetObjectRetention, s3:GetBucketVersioning and
    s3:GetBucketObjectLockConfiguration. The client belongs to the caller.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str = "", retention: Retention | None = None) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        self._retention = retention
        self._lock_confirmed = False

    def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        with s3_faults(self._place(key)):
            self._confirm_lock()
            until = datetime.now(UTC) + timedelta(days=self._retention.days) if self._retention else None
            # Asked first, because some stores ignore the condition on the put: there it is all there is.
            written = not self._is_there(name) and self._put_new(name, data, until)
            try:
                response = self._client.get_object(Bucket=self._bucket, Key=name, ChecksumMode="ENABLED")
            except self._client.exceptions.NoSuchKey:
                raise PermanentError(
                    f"{self._place(key)}: found no object after storing it, allowed: a bucket whose objects stay"
                ) from None
            same = _body(response) == data
        if not same and written:
            raise PermanentError(f"{self._place(key)}: found other bytes than were stored; do not trust this store")
        if not same:
            raise ObjectExists(f"{self._place(key)}: found an object with other bytes, allowed: each key once")
        self._check_lock(key, response, until if written else None)

    def get(self, key: str) -> bytes:
        name = self._name(key)
        with s3_faults(self._place(key)):
            try:
                return _body(self._client.get_object(Bucket=self._bucket, Key=name, ChecksumMode="ENABLED"))
            except self._client.exceptions.NoSuchKey:
                pass
        raise ObjectMissing(f"{self._place(key)}: found no object under that key")

    def exists(self, key: str) -> bool:
        name = self._name(key)
        with s3_faults(self._place(key)):
            return self._is_there(name)

    def list(self, prefix: str = "") -> tuple[str, ...]:
        keys = []
        with s3_faults(self._place(prefix)):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                keys += [entry["Key"].removeprefix(self._prefix) for entry in page.get("Contents", ())]
        return tuple(sorted(key for key in keys if _is_key(key)))

    def _is_there(self, name: str) -> bool:
        # By listing: a HEAD answers 404 for a missing bucket as for a missing object.
        found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1).get("Contents", ())
        return any(entry["Key"] == name for entry in found)

    def _put_new(self, name: str, data: bytes, until: datetime | None) -> bool:
        """Whether the object was stored; False where the key was taken meanwhile."""
        from botocore.exceptions import ClientError

        lock: dict[str, Any] = {}
        if self._retention:
            lock = {"ObjectLockMode": self._retention.mode, "ObjectLockRetainUntilDate": until}
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=name,
                Body=data,
                IfNoneMatch="*",
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                **lock,
            )
        except ClientError as error:
            if _code(error) != "PreconditionFailed":
                raise
            return False
        return True

    def _confirm_lock(self) -> None:
        """Once per store: what a retention relies on is switched on in the bucket."""
        if self._retention is None or self._lock_confirmed:
            return
        place = f"s3://{self._bucket}"
        if self._client.get_bucket_versioning(Bucket=self._bucket).get("Status") != "Enabled":
            raise PermanentError(
                f"{place}: found no versioning, allowed: a versioned bucket where objects are to be locked; "
                f"aws s3api put-bucket-versioning --bucket {self._bucket} --versioning-configuration Status=Enabled"
            )
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
            enabled = answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled"
        except ClientError as error:
            if _code(error) != "ObjectLockConfigurationNotFoundError":
                raise
            enabled = False
        if not enabled:
            raise PermanentError(
                f"{place}: found no Object Lock, allowed: a bucket with it where objects are to be locked; "
                f"aws s3api put-object-lock-configuration --bucket {self._bucket} "
                "--object-lock-configuration ObjectLockEnabled=Enabled"
            )
        self._lock_confirmed = True

    def _check_lock(self, key: str, response: GetObjectOutputTypeDef, until: datetime | None) -> None:
        """The lock as the store states it; `until` is None for an object that was there before."""
        if self._retention is None:
            return
        mode: str | None = response.get("ObjectLockMode")
        stated: datetime | None = response.get("ObjectLockRetainUntilDate")
        strong_enough = mode == self._retention.mode or mode == "COMPLIANCE"
        if not strong_enough or stated is None or (until is not None and stated < until - _ROUNDING):
            raise PermanentError(
                f"{self._place(key)}: found the lock {mode or 'none'} until {stated or 'never'}, "
                f"allowed: {self._retention.mode} for {self._retention.days} days; "
                "check that s3:GetObjectRetention is granted and that the store keeps Object Lock"
            )

    def _name(self, key: str) -> str:
        name = self._prefix + check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise BadInput(f"object key: found {len(name.encode())} bytes with the prefix, allowed: {MAX_KEY_BYTES}")
        return name

    def _place(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"


def s3_client(endpoint: str, region: str) -> S3Client:
    """A client for `endpoint` (empty: AWS) with timeouts (5 s to connect, 60 s to read) and 5 tries in all.

    Raises `ConfigurationError` for an endpoint that is no http(s) address, or that carries a password.
    """
    parts = urlsplit(endpoint)
    if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc):
        shown = repr(endpoint) if "@" not in endpoint else "an address with a user or password in it"
        raise ConfigurationError(
            f"GREENOPS_S3_ENDPOINT: found {shown}, allowed: an address such as https://s3.example.org; "
            "credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    # Imported late: it costs 0.2 s, and most processes never talk to S3.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 5},
        # A bucket as a host name needs a wildcard certificate, which stores other than AWS seldom have.
        s3={"addressing_style": "path"} if endpoint else {},
    )
    try:
        # A session of its own: boto3's shared one must not be used by two threads at once.
        return boto3.session.Session().client(
            "s3", endpoint_url=endpoint or None, region_name=region or None, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"S3 client for region {region!r}: {error}") from error


@contextmanager
def s3_faults(place: str) -> Iterator[None]:
    """Errors of boto3 inside the block become `TransientError` or `PermanentError` about `place` (s3://bucket/key)."""
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise _client_fault(place, error) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
        text = "found no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise PermanentError(f"{place}: {text}") from error
    except boto.SSLError as error:
        text = "the store's certificate was not accepted; check GREENOPS_S3_ENDPOINT and AWS_CA_BUNDLE"
        raise PermanentError(f"{place}: {text}") from error
    except (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError, boto.FlexibleChecksumError) as error:
        raise TransientError(f"{place}: the connection to the store failed ({type(error).__name__})") from error
    except boto.BotoCoreError as error:
        raise PermanentError(f"{place}: the call was not made ({type(error).__name__}); check the settings") from error


def _client_fault(place: str, error: Any) -> GreenopsError:
    """Only the error's code goes into the message: its text may quote what was sent."""
    code, status = _code(error), int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    call = str(error.operation_name)
    if code in _PASSING or status in (408, 429) or status >= 500:
        return TransientError(f"{place}: the store cannot take {call} now ({code}); try again later")
    if code == "NoSuchBucket":
        return PermanentError(f"{place}: found no such bucket; create it, or correct its name and GREENOPS_S3_ENDPOINT")
    if code in _CREDENTIALS:
        return PermanentError(f"{place}: the credentials were refused ({code}); renew the AWS_* credentials")
    if code in _OTHER_REGION or status == 301:
        return PermanentError(f"{place}: the bucket lies in another region; set GREENOPS_S3_REGION to it")
    if code == "RequestTimeTooSkewed":
        return PermanentError(f"{place}: this machine's clock is wrong by over 15 minutes; synchronise it")
    if status in (401, 403):
        return PermanentError(f"{place}: {call} is not permitted ({code}); grant it to these credentials")
    return PermanentError(f"{place}: the store refused {call} ({code}, HTTP {status})")


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code") or "no code")


def _body(response: GetObjectOutputTypeDef) -> bytes:
    with closing(response["Body"]) as stream:
        return stream.read()


def _is_key(key: str) -> bool:
    try:
        check_key(key)
    except BadInput:
        return False
    return True
