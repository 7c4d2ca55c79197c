"""Where files are: a local folder, or an object store that fails now and then.

A local file system is fsspec's own. Anything else is wrapped: what may pass by itself (throttling,
5xx, time-outs, cut connections) is tried again with exponential backoff and full jitter, and what
remains becomes a ``StoreError``, which is no ``OSError``: a store that is away is not a damaged
picture. Credentials come from the environment or fsspec's configuration only.
"""

import errno
import io
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from ppfr_ops.errors import UserError

T = TypeVar("T")

ATTEMPTS = 4
"""Of a call, at most; s3fs makes up to five quick requests in each."""

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 8.0
_KEEPS_COPIES = ("simplecache", "filecache", "blockcache", "cached", "reference")
_LIBRARIES = (
    *("botocore", "aiobotocore", "aiohttp", "urllib3", "requests", "httpx2", "azure", "google"),
)
_FINAL_TYPES = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError")
_FINAL_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)
_PASSING = {
    errno.EBUSY,
    errno.EIO,
    getattr(errno, "EREMOTEIO", errno.EIO),
    errno.EAGAIN,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.EPIPE,
}


class StoreError(UserError):
    """The store does not do what is asked; one line that names no path."""


def open_store(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Returns:
        An fsspec file system, or a ``RetryingFileSystem`` one where it is remote.

    Raises:
        StoreError: there is no such kind of store, its library is not installed, or it keeps
            copies on disk.
    """
    options: dict[str, Any] = {"use_listings_cache": False}
    protocol = url.partition("://")[0] if "://" in url else "file"
    if "::" in url or protocol in _KEEPS_COPIES:
        raise StoreError("chained and caching URLs are not taken: they leave copies behind")
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        # botocore would multiply its own retries with those of s3fs and ours.
        options["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": 1}}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        reason = "its library is not installed" if isinstance(error, ImportError) else "unknown"
        raise StoreError(f"store {protocol}://: {reason}") from None
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    if isinstance(fs, LocalFileSystem) or "memory" in protocols:
        return fs, path
    if "s3" in protocols:
        # So that a part of an upload is tried again, and not the whole of it.
        import s3fs.core

        s3fs.core.set_custom_error_handler(_fault_of_the_server)
    return RetryingFileSystem(fs), path


class RetryingFileSystem:
    """A remote file system whose methods try again; otherwise as the one it wraps."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def __reduce__(self) -> tuple[type, tuple[Any]]:
        return RetryingFileSystem, (self._fs,)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fs, name)
        if not callable(value):
            return value
        return lambda *args, **kwargs: patiently(lambda: value(*args, **kwargs))

    def open(self, path: str, mode: str = "rb") -> "_PatientFile":
        """For reading; a whole object is written with ``pipe_file``."""
        if mode != "rb":
            raise NotImplementedError("an object is written in one piece")
        return _PatientFile(patiently(lambda: self._fs.open(path, "rb")))

    def check(self, path: str) -> None:
        """Find out at once whether the bucket is there and lets us in.

        Raises:
            StoreError: it is not, or does not.
        """
        if "s3" in self._fs.protocol:
            bucket, prefix, _ = self._fs.split_path(path)
            try:
                self.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
            except FileNotFoundError:
                raise StoreError("there is no such bucket") from None

    @property
    def has_pages(self) -> bool:
        """Whether ``pages`` knows this store (S3)."""
        return "s3" in self._fs.protocol

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """The objects and folders right below a path as S3 tells them, a thousand a request: a
        million of them are never in memory at once."""
        bucket, prefix, _ = self._fs.split_path(path)
        asked = {"Bucket": bucket, "Prefix": f"{prefix.rstrip('/')}/", "Delimiter": "/"}
        more: dict[str, str] = {}
        while True:
            answer = self.call_s3("list_objects_v2", **asked, **more)
            yield from answer.get("Contents", [])
            for folder in answer.get("CommonPrefixes", []):
                yield {"Key": folder["Prefix"].rstrip("/"), "type": "directory"}
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def abort_uploads(self, path: str) -> None:
        """Abort the multipart uploads below a path that died with their process (S3)."""
        if "s3" not in self._fs.protocol:
            return
        bucket, prefix, _ = self._fs.split_path(path)
        listing = self.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
        for upload in listing.get("Uploads", []):
            key, number = upload["Key"], upload["UploadId"]
            self.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=number)


class _PatientFile(io.RawIOBase):
    """A remote file whose reads try again."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        place = self._file.tell()

        def once() -> bytes:
            self._file.seek(place)
            return bytes(self._file.read(-1 if size is None else size))

        return patiently(once)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def patiently(call: Callable[[], T]) -> T:
    """Do it, again if need be.

    Raises:
        FileNotFoundError, FileExistsError: as the call raised them.
        StoreError: anything else that the store or the way to it is at fault for.
    """
    again = Retrying(
        retry=retry_if_exception(lambda error: _of_the_store(error) and _passes(error)),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
        reraise=True,
    )
    try:
        return again(call)
    except (FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        if not _of_the_store(error):
            raise
        raise StoreError(_words(error)) from None


def _fault_of_the_server(error: BaseException) -> bool:
    answer = getattr(error, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500


def _library(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _LIBRARIES


def _of_the_store(error: BaseException) -> bool:
    return isinstance(error, OSError) or _library(error)


def _passes(error: BaseException) -> bool:
    if isinstance(error, _FINAL_ERRORS) or type(error).__name__ in _FINAL_TYPES:
        return False
    if isinstance(error, TimeoutError | ConnectionError) or _library(error):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


def _words(error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return "the store refuses access (credentials come from the environment)"
    if type(error).__name__ in _FINAL_TYPES[:2]:
        return "the store wants credentials (they come from the environment)"
    if _passes(error):
        return f"the store does not answer, or fails again and again ({type(error).__name__})"
    return f"the store refuses the request ({type(error).__name__})"
