"""A configuration says what it means, and each mistake in it is one line with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from idemfs.errors import ConfigError
from idemfs.node.config import (
    Address,
    EtcdConfig,
    LinkConfig,
    NodeConfig,
    StoreConfig,
    Window,
    parse_config,
    read_config,
)
from idemfs.snapshots.policy import Policy

WHOLE = """
[node]
name = "a"
listen = "[::]:7443"
url = "https://a.example:7443"
state = "/var/lib/idemfs/"
log = "json"
metrics = "open"

[etcd]
endpoints = ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]
ca = "/etc/ca.pem"
cert = "/etc/a.pem"
key = "/etc/a.key"
prefix = "/files"

[[store]]
name = "data"
path = "/srv//data/"
mount = "/mnt/data"
mount_options = ["allow_other", "ro"]
socket_group = "root"
write_lease = "10s"
automatic_failover = true

[[store.link]]
to = "https://b:7443/data"
every = "1s"
keep = "last=10 hourly=24 free=1GiB matching=^week"
bandwidth = "20MB/s"
windows = ["22:00-06:00", "12:00-24:00"]
timezone = "Europe/Berlin"

[[store.link]]
to = "archive:/srv/archive"
cron = "0 3 * * *"

[[store]]
name = "other"
path = "/srv/other"
"""


def test_every_key_is_read() -> None:
    berlin = "Europe/Berlin"
    first = LinkConfig(
        to="https://b:7443/data",
        every_seconds=1,
        timezone=berlin,
        keep=Policy(keep_last=10, keep_hourly=24, keep_free_bytes=1 << 30, keep_matching="^week", zone=berlin),
        bandwidth=20_000_000,
        windows=(Window(22 * 60, 6 * 60), Window(12 * 60, 24 * 60)),
    )
    data = StoreConfig(
        name="data",
        path="/srv/data",
        mount="/mnt/data",
        mount_options=("allow_other", "ro"),
        socket_group="root",
        write_lease_seconds=10,
        automatic_failover=True,
        links=(first, LinkConfig(to="archive:/srv/archive", cron="0 3 * * *")),
    )
    assert parse_config(WHOLE.encode(), "f") == NodeConfig(
        file="f",
        name="a",
        listen=Address("::", 7443),
        url="https://a.example:7443",
        state="/var/lib/idemfs",
        log="json",
        metrics="open",
        etcd=EtcdConfig(
            endpoints=("https://10.0.0.1:2379", "https://10.0.0.2:2379"),
            prefix="/files",
            ca="/etc/ca.pem",
            cert="/etc/a.pem",
            key="/etc/a.key",
        ),
        stores=(data, StoreConfig(name="other", path="/srv/other")),
    )


def test_what_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "idemfs.toml"
    file.write_text('[node]\nname = "b"\nlisten = "0.0.0.0:1"\n')
    config = read_config(str(file))
    assert (config.url, config.state, config.log, config.metrics) == ("https://b:1", "/var/lib/idemfs", "text", "token")
    assert (config.file, config.stores, config.etcd) == (str(file), (), None)
    file.write_text("")
    config = read_config(str(file))
    assert config.name and (config.listen, config.url) == (None, "")


@pytest.mark.parametrize(
    "to",
    ["/srv/b", "ssh://b/srv/b", "ssh://me@b:2222/srv/b", "ssh://[::1]:22/srv/b", "https://b:7443/data", "archive:/a"],
)
def test_where_links_lead(to: str) -> None:
    text = f'[[store]]\nname = "a"\npath = "/a"\n[[store.link]]\nto = "{to}"\nevery = "1s"\n'
    assert parse_config(text.encode(), "f").stores[0].links[0].to == to


STORE = '[[store]]\nname = "a"\npath = "/a"\n'
LINK = STORE + '[[store.link]]\nto = "/b"\n'


@pytest.mark.parametrize(
    ("text", "table", "key", "what"),
    [
        ("x = 1", "the file", "x", "unknown"),
        ("node = 1", "the file", "node", "is a table: write [node]"),
        ("store = 1", "the file", "store", "write [[store]]"),
        ("[store]\nname = 'a'", "the file", "store", "write [[store]]"),
        ("[node]\nnome = 'a'", "[node]", "nome", "unknown"),
        ("[node]\nname = 3", "[node]", "name", "is a text, not a number"),
        ("[node]\nname = 'a b'", "[node]", "name", "no name"),
        ("[node]\nname = 2026-01-01", "[node]", "name", "not a date"),
        ("[node]\nlisten = '7443'", "[node]", "listen", "no address"),
        ("[node]\nlisten = 'a:70000'", "[node]", "listen", "no address"),
        ("[node]\nurl = 'https://a'", "[node]", "url", "nothing without listen"),
        ("[node]\nlisten = ':1'\nurl = 'http://a'", "[node]", "url", "no URL"),
        ("[node]\nstate = 'var'", "[node]", "state", "no absolute path"),
        ("[node]\nlog = 'xml'", "[node]", "log", "none of: text, json"),
        ("[node]\nmetrics = 'all'", "[node]", "metrics", "none of: token, open"),
        ("[etcd]", "[etcd]", "endpoints", "is missing"),
        ("[etcd]\nendpoints = 'http://a'", "[etcd]", "endpoints", "is a list"),
        ("[etcd]\nendpoints = ['a']", "[etcd]", "endpoints", "no endpoint"),
        ("[etcd]\nendpoints = ['http://a']\ncert = '/a'", "[etcd]", "cert", "go together"),
        ("[etcd]\nendpoints = ['http://a']\nprefix = '/'", "[etcd]", "prefix", "no prefix"),
        ("[[store]]\npath = '/a'", "[[store]], number 1", "name", "is missing"),
        ("[[store]]\nname = 'a'", "[[store]] a", "path", "is missing"),
        (STORE + "mount_options = ['ro']", "[[store]] a", "mount_options", "nothing without mount"),
        (STORE + "mount = '/m'\nmount_options = ['a,b']", "[[store]] a", "mount_options", "no option"),
        (STORE + "mount = '/m'\nmount_options = ['snapshot=x']", "[[store]] a", "mount_options", "no option"),
        (STORE + "socket_group = 'no such'", "[[store]] a", "socket_group", "no group"),
        (STORE + "write_lease = '0s'", "[[store]] a", "write_lease", "not more than 0"),
        (STORE + "automatic_failover = 'yes'", "[[store]] a", "automatic_failover", "is true or false"),
        (STORE + "automatic_failover = true", "[[store]] a", "automatic_failover", "needs a table [etcd]"),
        (STORE + STORE, "[[store]] a", "name", "is that of"),
        (STORE + STORE.replace("'a'", "'b'").replace('"a"', '"b"'), "[[store]] b", "path", "is that of [[store]] a"),
        (STORE + "[[store.link]]", "[[store.link]] of a, number 1", "to", "is missing"),
        (STORE + "[[store.link]]\nto = 'ftp://a/b'", "[[store.link]] of a, number 1", "to", "nothing that a link"),
        (STORE + "[[store.link]]\nto = 'ssh://-oX/b'", "[[store.link]] of a, number 1", "to", "nothing that a link"),
        (LINK, "[[store.link]] of a, number 1 to /b", "every", "or cron"),
        (LINK + "every = '1s'\ncron = '* * * * *'", "[[store.link]] of a, number 1 to /b", "every", "one of them"),
        (LINK + "every = 'soon'", "[[store.link]] of a, number 1 to /b", "every", "no length of time"),
        (LINK + "cron = '* * *'", "[[store.link]] of a, number 1 to /b", "cron", "five fields"),
        (LINK + "timezone = 'Mars'", "[[store.link]] of a, number 1 to /b", "timezone", "no time zone"),
        (LINK + "keep = 'all'", "[[store.link]] of a, number 1 to /b", "keep", "last=10"),
        (LINK + "keep = 'last=1 last=2'", "[[store.link]] of a, number 1 to /b", "keep", "at most once"),
        (LINK + "keep = 'last=x'", "[[store.link]] of a, number 1 to /b", "keep", "no number"),
        (LINK + "keep = 'matching=('", "[[store.link]] of a, number 1 to /b", "keep", "regular expression"),
        (LINK + "keep = ' '", "[[store.link]] of a, number 1 to /b", "keep", "is empty"),
        (LINK + "every = '1s'\nas = 'a/b'", "[[store.link]] of a, number 1 to /b", "as", "fileset name"),
        (
            LINK.replace("/b", "archive:/b") + "every = '1s'\nas = 'a'",
            "[[store.link]] of a, number 1 to archive:/b",
            "as",
            "an archive is of one store",
        ),
        (LINK + "bandwidth = 'fast'", "[[store.link]] of a, number 1 to /b", "bandwidth", "no size"),
        (LINK + "windows = ['9-5']", "[[store.link]] of a, number 1 to /b", "windows", "no window"),
        (LINK + "windows = ['09:00-09:00']", "[[store.link]] of a, number 1 to /b", "windows", "not empty"),
        (LINK + "windows = ['24:00-09:00']", "[[store.link]] of a, number 1 to /b", "windows", "begins by 23:59"),
        (
            LINK + "every = '1s'\n[[store.link]]\nto = '/b'\nevery = '2s'",
            "[[store.link]] of a",
            "to",
            "two links to /b",
        ),
        (
            LINK + "every = '1s'\nextra = 1",
            "[[store.link]] of a, number 1 to /b",
            "extra",
            "known: as, bandwidth, cron",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, table: str, key: str, what: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(text.encode(), "/etc/f.toml")
    line = str(raised.value)
    assert line.startswith(f"/etc/f.toml: {table}: key {key}: ") and what in line and "\n" not in line


def test_what_is_no_configuration_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"f: is no TOML: .*line 2"):
        parse_config(b"a = 1\nb =\n", "f")
    with pytest.raises(ConfigError, match="f: is not UTF-8"):
        parse_config(b"\xff", "f")
    with pytest.raises(ConfigError, match="no such file; name the configuration with --config"):
        read_config(str(tmp_path / "missing"))
    (tmp_path / "large").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="is larger than"):
        read_config(str(tmp_path / "large"))


@pytest.mark.parametrize(
    "text",
    [
        "no = 1",
        "[node]\nno = 1",
        "[etcd]\nendpoints = ['http://a']\nno = 1",
        f"{STORE}no = 1",
        f"{LINK}every = '1s'\nno = 1",
    ],
)
def test_the_document_has_each_key(text: str) -> None:
    with pytest.raises(ConfigError, match="key no: is unknown here; known: ") as raised:
        parse_config(text.encode(), "f")
    known = str(raised.value).partition("known: ")[2].split(", ")
    document = (Path(__file__).parents[3] / "docs/SERVE.md").read_text()
    tables = "".join(line for line in document.splitlines() if line.startswith("|"))
    shown = ("`{}`", "[{}]", ".{}]")
    assert len(known) > 2
    assert [key for key in known if not any(form.format(key) in tables for form in shown)] == []
