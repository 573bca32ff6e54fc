"""A file system that forgets: it keeps aside what a power cut would leave, which is only what was fsynced.

Run as ``python -m tests.system.powerfs MOUNTPOINT``; each line ``DIR`` on standard input is a cut: what would be left
is written to DIR (a real folder), answered by a line. The running system goes on, so one run can be cut many times.

The model is stricter than any real file system: content and attributes live from the fsync of their file, a name from
that of its directory, and a file that was moved may be in neither.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
import time
from pathlib import Path

from fuse import FUSE, FuseOSError, Operations


class Node:
    """A file or a directory, as it is and as it would be after a cut."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.data = bytearray()
        self.kept = b""
        self.attributes: dict[str, bytes] = {}
        self.kept_attributes: dict[str, bytes] = {}
        self.names: dict[str, Node] = {}
        self.kept_names: dict[str, Node] = {}
        self.mtime = time.time()

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Forgetful(Operations):
    """The file system's operations, one at a time."""

    def __init__(self) -> None:
        self.root = Node(stat.S_IFDIR | 0o755)
        self.guard = threading.RLock()
        self.open_nodes: dict[int, Node] = {}
        self.next_handle = 1

    def __call__(self, name: str, *args: object) -> object:
        with self.guard:
            return super().__call__(name, *args)

    def find(self, path: str) -> Node:
        node = self.root
        for part in path.strip("/").split("/"):
            if part:
                if part not in node.names:
                    raise FuseOSError(errno.ENOENT)
                node = node.names[part]
        return node

    def parent(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self.find(folder), name

    def handle(self, node: Node) -> int:
        self.next_handle += 1
        self.open_nodes[self.next_handle] = node
        return self.next_handle

    def add(self, path: str, node: Node) -> Node:
        folder, name = self.parent(path)
        if name in folder.names:
            raise FuseOSError(errno.EEXIST)
        folder.names[name] = node
        folder.mtime = time.time()
        return node

    def getattr(self, path: str, fh: int | None = None) -> dict[str, float]:
        node = self.open_nodes[fh] if fh in self.open_nodes else self.find(path)
        times = dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), node.mtime)
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        return {"st_mode": node.mode, "st_nlink": 1, "st_size": len(node.data), **owner, **times}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *self.find(path).names]

    def mkdir(self, path: str, mode: int) -> None:
        self.add(path, Node(stat.S_IFDIR | mode))

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return self.handle(self.add(path, Node(stat.S_IFREG | mode)))

    def open(self, path: str, flags: int) -> int:
        return self.handle(self.find(path))

    def opendir(self, path: str) -> int:
        return self.handle(self.find(path))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self.open_nodes[fh].data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        content = self.open_nodes[fh].data
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        node = self.open_nodes[fh] if fh in self.open_nodes else self.find(path)
        node.data[length:] = bytes(max(length - len(node.data), 0))

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        node = self.open_nodes[fh]
        node.kept, node.kept_attributes = bytes(node.data), dict(node.attributes)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        self.open_nodes[fh].kept_names = dict(self.open_nodes[fh].names)

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> None:
        self.find(path).attributes[name] = value

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        try:
            return self.find(path).attributes[name]
        except KeyError:
            raise FuseOSError(errno.ENODATA) from None

    def release(self, path: str, fh: int) -> None:
        self.open_nodes.pop(fh, None)

    releasedir = release

    def rename(self, old: str, new: str) -> None:
        source, old_name = self.parent(old)
        target, new_name = self.parent(new)
        there = target.names.get(new_name)
        if there is not None and there.names:
            raise FuseOSError(errno.ENOTEMPTY)
        target.names[new_name] = source.names.pop(old_name)
        source.mtime = target.mtime = time.time()

    def link(self, target: str, source: str) -> None:
        self.add(target, self.find(source))

    def unlink(self, path: str) -> None:
        folder, name = self.parent(path)
        if folder.names.pop(name, None) is None:
            raise FuseOSError(errno.ENOENT)

    rmdir = unlink

    def chmod(self, path: str, mode: int) -> None:
        return None

    chown = utimens = chmod  # type: ignore[assignment]

    def cut(self, target: Path) -> None:
        """Write what a power cut at this moment would leave."""
        with self.guard:
            left = [(target, self.root)]
            found: list[tuple[Path, bytes | None, dict[str, bytes]]] = []
            while left:
                path, node = left.pop()
                found.append((path, None if node.is_directory else node.kept, node.kept_attributes))
                left.extend((path / name, child) for name, child in node.kept_names.items())
        for path, content, attributes in found:
            if content is None:
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.write_bytes(content)
                for name, value in attributes.items():
                    os.setxattr(path, name, value)


def main() -> None:
    system = Forgetful()

    def obey() -> None:
        for line in sys.stdin:
            system.cut(Path(line.strip()))
            print("cut", flush=True)

    threading.Thread(target=obey, daemon=True).start()
    FUSE(system, sys.argv[1], foreground=True, nothreads=False, max_write=131072, big_writes=True)


if __name__ == "__main__":
    main()
