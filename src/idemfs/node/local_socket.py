"""The local socket of a store that a process has open: other processes hand it their commands.

A client sends its arguments, with its standard streams and its working directory as open files; the owner runs
the same command on its own open store, with those streams, and answers with the exit status. Messages, both ways::

    size(4, big-endian) · JSON object        request: arguments, umask, environment · reply: status
                                             request: question, a word              · reply: answer

The socket is ``STORE/socket``, for the process's own user and root alone; and, as far as ``members`` says, for a
group. Who asks is what the kernel says of the other end.

Threads: one that accepts, and one a command, which gets a working directory and umask of its own. ``sys.stdin``,
``sys.stdout`` and ``sys.stderr`` become objects that are each thread's own, since commands print there.
"""

from __future__ import annotations

import ctypes
import io
import json
import logging
import os
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple, TextIO

from idemfs.errors import NotPermitted
from idemfs.node.log import about
from idemfs.node.members import permitted

SOCKET_NAME = "socket"
STAYS, TAKES_MOUNTS, NODE, LINKS = "stays", "takes_mounts", "node", "links"
"""Questions: see ``stays``; whether the owner mounts something more; what ``Node.status`` says; and
``OwnedStore.links``."""
_MESSAGE_SIZE_MAX = 4 << 20
_COMMAND_COUNT_MAX = 32
_ENVIRONMENT = ("COLUMNS", "LINES", "TERM", "NO_COLOR", "LANG", "LC_ALL", "TZ")
_CLONE_FS = 0x200
_FD_COUNT = 4
_PEER = struct.Struct("iII")
_MEMBER_COUNT_MAX = 8
"""Commands of members of the group at once, so that they keep nobody else out."""
_MEMBER_SECONDS_MAX = 10.0
"""How long a member may take to say what it wants; and how long the socket's end waits for theirs."""
_INTERRUPT_SECONDS = 0.2

Run = Callable[[list[str]], int]

log = logging.getLogger("idemfs.node")


def forward(path: str, arguments: list[str]) -> int | None:
    """Have the owner of the store at ``path`` run a command; its exit status, or None if nobody listens there."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    connection = ask(path, arguments, (0, 1, 2))
    if connection is None:
        return None
    with connection:
        status = answer(connection)
    if status is None:
        print("idemfs: the process that owns the store ended before the command was done", file=sys.stderr)
        return 1
    return status


def ask(path: str, arguments: list[str], streams: tuple[int, int, int]) -> socket.socket | None:
    """Have the owner begin a command with these standard streams; None if nobody listens there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_path(path) as name:
            connection.connect(name)
        _send_request(connection, arguments, streams)
    except (FileNotFoundError, ConnectionRefusedError, PermissionError, NotADirectoryError):
        connection.close()
        return None
    except (BrokenPipeError, ConnectionResetError):
        # It ends just now, and has not read all of the command.
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


def _send_request(connection: socket.socket, arguments: list[str], streams: tuple[int, int, int]) -> None:
    umask = os.umask(0)
    os.umask(umask)
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        message = _pack({"arguments": arguments, "umask": umask, "environment": environment})
        sent = socket.send_fds(connection, [message], [*streams, directory])
        if sent < len(message):
            connection.sendall(message[sent:])
    finally:
        os.close(directory)


def answer(connection: socket.socket) -> int | None:
    """The exit status of a command that was asked for, when it ends; None if the owner ended first."""
    try:
        reply = _receive(connection, b"")
    except ConnectionResetError:
        reply = None
    if reply is None:
        return None
    status = reply.get("status")
    return status if isinstance(status, int) else 1


class Caller(NamedTuple):
    """Who handed a command over, as the kernel says."""

    pid: int
    uid: int
    gid: int


def caller() -> Caller | None:
    """Who asked for the command that this thread runs; None: it runs for this process itself."""
    return _of_thread.caller


