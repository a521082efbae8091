"""The configuration file of ``idemfs serve``: TOML in, frozen values out, or one line that says what is wrong.

Two configurations compare equal, table by table, if they mean the same; so a reload sees what changed. Sizes,
lengths of time and rules are read here, once: whoever uses them finds numbers. ``docs/SERVE.md`` describes each key.

Every mistake is a ``ConfigError`` that names the file, the table and the key.

Threads: any; everything here is values.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Callable

import msgspec

from idemfs.errors import BadFilesetName, BadPolicy, ConfigError
from idemfs.limits import CONFIG_SIZE_MAX
from idemfs.node.config_table import Fields
from idemfs.snapshots import schedule
from idemfs.snapshots.policy import Policy
from idemfs.units import parse_count, parse_duration, parse_size
from idemfs.vfs.junctions import check_fileset_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):(\d{1,5})")
_WINDOW = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_OWN_MOUNT_OPTIONS = ("snapshot=", "writable")
_TARGETS = "/path, ssh://[user@]host[:port]/path, https://host:port/NAME or archive:/path"
_KEEP = {
    "last": "keep_last",
    "hourly": "keep_hourly",
    "daily": "keep_daily",
    "weekly": "keep_weekly",
    "monthly": "keep_monthly",
    "yearly": "keep_yearly",
    "matching": "keep_matching",
    "free": "keep_free_bytes",
}
"""The words of ``keep``, as the options of ``fileset schedule`` have them after ``--keep-``."""


class Address(msgspec.Struct, frozen=True):
    """Where to listen. Port 0: the kernel chooses one. An empty host: all addresses of the machine."""

    host: str
    port: int


class Window(msgspec.Struct, frozen=True):
    """Minutes of the day, in the link's time zone, from and up to. It wraps midnight where the end is not later."""

    start_minute: int
    end_minute: int


class EtcdConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``[etcd]``."""

    endpoints: tuple[str, ...]
    prefix: str = "/idemfs"
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class LinkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``[[store.link]]``. 0, the empty text and None mean: no such rule."""

    to: str
    every_seconds: int = 0
    cron: str = ""
    timezone: str = "UTC"
    """Of ``cron``, ``windows`` and ``keep``; it exists on this machine."""
    keep: Policy | None = None
    """Retention on the other side: only the fields ``keep_…`` and ``zone`` are set."""
    bandwidth: int = 0
    """Bytes a second."""
    guest_name: str | None = None
    """``as``: what the filesets are called in a store that others fill, too."""
    windows: tuple[Window, ...] = ()


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``[[store]]``."""

    name: str
    path: str
    mount: str | None = None
    mount_options: tuple[str, ...] = ()
    socket_group: str | None = None
    write_lease_seconds: int = 0
    automatic_failover: bool = False
    maximum_lag_seconds: int | None = None
    """How much a store may lack that takes over by itself; None: whatever it lacks."""
    links: tuple[LinkConfig, ...] = ()


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file: ``[node]``, ``[etcd]`` and the stores. Names, paths and mounts of stores are unique."""

    file: str
    name: str
    listen: Address | None = None
    url: str = ""
    """How others reach it; empty without ``listen``."""
    state: str = "/var/lib/idemfs"
    certificate: str | None = None
    """Of connections, with ``key``, instead of one that the node makes itself."""
    key: str | None = None
    ca: str | None = None
    """Whose certificates are believed, for the names of paired nodes, besides theirs."""
    log: str = "text"
    metrics: str = "token"
    etcd: EtcdConfig | None = None
    stores: tuple[StoreConfig, ...] = ()


