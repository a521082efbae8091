"""``idemfs node init --config FILE``: `serve` and `node pair` do the same when they find nothing."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.nodes import keys_of
from idemfs.cli.parser import add_config


def arguments(parser: ArgumentParser) -> None:
    add_config(parser)


def run(options: Namespace) -> None:
    from idemfs.cli.names import show_name
    from idemfs.cli.render import format_time_ns
    from idemfs.node.certificates import expires_ns

    keys = keys_of(options)
    keys.prepare()
    rows = [
        ("name", keys.name),
        ("url", keys.url() or "-"),
        ("fingerprint", keys.fingerprint()),
        ("certificate", f"{keys.shown().certificate}, until {format_time_ns(expires_ns(keys.certificate()))}"),
    ]
    for name, text in rows:
        print(f"{name.ljust(11)}  {show_name(text)}")
