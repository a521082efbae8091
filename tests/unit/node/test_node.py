"""All stores of a process: one that fails keeps no other from being served, and a reload touches what changed alone."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from idemfs.cli.main import main
from idemfs.engines.lock import owner
from idemfs.errors import ConnectionLost
from idemfs.failover.remote import RemoteParty
from idemfs.ids import Guid
from idemfs.node.config import LinkConfig, NodeConfig, StoreConfig
from idemfs.node.local_socket import TAKES_MOUNTS, inquire, stays
from idemfs.node.node import Node
from idemfs.node.owner import Commands, OwnedStore, Shown, owned_here
from idemfs.node.peer import serve_peer
from idemfs.node.progress import LinkStatus
from idemfs.replication.channel import Channel
from idemfs.replication.remote import RemoteReceiver
from idemfs.replication.session import Session
from idemfs.store.files import create_files
from idemfs.testing.connected import channels

NO_COMMANDS = Commands(lambda _arguments: 1, lambda _arguments: False, lambda _arguments: False)


class Recorder:
    """A part that notes what becomes of it. It takes on another schedule of links, and nothing else."""

    def __init__(self, owned: OwnedStore, notes: list[str]) -> None:
        self.config = owned.config
        self._notes = notes

    def note(self, what: str) -> None:
        self._notes.append(f"{what} {os.path.basename(self.config.path)} {self.config.mount or '-'}")

    def start(self) -> None:
        if self.config.mount == "/taken":
            raise OSError("is taken")
        self.note("start")

    def wake(self) -> None:
        self.note("wake")

    def close(self) -> None:
        self.note("close")

    def configure(self, config: StoreConfig) -> bool:
        if config.mount != self.config.mount:
            return False
        if config.links != self.config.links:
            self.note("links of")
        self.config = config
        return True


class World:
    """Stores ``a`` and ``b``, and a node that serves what it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        for name in ("a", "b"):
            create_files(str(path / name))

    def store(self, name: str, mount: str | None = None, links: tuple[LinkConfig, ...] = ()) -> StoreConfig:
        return StoreConfig(name=name, path=str(self.path / name), mount=mount, links=links)

    def config(self, *stores: StoreConfig) -> NodeConfig:
        return NodeConfig(file="f", name="n", stores=stores)

    def part(self, owned: OwnedStore) -> Recorder | None:
        return Recorder(owned, self.notes) if owned.config.mount else None

    @contextmanager
    def node(self, *stores: StoreConfig) -> Iterator[Node]:
        node = Node(self.config(*stores), NO_COMMANDS, {"mount": self.part})
        node.start()
        try:
            yield node
        finally:
            node.close()

    def taken(self) -> list[str]:
        """Notes since the last time."""
        notes, self.notes[:] = list(self.notes), []
        return notes


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_it_serves_and_ends(world: World) -> None:
    with world.node(world.store("a", "/m"), world.store("b")) as node:
        status = node.status()
        assert [(each.name, each.is_served, each.role, each.epoch) for each in status.stores] == [
            ("a", True, "primary", 1),
            ("b", True, "primary", 1),
        ]
        assert world.taken() == ["start a /m"]
        owned = node.store("a")
        assert owned is not None and owned in node.stores() and node.store("none") is None
        owned.wake()
        assert world.taken() == ["wake a /m"]
        assert owner(owned.path) == os.getpid() and (world.path / "a/socket").exists()
        assert msgspec.json.decode(msgspec.json.encode(status))["stores"][1]["mount"] is None
    assert world.taken() == ["close a /m"]
    assert owner(str(world.path / "a")) is None and not (world.path / "a/socket").exists()


def test_a_store_that_cannot_be_opened_hinders_no_other_and_is_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    superblock = world.path / "a/superblock"
    kept = superblock.read_bytes()
    superblock.write_bytes(b"x" * len(kept))
    config = world.config(world.store("a", "/m"), world.store("b", "/n"))
    with caplog.at_level(logging.INFO, "idemfs.node"), world.node(*config.stores) as node:
        assert world.taken() == ["start b /n"]
        first, second = node.status().stores
        assert (first.is_served, first.role, second.is_served) == (False, None, True)
        assert str(world.path / "a") in first.problems["store"]
        node.reload(config)
        assert caplog.text.count("is not served, and tried again") == 1, "the same is not said twice"
        superblock.write_bytes(kept)
        node.reload(config)
        assert world.taken() == ["start a /m"] and node.status().stores[0].is_served


