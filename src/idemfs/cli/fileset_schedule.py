"""``idemfs fileset schedule STORE [FILESET]``: without an option it shows, else it changes what the options name."""

from __future__ import annotations

from idemfs.cli.filesets import add_fileset, snapshots_of
from idemfs.cli.operands import parse_count, parse_duration, parse_size
from idemfs.cli.parser import add_dry_run, add_store
from idemfs.cli.render import format_size
from idemfs.units import format_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from idemfs.api.schedule import Hooks, Policy, Schedule
    from idemfs.cli.render import Json

_NONE = "none"
_PERIODS = {"hourly": "hours", "daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_fileset(parser)
    parser.epilog = (
        f"'{_NONE}' as the value of an option ends that rule. What is not named stays as it is.\n{parser.epilog}"
    )
    when = parser.add_argument_group("when a snapshot is taken")
    _add(when.add_argument, "every", "TIME", "at multiples of 30s, 15m, 6h, 1d …", parse_duration, "every_seconds")
    _add(when.add_argument, "cron", "FIELDS", "minute hour day month weekday, as in crontab(5)", str)
    _add(when.add_argument, "zone", "NAME", "time zone of --cron, and of days and weeks (default: UTC)", str)
    _add(when.add_argument, "after-bytes", "SIZE", "as soon as so much has changed", parse_size)
    keep = parser.add_argument_group("which are kept, of those taken automatically")
    _add(keep.add_argument, "keep-last", "COUNT", "the newest", parse_count)
    for rule, periods in _PERIODS.items():
        _add(keep.add_argument, f"keep-{rule}", "COUNT", f"the newest of each of so many {periods}", parse_count)
    _add(keep.add_argument, "keep-matching", "REGEX", "all in whose name this is found", str)
    _add(
        keep.add_argument,
        "keep-free",
        "SIZE",
        "fewer, while the host has less free space",
        parse_size,
        "keep_free_bytes",
    )
    _add(keep.add_argument, "prune-matching", "REGEX", "the rules are about those of such names, too", str)
    _add(keep.add_argument, "lock", "TIME", "nobody can delete a snapshot that young", parse_duration, "lock_seconds")
    around = parser.add_argument_group("commands around each snapshot that it takes")
    around.add_argument("--before", metavar="CMD", action="append", help="run this first; if it fails, none is taken")
    around.add_argument("--after", metavar="CMD", action="append", help="run this at the end, whatever happened before")
    around.add_argument(
        "--hook-timeout", metavar="SECONDS", type=_seconds, help="kill a CMD after so long (default: 60)"
    )
    parser.add_argument("--clear", action="store_true", help="end all of it; snapshots stay")
    parser.add_argument("--json", action="store_true", help="write one object instead of lines")
    add_dry_run(parser)


def _add(
    add: Callable[..., object], name: str, metavar: str, what: str, parse: Callable[[str], Json], field: str = ""
) -> None:
    def value(text: str) -> Json:
        # None of the rule is what its field has in a policy that has no rules.
        return _NONE if text == _NONE else parse(text)

    add(f"--{name}", metavar=metavar, help=what, type=value, dest=field or name.replace("-", "_"))


def _seconds(text: str) -> float | str:
    return _NONE if text == _NONE else float(text)


def _hooks(options: Namespace, now: Hooks) -> Hooks:
    """What the hooks are to be."""
    if options.clear:
        return type(now)()
    before, after, seconds = options.before, options.after, options.hook_timeout
    return type(now)(
        now.before if before is None else () if before == [_NONE] else tuple(before),
        now.after if after is None else () if after == [_NONE] else tuple(after),
        now.timeout_seconds if seconds is None else type(now)().timeout_seconds if seconds == _NONE else seconds,
    )


def run(options: Namespace) -> None:
    from idemfs import api
    from idemfs.api.schedule import Policy
    from idemfs.cli.failures import UsageError
    from idemfs.errors import BadPolicy
    from idemfs.snapshots import hooks

    given = {name: value for name in Policy._fields if (value := getattr(options, name)) is not None}
    given_hooks = any(each is not None for each in (options.before, options.after, options.hook_timeout))
    if options.clear and (given or given_hooks):
        raise UsageError("--clear ends all rules: give it alone")
    changes = {name: Policy._field_defaults[name] if value == _NONE else value for name, value in given.items()}
    is_change = bool(changes or given_hooks) or options.clear
    with api.open(options.store, readonly=options.dry_run or not is_change) as fs:
        schedule = snapshots_of(fs, options.fileset).schedule
        wanted = Policy() if options.clear else schedule.policy._replace(**changes)
        around = _hooks(options, schedule.hooks)
        try:
            hooks.check(around)
            if options.dry_run:
                _show_outcome(schedule, wanted)
                return
            if changes or options.clear:
                schedule.set(wanted)
            if given_hooks or options.clear:
                schedule.set_hooks(around)
        except BadPolicy as wrong:
            raise UsageError(str(wrong)) from None
        _show(schedule, json=options.json)


def _show_outcome(schedule: Schedule, wanted: Policy) -> None:
    """What the first prune by these rules would delete."""
    verdicts = schedule.plan(wanted)
    going = [each for each in verdicts if not each.keeps]
    for each in going:
        print(f"would delete {each.snapshot.name}: {each.reason}")
    print(
        f"these rules would keep {len(verdicts) - len(going)} of {len(verdicts)} snapshots; "
        f"{format_size(schedule.bytes_freed(verdicts))} come back"
    )


def _show(schedule: Schedule, *, json: bool) -> None:
    from idemfs.api.schedule import Policy
    from idemfs.cli.names import in_one_row

    policy, due, hooks = schedule.policy, schedule.next_due(), schedule.hooks
    around = {"before": hooks.before, "after": hooks.after, "hook_timeout": hooks.timeout_seconds}
    if json:
        from json import dumps

        print(dumps({**policy._asdict(), **around, "next_due": due.isoformat() if due else None}, indent=2))
        return
    lines = [_line(name, value) for name, value in policy._asdict().items() if value != Policy._field_defaults[name]]
    if not lines:
        print("no schedule")
        return
    lines += [("before", each) for each in hooks.before] + [("after", each) for each in hooks.after]
    if hooks.before or hooks.after:
        lines.append(("hook timeout", f"{hooks.timeout_seconds:g} s"))
    lines.append(("next due", due.isoformat() if due else "-"))
    for name, shown in lines:
        print(f"{name.ljust(14)}  {in_one_row(shown)}")


def _line(name: str, value: int | str) -> tuple[str, str]:
    """A rule as its option is called, and written."""
    if isinstance(value, int) and name.endswith("_seconds"):
        return name.removesuffix("_seconds"), format_duration(value)
    if isinstance(value, int) and name.endswith("_bytes"):
        label = name if name == "after_bytes" else name.removesuffix("_bytes")
        return label.replace("_", " "), format_size(value)
    return name.replace("_", " "), str(value)
