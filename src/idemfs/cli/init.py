"""``idemfs init STORE [--standby-of PRIMARY]``."""

from __future__ import annotations

from idemfs.cli.names import show_name
from idemfs.cli.operands import parse_size
from idemfs.cli.parser import add_store
from idemfs.cli.render import format_size
from idemfs.limits import BLOCK_SIZE_DEFAULT, BLOCK_SIZE_MAX, BLOCK_SIZE_MIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--block-size",
        metavar="SIZE",
        type=parse_size,
        help=f"a power of two from {format_size(BLOCK_SIZE_MIN)} to {format_size(BLOCK_SIZE_MAX)} "
        f"(default: {format_size(BLOCK_SIZE_DEFAULT)}); small files take less all the same",
    )
    parser.add_argument(
        "--compression",
        choices=("none", "zstd"),
        help="how blocks are stored; kept only where it saves space (default: none)",
    )
    parser.add_argument(
        "--standby-of",
        metavar="PRIMARY",
        help="make a standby of this store, with its block size and, unless chosen, its compression",
    )


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.failures import UsageError

    if options.standby_of is not None:
        _make_standby(options)
        return
    size = BLOCK_SIZE_DEFAULT if options.block_size is None else options.block_size
    try:
        fs = api.create(options.store, block_size=size, compression=options.compression or "none")
    except ValueError as wrong:
        raise UsageError(str(wrong)) from None
    fs.close()
    print(f"{show_name(options.store)}: made, blocks of {format_size(size)}")


def _make_standby(options: Namespace) -> None:
    import os

    from idemfs.cli.failures import UsageError
    from idemfs.errors import StoreExists
    from idemfs.failover.standbys import add_standby

    if options.block_size is not None:
        raise UsageError("a standby has the block size of its primary: leave --block-size out")
    if os.path.exists(os.path.join(options.store, "superblock")):
        raise StoreExists(f"{options.store}: is a store already; 'idemfs standby add' can take it over")
    peer = add_standby(options.standby_of, options.store, compression=options.compression)
    print(f"{show_name(peer.path)}: made, a standby of {show_name(options.standby_of)}")