def test_a_part_that_cannot_start_is_a_problem_and_tried_again(world: World) -> None:
    with world.node(world.store("a", "/taken")) as node:
        (status,) = node.status().stores
        assert status.is_served and status.problems == {"mount": "is taken"}
        node.reload(world.config(world.store("a", "/m")))
        assert node.status().stores[0].problems == {} and world.taken() == ["start a /m"]


def test_a_store_that_failed_is_opened_again(world: World) -> None:
    config = world.config(world.store("a", "/m"))
    with world.node(*config.stores) as node:
        failed = node.store("a")
        assert failed is not None
        failed.tree.store.stop(OSError("the disk is gone"))
        (status,) = node.status().stores
        assert not status.is_served and "the disk is gone" in status.problems["store"]
        node.reload(config)
        again = node.store("a")
        assert again is not None and again is not failed and again.tree.store.failure is None
        assert world.taken() == ["start a /m", "close a /m", "start a /m"]
        assert node.status().stores[0].is_served


def test_a_reload_touches_what_changed(world: World) -> None:
    link = LinkConfig(to="/c", every_seconds=1)
    with world.node(world.store("a", "/m"), world.store("b", "/n")) as node:
        kept = node.store("a")
        world.taken()
        node.reload(world.config(world.store("a", "/m"), world.store("b", "/n")))
        assert world.taken() == []
        node.reload(world.config(world.store("a", "/m", (link,)), world.store("b", "/n")))
        assert world.taken() == ["links of a /m"]
        renamed = msgspec.structs.replace(world.store("a", "/m", (link,)), name="other")
        node.reload(world.config(renamed, world.store("b", "/n")))
        assert world.taken() == [] and node.store("other") is kept
        node.reload(world.config(world.store("a", "/n", (link,)), world.store("b", "/m")))
        assert world.taken() == ["close a /m", "close b /n", "start a /n", "start b /m"], "all close before any starts"
        node.reload(world.config(world.store("a", "/n", (link,))))
        assert world.taken() == ["close b /m"] and owner(str(world.path / "b")) is None
        node.reload(world.config(world.store("a"), world.store("b")))
        assert world.taken() == ["close a /n"] and owner(str(world.path / "b")) == os.getpid()
        assert node.store("a") is kept


def test_a_store_that_goes_ends_the_sessions_that_use_it(world: World) -> None:
    """They came by other ways than its socket, as those of other nodes do."""
    path = str(world.path / "a")
    with world.node(world.store("a"), world.store("b")) as node:
        with asking(path) as receiver:
            store = node.stores()[0].tree.store
            assert receiver.guid == store.superblock.guid
            receiver.stand()
            # As one that is in the midst of a long question.
            store.claim.take()
            claiming = threading.Thread(target=claim, args=(receiver,))
            claiming.start()
            wait_until(lambda: store.claim.is_wanted)
            reloading = threading.Thread(target=node.reload, args=(world.config(world.store("b")),))
            reloading.start()
            wait_until(lambda: [each.name for each in node.stores()] == ["b"])
            assert owner(path) == os.getpid()
            store.claim.release()
            reloading.join(60)
            claiming.join(60)
            with pytest.raises(ConnectionLost):
                receiver.stand()
        assert owner(path) is None
        with asking(path) as receiver:
            receiver.stand()


@contextmanager
def asking(path: str) -> Iterator[RemoteReceiver]:
    """A session with the store at ``path`` in this process, from another store."""
    here, there = channels()
    thread = threading.Thread(target=serve, args=(there, path))
    thread.start()
    try:
        with Session(here, Guid(b"?" * 16)) as session:
            yield RemoteReceiver(session)
    finally:
        thread.join(60)
        there.close()


def serve(channel: Channel, path: str) -> None:
    with suppress(ConnectionLost):
        serve_peer(channel, path)


def claim(receiver: RemoteReceiver) -> None:
    with suppress(ConnectionLost):
        RemoteParty(receiver._session).claim()


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        os.sched_yield()


def test_one_store_by_two_paths(world: World) -> None:
    os.symlink("a", world.path / "link")
    with world.node(world.store("a"), world.store("link")) as node:
        first, second = node.status().stores
        assert first.is_served and f"in use by process {os.getpid()}" in second.problems["store"]


class Server:
    """A part that a node has once."""

    def __init__(self, node: Node, notes: list[str]) -> None:
        self._name = node.config.name
        self._notes = notes
        self._stores = [owned.name for owned in node.stores()]

    def start(self) -> None:
        if self._name == "unlucky":
            raise OSError("no port")
        self._notes.append(f"listen {self._name} {self._stores}")

    def close(self) -> None:
        self._notes.append(f"stop {self._name}")

    def configure(self, config: NodeConfig) -> bool:
        return config.name == self._name


