"""``idemfs node token create|list|revoke --config FILE``. A token is shown once; what is kept tells it again."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.failures import UsageError
from idemfs.cli.nodes import keys_of
from idemfs.cli.parser import add_config, add_json
from idemfs.cli.render import Column, format_time_ns, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.cli.render import Json

_NAME_SIZE_MAX = 100


def arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("action", metavar="create|list|revoke", choices=("create", "list", "revoke"))
    parser.add_argument("name", metavar="NAME", nargs="?", help="what the token is called, such as who has it")
    parser.add_argument(
        "--scope",
        choices=("read", "admin", "peer"),
        help="look at everything, also order snapshots and roles, or speak for another node (default: read)",
    )
    parser.add_argument("--expires", metavar="TIME", help="how long it is good, such as 90d (default: until revoked)")
    add_json(parser)


def run(options: Namespace) -> None:
    if (options.action == "list") == (options.name is not None):
        raise UsageError("'create' and 'revoke' take a NAME, 'list' takes none")
    if options.action != "create" and (options.scope or options.expires):
        raise UsageError("--scope and --expires go with 'create'")
    keys = keys_of(options)
    if options.action == "create":
        from idemfs.node.tokens import Scope

        print(keys.add_token(_name(options.name), Scope(options.scope or "read"), _seconds(options.expires)))
    elif options.action == "revoke":
        keys.remove_token(options.name)
    else:
        rows: list[dict[str, Json]] = [
            {
                "name": token.name,
                "scope": token.scope.value,
                "created": format_time_ns(token.created_ns),
                "expires": None if token.expires_ns is None else format_time_ns(token.expires_ns),
            }
            for token in keys.tokens()
        ]
        listing(rows, [Column("name"), Column("scope"), Column("created"), Column("expires")], json=options.json)


def _name(text: str) -> str:
    if not text.isprintable() or not 0 < len(text) <= _NAME_SIZE_MAX:
        raise UsageError(f"a token has a name of 1 to {_NAME_SIZE_MAX} printable characters")
    return text


def _seconds(text: str | None) -> int | None:
    from idemfs.limits import SCHEDULE_SECONDS_MAX
    from idemfs.units import parse_duration

    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as wrong:
        raise UsageError(f"--expires: {wrong}") from wrong
    if not 0 < seconds < SCHEDULE_SECONDS_MAX:
        raise UsageError("--expires: a token is good for more than a second, and less than a century")
    return seconds
