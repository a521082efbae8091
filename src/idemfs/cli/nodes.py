"""What the commands ``idemfs node …`` share: the keys of the node whose configuration they are told."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from idemfs.node.keys import Keys


def keys_of(options: Namespace) -> Keys:
    """Raises ``ConfigError``."""
    from idemfs.clock import System
    from idemfs.node.config import read_config
    from idemfs.node.keys import Keys

    return Keys(read_config(options.config), System())
