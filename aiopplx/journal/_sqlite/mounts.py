"""On what kind of file system a path lies, from Linux's own table of mounts.

SQLite's write-ahead log needs memory that all users of the file share, which no network file system gives. This module
knows nothing of SQLite.
"""

from __future__ import annotations

import re

NETWORK = frozenset({
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "davfs",
    "fuse.ceph",
    "fuse.davfs",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.goofys",
    "fuse.mount-s3",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb2",
    "smb3",
    "smbfs",
})
"""Types, as the table names them, that reach over a network."""


def network_type(path: str, mountinfo: str) -> str:
    """The type of the file system of `path`, if it is one of `NETWORK`; `""` otherwise.

    Args:
        path: absolute, with links resolved.
        mountinfo: the text of Linux's `mountinfo`; `""` where there is none.
    """
    longest, found = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]).rstrip("/")
        # Of two mounts at one point the later hides the earlier.
        if f"{path}/".startswith(f"{point}/") and len(point) >= longest:
            longest, found = len(point), right.split(" ")[0]
    return found if found in NETWORK else ""