def read_config(path: str) -> NodeConfig:
    """The configuration in the file ``path``. Raises ``ConfigError``."""
    try:
        with open(path, "rb") as file:
            data = file.read(CONFIG_SIZE_MAX + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; name the configuration with --config") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(data) > CONFIG_SIZE_MAX:
        raise ConfigError(f"{path}: is larger than {CONFIG_SIZE_MAX} bytes, and so no configuration")
    return parse_config(data, path)


def parse_config(data: bytes, path: str) -> NodeConfig:
    """What stands in the file ``path``. Raises ``ConfigError``."""
    try:
        top = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8, as TOML is") from None
    except (tomllib.TOMLDecodeError, RecursionError) as wrong:
        raise ConfigError(f"{path}: is no TOML: {wrong}") from None
    fields = Fields(path, "the file", top)
    node, etcd = fields.table("node", "[node]"), fields.table("etcd", "[etcd]")
    stores = [_store(each) for each in fields.tables("store", "[[store]]")]
    fields.end()
    config = _node(node or Fields(path, "[node]", {}), None if etcd is None else _etcd(etcd), tuple(stores))
    _require_apart(config)
    return config


def _node(fields: Fields, etcd: EtcdConfig | None, stores: tuple[StoreConfig, ...]) -> NodeConfig:
    host = socket.gethostname()
    name = fields.parsed("name", _name, host if _NAME.fullmatch(host) else "node")
    listen = fields.parsed("listen", _address, None)
    url = fields.parsed("url", _url, "")
    if listen is None:
        fields.refuse_without("url", "listen")
    found = NodeConfig(
        file=fields.file,
        name=name,
        listen=listen,
        url=url or (f"https://{name}:{listen.port}" if listen else ""),
        state=fields.parsed("state", _absolute, "/var/lib/idemfs"),
        certificate=fields.parsed("certificate", _absolute, None),
        key=fields.parsed("key", _absolute, None),
        ca=fields.parsed("ca", _absolute, None),
        log=fields.choice("log", ("text", "json")),
        metrics=fields.choice("metrics", ("token", "open")),
        etcd=etcd,
        stores=stores,
    )
    if (found.certificate is None) != (found.key is None):
        raise fields.wrong("certificate", "and key go together")
    fields.end()
    return found


def _etcd(fields: Fields) -> EtcdConfig:
    found = EtcdConfig(
        endpoints=fields.each("endpoints", _endpoint),
        prefix=fields.parsed("prefix", _prefix, "/idemfs"),
        ca=fields.parsed("ca", _absolute, None),
        cert=fields.parsed("cert", _absolute, None),
        key=fields.parsed("key", _absolute, None),
    )
    if not found.endpoints:
        raise fields.wrong("endpoints", 'is missing; write for example ["https://10.0.0.1:2379"]')
    if (found.cert is None) != (found.key is None):
        raise fields.wrong("cert", "and key go together")
    fields.end()
    return found


def _store(fields: Fields) -> StoreConfig:
    name = fields.parsed("name", _name, "")
    if not name:
        raise fields.wrong("name", "is missing")
    fields.label = f"[[store]] {name}"
    links = tuple(_link(each) for each in fields.tables("link", f"[[store.link]] of {name}"))
    found = StoreConfig(
        name=name,
        path=fields.parsed("path", _absolute, ""),
        mount=fields.parsed("mount", _absolute, None),
        mount_options=fields.each("mount_options", _mount_option),
        socket_group=fields.parsed("socket_group", _group, None),
        write_lease_seconds=fields.parsed("write_lease", _positive(parse_duration), 0),
        automatic_failover=fields.flag("automatic_failover"),
        maximum_lag_seconds=fields.parsed("maximum_lag", parse_duration, None),
        links=links,
    )
    if not found.path:
        raise fields.wrong("path", "is missing")
    if found.mount is None:
        fields.refuse_without("mount_options", "mount")
    fields.end()
    for at, link in enumerate(links):
        if any(link.to == other.to for other in links[:at]):
            raise ConfigError(f"{fields.file}: [[store.link]] of {name}: key to: there are two links to {link.to}")
    return found


def _link(fields: Fields) -> LinkConfig:
    to = fields.parsed("to", _target, "")
    if not to:
        raise fields.wrong("to", f"is missing; it is {_TARGETS}")
    fields.label += f" to {to}"
    zone = fields.parsed("timezone", _zone, "UTC")
    found = LinkConfig(
        to=to,
        every_seconds=fields.parsed("every", _positive(parse_duration), 0),
        cron=fields.parsed("cron", lambda text: _cron(text, zone), ""),
        timezone=zone,
        keep=fields.parsed("keep", lambda text: parse_keep(text, zone), None),
        bandwidth=fields.parsed("bandwidth", _bandwidth, 0),
        windows=fields.each("windows", _window),
        guest_name=fields.parsed("as", _guest_name, None),
    )
    if found.guest_name is not None and to.startswith("archive:"):
        raise fields.wrong("as", "is for stores; an archive is of one store")
    if bool(found.every_seconds) == bool(found.cron):
        raise fields.wrong("every", 'or cron says when the link runs: one of them; write for example every = "1s"')
    fields.end()
    return found


def _require_apart(config: NodeConfig) -> None:
    """Raises ``ConfigError`` if two stores have something in common, or want what the node has not."""
    for key in ("name", "path", "mount"):
        seen: dict[str, str] = {}
        for store in config.stores:
            value = getattr(store, key)
            if value is None:
                continue
            if value in seen:
                raise ConfigError(
                    f"{config.file}: [[store]] {store.name}: key {key}: {value} is that of {seen[value]} already"
                )
            seen[value] = f"[[store]] {store.name}"
    for store in config.stores:
        if store.automatic_failover and config.etcd is None:
            raise ConfigError(f"{config.file}: [[store]] {store.name}: key automatic_failover: needs a table [etcd]")


# -- values: each raises ValueError --------------------------------------------------------------------


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no name; up to 100 letters, digits, dots, hyphens and underscores")
    return text


def _address(text: str) -> Address:
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        raise ValueError(f"{text[:100]!r} is no address; write for example 0.0.0.0:7443 or [::]:7443")
    return Address(found[1].strip("[]"), int(found[2]))


def _url(text: str) -> str:
    if not re.fullmatch(r"https://[^/\s]+", text):
        raise ValueError(f"{text[:100]!r} is no URL of a node; write for example https://a.example:7443")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"{text[:100]!r} is no absolute path")
    return os.path.normpath("/" + text.lstrip("/"))