def inquire(path: str, question: str) -> object | None:
    """What the owner of the store at ``path`` answers to a question that it knows; None: nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with _short_path(path) as name:
                connection.connect(name)
            connection.sendall(_pack({"question": question}))
            reply = _receive(connection, b"")
        except OSError:
            return None
    return None if reply is None else reply.get("answer")


def stays(path: str) -> bool | None:
    """Have the owner of the store at ``path`` make all durable; whether it keeps the store: another mount shows
    something of it, or it needs none.

    None: nobody answers.
    """
    answer = inquire(path, STAYS)
    return answer if isinstance(answer, bool) else None


class LocalSocket:
    """Listens for commands on the store at ``path`` until ``close``. ``run`` is the command line without its name."""

    def __init__(
        self,
        path: str,
        run: Run,
        done: Callable[[list[str]], None],
        questions: Mapping[str, Callable[[], object]],
        interrupt: Callable[[], None] = lambda: None,
        *,
        group: str | None = None,
        store: str | None = None,
    ) -> None:
        """``done`` is called after each command, before its client is told. ``questions``: by its name, what answers
        one with what JSON can hold. ``interrupt``: called while ``close`` waits, to end commands
        that would go on for ever. ``group``: whose members may connect. ``store``: its name in the log.

        Raises ``OSError``.
        """
        self._path = path
        self._name = os.path.join(path, SOCKET_NAME)
        self._run = run
        self._done = done
        self._questions = questions
        self._store = store
        self._interrupt = interrupt
        self._slots = threading.BoundedSemaphore(_COMMAND_COUNT_MAX)
        self._member_slots = threading.BoundedSemaphore(_MEMBER_COUNT_MAX)
        self._threads: dict[threading.Thread, bool] = {}
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(FileNotFoundError):
            # Left by an owner that was killed: the store's lock says that it is no more.
            os.unlink(self._name)
        mask = os.umask(0o177)
        try:
            with _short_path(path) as name:
                self._listener.bind(name)
        finally:
            os.umask(mask)
        try:
            self.admit(group)
            self._listener.listen(_COMMAND_COUNT_MAX)
        except BaseException:
            self._listener.close()
            os.unlink(self._name)
            raise
        _divide_streams()
        self._acceptor = threading.Thread(target=self._accept, name="idemfs-socket", daemon=True)
        self._acceptor.start()

    def admit(self, group: str | None) -> None:
        """From now on members of this group may connect, and of no other. Raises ``OSError``."""
        number = -1
        if group is not None:
            from grp import getgrnam

            try:
                number = getgrnam(group).gr_gid
            except KeyError:
                raise OSError(f"this machine has no group {group!r}") from None
        # Of the socket itself: whoever may write to the store's directory could put a link in its place.
        fd = os.open(self._name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise OSError(f"{self._name}: is no socket any more")
            os.chmod(f"/proc/self/fd/{fd}", 0o600)
            if number >= 0:
                os.chown(f"/proc/self/fd/{fd}", -1, number)
                os.chmod(f"/proc/self/fd/{fd}", 0o660)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Take no more commands, and wait for those that run; for those of members only so long."""
        with suppress(FileNotFoundError):
            os.unlink(self._name)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        until = time.monotonic() + _MEMBER_SECONDS_MAX
        while True:
            with self._lock:
                running = dict(self._threads)
            if all(is_member and time.monotonic() > until for is_member in running.values()):
                return
            self._interrupt()
            for thread in running:
                thread.join(_INTERRUPT_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            who = _peer(connection)
            is_member = who.uid not in (0, os.geteuid())
            slots = self._member_slots if is_member else self._slots
            if not slots.acquire(blocking=not is_member):
                connection.close()
                continue
            if is_member:
                connection.settimeout(_MEMBER_SECONDS_MAX)
            thread = threading.Thread(
                target=self._serve, args=(connection, who, slots), name="idemfs-command", daemon=True
            )
            with self._lock:
                self._threads[thread] = is_member
                # Inside, since who closes the socket joins it.
                thread.start()

    def _serve(self, connection: socket.socket, who: Caller, slots: threading.BoundedSemaphore) -> None:
        try:
            with connection, about(store=self._store):
                self._answer(connection, who, is_member=slots is self._member_slots)
        except OSError as error:
            log.warning("a client went before its command was done: %s", error)
        except Exception:
            log.exception("a command failed")
        finally:
            slots.release()
            with self._lock:
                del self._threads[threading.current_thread()]

    def _answer(self, connection: socket.socket, who: Caller, *, is_member: bool) -> None:
        message, files, _, _ = socket.recv_fds(connection, 65536, _FD_COUNT)
        try:
            request = _receive(connection, message)
            answer = None if request is None or is_member else self._questions.get(str(request.get("question")))
            if answer is not None:
                connection.sendall(_pack({"answer": answer()}))
                return
            if request is None or len(files) != _FD_COUNT:
                return
            _become(files[3], request)
            # The terminal's own settings: every command of one mount is the same user's.
            arguments = [str(each) for each in _list(request.get("arguments"))]
            with _Streams(files[0], files[1], files[2], who):
                files = files[3:]
                status = self._status_of(arguments, is_member)
            self._done(arguments)
            # Whoever is told may unmount at once, and a working directory in the mount would be in the way.
            os.chdir("/")
            while files:
                os.close(files.pop())
            connection.sendall(_pack({"status": status}))
        finally:
            for fd in files:
                os.close(fd)

    def _status_of(self, arguments: list[str], is_member: bool) -> int:
        try:
            return self._run(permitted(arguments, self._path) if is_member else arguments)
        except NotPermitted as refused:
            print(f"idemfs: {refused}", file=sys.stderr)
            return 1
        except Exception:
            log.exception("the command %s failed", " ".join(arguments[:2]))
            print("idemfs: this command failed unexpectedly; the log of the mount tells more", file=sys.stderr)
            return 1


def _peer(connection: socket.socket) -> Caller:
    return Caller(*_PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)))


