"""``idemfs switchover STORE [--to PEER]``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_dry_run, add_store, add_yes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idemfs.failover.facts import Decision
    from idemfs.failover.stage import Stage


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--to", metavar="PEER", help="name or path of the standby, where there are several")
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs.cli.plans import perform
    from idemfs.failover import decisions

    def decide(stage: Stage) -> Decision:
        return decisions.switchover(*stage.facts(), to=stage.find(options.to) if options.to else None)

    perform(options, decide, lambda plan: f"Make {plan.target} primary and {plan.source} its standby?")
