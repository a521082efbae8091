"""``idemfs serve --config FILE``: the process that owns a machine's stores, until SIGTERM or SIGINT; SIGHUP reloads.

What else is to run in it is named here: a factory in ``store_parts`` for each store, or in ``node_parts`` once.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from idemfs.node.config import EtcdConfig, NodeConfig
    from idemfs.node.node import Node, NodePart, NodePartFactory
    from idemfs.node.owner import PartFactory
    from idemfs.node.signals import Signals


def arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--check", action="store_true", help="say whether the configuration is right, and serve nothing"
    )


def run(options: Namespace) -> None:
    from idemfs.node.config import read_config

    path = os.path.abspath(options.config)
    config = read_config(path)
    if options.check:
        stores = len(config.stores)
        print(f"{options.config}: is right; {stores} {'store' if stores == 1 else 'stores'}")
        return
    _serve(path, config)


def store_parts(config: NodeConfig, etcd: Callable[[], EtcdConfig | None]) -> Mapping[str, PartFactory]:
    """What runs beside each store, in the order in which it begins. ``etcd``: what is configured now."""
    from idemfs.mount.owner import mounting
    from idemfs.node.guard import guarding
    from idemfs.node.http.commit_times import COMMIT_TIMES, counting
    from idemfs.node.links import linking

    # The guard first: who mounts a store that requires a lease can write soon after, and to the end.
    return {
        COMMIT_TIMES: counting,
        "guard": lambda owner: guarding(owner, etcd),
        "mount": mounting,
        "links": linking(config.url),
    }


def node_parts() -> Mapping[str, NodePartFactory]:
    """What runs once, after the stores."""
    return {"https": _listening}


def _listening(node: Node) -> NodePart | None:
    """The network side, of which a node that does not listen imports nothing."""
    if node.config.listen is None:
        return None
    from idemfs.cli.served import ServedActions
    from idemfs.clock import System
    from idemfs.node.http.part import HttpPart

    return HttpPart(node, ServedActions(), System())


def _serve(path: str, config: NodeConfig) -> None:
    import logging
    import signal

    from idemfs.cli.mounting import tell_service_manager
    from idemfs.cli.serving import commands
    from idemfs.node import connecting
    from idemfs.node import log as logs
    from idemfs.node.http.reaching import own_addresses, reaching
    from idemfs.node.node import Node
    from idemfs.node.signals import Signals

    logs.configure(config.log)
    log = logging.getLogger("idemfs.node")
    signals = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    node = Node(config, commands(), store_parts(config, lambda: node.config.etcd), node_parts())
    connecting.https, connecting.own_address = reaching(node), own_addresses(node)
    try:
        node.start()
        log.info("node %s is ready", config.name)
        tell_service_manager("READY=1")
        _until_end(node, path, signals)
    finally:
        log.info("node %s ends", node.config.name)
        tell_service_manager("STOPPING=1")
        node.close()


def _until_end(node: Node, path: str, signals: Signals) -> None:
    import signal

    from idemfs.cli.mounting import tell_service_manager

    while signals.wait() == signal.SIGHUP:
        tell_service_manager(_reloading())
        _reload(node, path)
        tell_service_manager("READY=1")


def _reloading() -> str:
    """As systemd wants it of a unit of ``Type=notify-reload``."""
    from time import CLOCK_MONOTONIC, clock_gettime_ns

    return f"RELOADING=1\nMONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}"


def _reload(node: Node, path: str) -> None:
    import logging

    from idemfs.errors import ConfigError
    from idemfs.node import log as logs
    from idemfs.node.config import read_config

    log = logging.getLogger("idemfs.node")
    try:
        config = read_config(path)
    except ConfigError as wrong:
        log.error("the configuration is not reloaded, and the old one goes on: %s", wrong)
        return
    logs.configure(config.log)
    try:
        node.reload(config)
    except Exception:
        # What was not done is tried again, and what is served goes on.
        log.exception("the configuration is reloaded in part")
    else:
        log.info("the configuration is reloaded")