def test_a_part_of_the_node(world: World) -> None:
    config = world.config(world.store("a", "/m"))
    node = Node(config, NO_COMMANDS, {"mount": world.part}, {"server": lambda node: Server(node, world.notes)})
    node.start()
    assert world.taken() == ["start a /m", "listen n ['a']"]
    node.reload(config)
    assert world.taken() == []
    node.reload(msgspec.structs.replace(config, name="unlucky"))
    assert world.taken() == ["stop n"] and node.status().problems == {"server": "no port"}
    node.reload(config)
    assert world.taken() == ["listen n ['a']"] and node.status().problems == {}
    node.close()
    assert world.taken() == ["stop n", "close a /m"]


class MountPart(Recorder):
    """A part that somebody asked for besides."""

    is_there = True

    def shown(self) -> Shown | None:
        return Shown("/besides", "fileset try") if self.is_there else None


def besides(owned: OwnedStore, notes: list[str]) -> MountPart:
    part = MountPart(owned, notes)
    part.config = msgspec.structs.replace(owned.config, mount="/besides")
    return part


def test_a_part_besides_lives_as_long_as_it_likes(world: World) -> None:
    with world.node(world.store("a", "/m")) as node:
        owned = node.store("a")
        assert owned is not None and owned_here[str(world.path / "a")] is owned
        part = besides(owned, world.notes)
        owned.add("mount on /besides", part)
        with pytest.raises(OSError, match="already"):
            owned.add("mount on /besides", part)
        assert node.status().stores[0].more_mounts == {"/besides": "fileset try"}
        owned.wake()
        assert world.taken() == ["start a /m", "start a /besides", "wake a /m", "wake a /besides"]
        owned.drop(part)
        owned.drop(part)
        assert node.status().stores[0].more_mounts == {}
        owned.add("mount on /besides", part)
        world.taken()
    assert world.taken() == ["close a /besides", "close a /m"]
    assert str(world.path / "a") not in owned_here
    with pytest.raises(OSError, match="is ending"):
        owned.add("mount on /besides", part)
    assert world.taken() == []


def test_who_only_mounts_retires_when_nothing_is_mounted(world: World) -> None:
    with world.node(world.store("a")) as node:
        owned = node.store("a")
        assert owned is not None
        owned.outlives_mount = False
        part = besides(owned, world.notes)
        owned.add("mount on /besides", part)
        assert stays(owned.path) is True and inquire(owned.path, TAKES_MOUNTS) is True
        assert not owned.retire()
        part.is_there = False
        assert stays(owned.path) is False and inquire(owned.path, TAKES_MOUNTS) is False
        assert owned.retire()
        with pytest.raises(OSError, match="is ending"):
            owned.add("mount on /other", besides(owned, world.notes))


class LinksPart(Recorder):
    def links(self) -> list[LinkStatus]:
        return [LinkStatus(to="/far", state="failed", reason="is gone", lag_seconds=2.0)]


def test_status_has_links_and_problems(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "n.toml"
    config.write_text(f'[node]\nname = "n"\n[[store]]\nname = "a"\npath = "{tmp_path}/a"\n')
    with world.node(world.store("a")) as node:
        owned = node.store("a")
        assert owned is not None
        owned.add("links", LinksPart(owned, world.notes))
        owned.add("mount on /besides", besides(owned, world.notes))
        owned.report("link /far", "is gone")
        owned.report("guard", "has no lease")
        assert node.status().stores[0].links == [] and len(node.status(with_links=True).stores[0].links) == 1
        capsys.readouterr()
        assert main(["node", "status", "--config", str(config)]) == 0
        text = capsys.readouterr().out
        assert "guard: has no lease; fileset try on /besides" in text
        store, empty, head, link = text.splitlines()[1:]
        assert store.startswith("a ") and empty == "" and head.split()[:3] == ["STORE", "LINK", "STATE"]
        assert link.split()[:5] == ["a", "/far", "failed", "2.0", "s"] and link.endswith("is gone")
        assert main(["node", "status", "--config", str(config), "--json"]) == 0
        (shown,) = msgspec.json.decode(capsys.readouterr().out)["stores"]
        assert shown["links"][0]["reason"] == "is gone" and shown["problems"]["link /far"] == "is gone"