def _become(directory: int, request: dict[str, object]) -> None:
    """This thread's working directory and umask are the client's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_FS):
        raise OSError(ctypes.get_errno(), "cannot have a working directory of its own")
    os.fchdir(directory)
    umask = request.get("umask")
    os.umask(umask if isinstance(umask, int) else 0o077)


class _short_path:
    """A name of ``path``'s socket that fits a socket address, however long the path is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        name = os.path.join(self._path, SOCKET_NAME)
        if len(os.fsencode(name)) < 100:
            return name
        self._fd = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{SOCKET_NAME}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


# -- messages ------------------------------------------------------------------------------------------


def _pack(message: dict[str, object]) -> bytes:
    body = json.dumps(message).encode()
    return len(body).to_bytes(4, "big") + body


def _receive(connection: socket.socket, begun: bytes) -> dict[str, object] | None:
    """One message, of which ``begun`` has come; None if it ends early or is none."""
    data = bytearray(begun)
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        if len(data) > _MESSAGE_SIZE_MAX:
            return None
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    try:
        message = json.loads(data[4:])
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


# -- streams -------------------------------------------------------------------------------------------


class _OfThread(threading.local):
    stdin: io.TextIOBase | None = None
    stdout: io.TextIOBase | None = None
    stderr: io.TextIOBase | None = None
    caller: Caller | None = None


_of_thread = _OfThread()


class _Divided:
    """A standard stream that is another one in each thread that has its own."""

    def __init__(self, name: str, common: TextIO) -> None:
        self._name = name
        self._common = common

    def __getattr__(self, attribute: str) -> object:
        return getattr(getattr(_of_thread, self._name) or self._common, attribute)

    def __iter__(self) -> Iterator[str]:
        lines: Iterator[str] = iter(getattr(_of_thread, self._name) or self._common)
        return lines


def _divide_streams() -> None:
    for name in ("stdin", "stdout", "stderr"):
        common = getattr(sys, name)
        if not isinstance(common, _Divided):
            setattr(sys, name, _Divided(name, common))


class _Streams:
    """The streams of this thread while a command runs, and who asked for it; they are closed after it."""

    def __init__(self, stdin: int, stdout: int, stderr: int, who: Caller) -> None:
        _of_thread.caller = who
        _of_thread.stdin = os.fdopen(stdin, encoding="utf-8", errors="surrogateescape")
        _of_thread.stdout = os.fdopen(stdout, "w", encoding="utf-8", errors="surrogateescape")
        _of_thread.stderr = os.fdopen(stderr, "w", encoding="utf-8", errors="backslashreplace", buffering=1)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        _of_thread.caller = None
        for name in ("stdin", "stdout", "stderr"):
            stream = getattr(_of_thread, name)
            setattr(_of_thread, name, None)
            with suppress(OSError, ValueError):
                # Whoever read it may have gone.
                stream.close()