def _endpoint(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+", text):
        raise ValueError(f"{text[:100]!r} is no endpoint; write for example https://10.0.0.1:2379")
    return text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"/[^\s]*[^/\s]", text):
        raise ValueError(f"{text[:100]!r} is no prefix; write for example /idemfs")
    return text


def _mount_option(text: str) -> str:
    if not text or "," in text or text.startswith(_OWN_MOUNT_OPTIONS):
        raise ValueError(f"{text[:100]!r} is no option of a served mount; write for example allow_other, ro or nosuid")
    return text


def _group(text: str) -> str:
    from grp import getgrnam

    try:
        getgrnam(text)
    except (KeyError, ValueError):
        raise ValueError(f"this machine has no group {text[:100]!r}") from None
    return text


def _target(text: str) -> str:
    known = (
        r"/.*",
        r"archive:/.*",
        r"ssh://([^/@\s]+@)?(\[[^]\s]+\]|[^/@:\s-][^/@:\s]*)(:\d{1,5})?/.*",
        r"https://[^/@\s]+/[^/\s]+",
    )
    if not text.isprintable() or not any(re.fullmatch(each, text) for each in known):
        raise ValueError(f"{text[:200]!r} is nothing that a link leads to; it is {_TARGETS}")
    return text


def _guest_name(text: str) -> str:
    try:
        check_fileset_name(text)
    except BadFilesetName as bad:
        raise ValueError(str(bad)) from None
    return text


def _positive(parse: Callable[[str], int]) -> Callable[[str], int]:
    def parsed(text: str) -> int:
        found = parse(text)
        if found <= 0:
            raise ValueError(f"{text!r} is not more than 0")
        return found

    return parsed


def _bandwidth(text: str) -> int:
    return _positive(parse_size)(text.strip().removesuffix("/s"))


def _zone(text: str) -> str:
    _check(Policy(zone=text))
    return text


def _cron(text: str, zone: str) -> str:
    _check(Policy(cron=text, zone=zone))
    return text


def parse_keep(text: str, zone: str) -> Policy:
    rules: dict[str, int | str] = {}
    for word in text.split():
        rule, equals, value = word.partition("=")
        field = _KEEP.get(rule)
        if field is None or not equals or not value or field in rules:
            raise ValueError(
                f"{word[:100]!r}: write each of {', '.join(_KEEP)} at most once, as in 'last=10 hourly=24'"
            )
        rules[field] = value if rule == "matching" else parse_size(value) if rule == "free" else parse_count(value)
    if not rules:
        raise ValueError("is empty; write for example 'last=10 hourly=24', or leave it out to keep all")
    rules["zone"] = zone
    policy = Policy._make(rules.get(field, missing) for field, missing in Policy._field_defaults.items())
    _check(policy)
    return policy


def _check(policy: Policy) -> None:
    try:
        schedule.check_policy(policy)
    except BadPolicy as wrong:
        raise ValueError(str(wrong)) from None


def _window(text: str) -> Window:
    found = _WINDOW.fullmatch(text)
    hours_and_minutes = [int(each) for each in found.groups()] if found else []
    if not hours_and_minutes or max(hours_and_minutes[::2]) > 24 or max(hours_and_minutes[1::2]) > 59:
        raise ValueError(f"{text[:40]!r} is no window of time; write for example 22:00-06:00")
    start, end = (
        hour * 60 + minute for hour, minute in zip(hours_and_minutes[::2], hours_and_minutes[1::2], strict=True)
    )
    if start >= 1440 or end > 1440 or start == end:
        raise ValueError(f"{text!r} is no window of time: it begins by 23:59, ends by 24:00, and is not empty")
    return Window(start, end)
