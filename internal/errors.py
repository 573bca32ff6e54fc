"""Every error the router raises, by meaning; raised up to the edge that can answer.

Layer 0, imports nothing of ours. Changes when an edge has to tell a new kind of failure apart.

    RouterError
    |-- ConfigurationInvalid     router.conf, environment or command line (exit 2)
    |-- AlreadyRunning           another process holds this role on this data folder
    |-- NotDicom                 bytes that are no readable data set (DIMSE 0xC000)
    |   `-- MismatchedInstance   data set and command disagree (DIMSE 0xA900)
    |-- PixelsRefused            pixels that are not decoded, drawn or written in another form; says why
    |-- StorageFull              no room, or below the floor of free space (DIMSE 0xA700, HTTP 507)
    |-- StorageFailed            the disk refused a write or an fsync (DIMSE 0xA700)
    |-- StorageNotMounted        spool.id is missing: the folder is not the one that was used before
    |-- BytesMissing             the index knows an instance whose file is not there
    |-- BytesDamaged             a file no longer has the SHA-256 that the index recorded
    |-- NotAllowed               the peer or the person may not do this
    |-- NotFound                 no such study, job or accession
    |-- DatabaseTooNew           the database was written by a newer version
    |-- LeaseLost                this worker no longer owns the job it works on
    |-- Transient                should pass by itself: the job is tried again
    |   `-- UnknownOutcome       the request may have been carried out; the reply was not read
    |-- CredentialsRefused       the other side refused who we are
    `-- Refused                  the other side refused what we sent; needs a person

The docstring of each class is its default message.
"""

from __future__ import annotations

import errno
from typing import Final

#: errno of what this process or machine lacks for now; no file is at fault.
SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})


class RouterError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationInvalid(RouterError):
    """The configuration is not valid."""


class AlreadyRunning(RouterError):
    """Another process already runs this role on this data folder."""


class NotDicom(RouterError):
    """These bytes are not a readable DICOM data set."""


class MismatchedInstance(NotDicom):
    """The data set does not match the command that brought it."""


class PixelsRefused(RouterError):
    """These pixels cannot be decoded, drawn or written in this form.

    `code` is the short machine name of the reason: ``no-pixels``, ``unsupported``, ``lossy``, ``damaged``,
    ``too-large``, ``too-slow``, ``not-exact`` or ``died``.
    """

    def __init__(self, message: str | None = None, *, code: str) -> None:
        super().__init__(message or "These pixels cannot be used")
        self.code = code


class StorageFull(RouterError):
    """There is not enough free space to keep this."""


class StorageFailed(RouterError):
    """The disk refused to write."""


class StorageNotMounted(RouterError):
    """The spool folder has no spool.id: the disk that held it is probably not mounted."""


class BytesMissing(RouterError):
    """The file of this instance is not there."""


class BytesDamaged(RouterError):
    """The file of this instance does not have the SHA-256 recorded when it was indexed."""


class NotAllowed(RouterError):
    """This is not allowed."""


class NotFound(RouterError):
    """Nothing was found under this name."""


class DatabaseTooNew(RouterError):
    """The database was written by a newer version of the router."""


class LeaseLost(RouterError):
    """Another worker owns this job now."""


class Transient(RouterError):
    """The other side could not answer now; the same request may work later.

    Attributes
    ----------
    code : short machine name of the cause, such as ``http-503`` or ``dns``.
    retry_after_s : seconds the other side asked us to wait, None if it did not say.
    blame_lane : True when every job of the lane would meet the same fault.
    """

    def __init__(
        self, message: str | None = None, *, code: str = "transient", retry_after_s: float | None = None,
        blame_lane: bool = True,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        self.blame_lane = blame_lane


class UnknownOutcome(Transient):
    """The request may have been carried out, but its reply was not received.

    `status` is that of the reply when its head arrived and its body did not, else None.
    """

    status: int | None = None


class CredentialsRefused(RouterError):
    """The other side refused our credentials."""

    def __init__(self, message: str | None = None, *, code: str = "credentials-refused") -> None:
        super().__init__(message)
        self.code = code


class Refused(RouterError):
    """The other side refused what was sent."""

    def __init__(self, message: str | None = None, *, code: str = "refused", status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
