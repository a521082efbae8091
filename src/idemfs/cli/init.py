"""``idemfs init STORE``."""

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
        default=BLOCK_SIZE_DEFAULT,
        help=f"a power of two from {format_size(BLOCK_SIZE_MIN)} to {format_size(BLOCK_SIZE_MAX)} "
        f"(default: {format_size(BLOCK_SIZE_DEFAULT)}); small files take less all the same",
    )
    parser.add_argument(
        "--compression",
        choices=("none", "zstd"),
        default="none",
        help="how blocks are stored; kept only where it saves space (default: none)",
    )


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.cli.failures import UsageError

    try:
        fs = api.create(options.store, block_size=options.block_size, compression=options.compression)
    except ValueError as wrong:
        raise UsageError(str(wrong)) from None
    fs.close()
    print(f"{show_name(options.store)}: made, blocks of {format_size(options.block_size)}")
