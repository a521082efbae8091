"""What the commands ``idemfs node …`` share: the configuration they are told, and the keys of that node."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.node.keys import Keys


def add_config(parser: ArgumentParser) -> None:
    """``options.config: str``."""
    parser.add_argument("--config", metavar="FILE", required=True, help="configuration of the node, as for 'serve'")


def keys_of(options: Namespace) -> Keys:
    """Raises ``ConfigError``."""
    from idemfs.clock import System
    from idemfs.node.config import read_config
    from idemfs.node.keys import Keys

    return Keys(read_config(options.config), System())
