"""The table of commands, and all help that is made of it alone.

Invariant: the command of words ``snapshot create`` is the module ``idemfs.cli.snapshot_create``; a hyphen in a word
is an underscore there.
This module imports nothing that costs time: ``idemfs --help`` is this table and no more.
"""

from __future__ import annotations

COMMANDS: dict[tuple[str, ...], str] = {
    ("init",): "make a store",
    ("put",): "copy a directory of this machine into a store",
    ("get",): "copy a directory of a store or snapshot to this machine",
    ("ls",): "list a directory of a store or snapshot",
    ("cat",): "write the content of a file to standard output",
    ("info",): "show what a store is and how much it holds",
    ("mount",): "show a store as a directory of this machine",
    ("umount",): "end a mount; the store is closed on return",
    ("serve",): "own the stores of this machine: mount them, run their schedules, serve other commands",
    ("node", "status"): "show the stores that a process serves, and what keeps any from being served",
    ("check",): "look for damage; say what is wrong and where",
    ("digest",): "print the digest of a snapshot, equal on every store that holds it",
    ("snapshot", "create"): "take a snapshot",
    ("snapshot", "list"): "list the snapshots, with the bytes that each owns",
    ("snapshot", "delete"): "delete snapshots, in any order",
    ("snapshot", "rename"): "give a snapshot another name",
    ("snapshot", "clone"): "make a writable fileset of a snapshot, at the cost of one record",
    ("snapshot", "restore"): "bring back a fileset, or one file or directory, as a snapshot has it",
    ("snapshot", "write"): "change files in a snapshot, and nowhere else",
    ("snapshot", "refresh"): "roll a snapshot forward to a newer one, or to the active state",
    ("snapshot", "diff"): "list what changed between two snapshots",
    ("snapshot", "find"): "list the versions of one file over all snapshots",
    ("snapshot", "space"): "say what snapshots own, and what comes back if they go",
    ("snapshot", "purge"): "remove a path from all snapshots, and keep a record of it",
    ("snapshot", "hold"): "keep a snapshot from being deleted",
    ("snapshot", "release"): "end a hold",
    ("snapshot", "lock"): "let nobody delete a snapshot before a date",
    ("snapshot", "prune"): "delete the snapshots that the rules of the schedule do not keep",
    ("snapshot", "run-due"): "take the snapshots that are due, and prune",
    ("fileset", "schedule"): "show or set when snapshots are taken, and which are kept",
    ("fileset", "create"): "make a fileset: a subtree with inode numbers, snapshots and a quota of its own",
    ("fileset", "list"): "list the filesets, with where they appear and what they take",
    ("fileset", "delete"): "delete a fileset with its snapshots",
    ("fileset", "quota"): "limit the bytes and inodes that a fileset holds",
    ("fileset", "rename"): "give a fileset another name",
    ("fileset", "attach"): "let a fileset appear at another directory",
    ("fileset", "promote"): "make a clone independent of the snapshot that it was made from",
    ("link", "create"): "make a link that leads to a file in the newest snapshot",
    ("send",): "write the change set of a snapshot to standard output",
    ("receive",): "apply the change set on standard input",
    ("stream", "show"): "describe the change set on standard input",
    ("archive", "write"): "write the snapshots that an archive of streams lacks",
    ("archive", "list"): "list the snapshots of an archive, with what restoring each takes",
    ("archive", "restore"): "make a standby of an archive, as at one of its snapshots",
    ("archive", "check"): "read all of an archive; say what is damaged, and what can be restored",
    ("archive", "purge"): "delete from an archive what shows what 'snapshot purge' removed in the store",
    ("archive", "prune"): "delete from an archive what rules do not keep, and no chain needs",
    ("standby", "add"): "make a store a standby of this one",
    ("standby", "list"): "list the standbys, and the snapshot that each has",
    ("standby", "remove"): "forget a standby",
    ("replicate",): "bring the standbys up to date",
    ("node", "init"): "make the key and certificate of this node",
    ("node", "pair"): "let this node and another one trust each other",
    ("node", "peers"): "list the nodes that this one trusts",
    ("node", "unpair"): "trust another node no more",
    ("node", "token"): "create, list and revoke tokens for the HTTPS API",
    ("links",): "show what the links of a store are doing",
    ("status",): "show role, epoch, snapshots and standbys",
    ("drill", "start"): "make a writable copy of what a standby has, to test with; replication goes on",
    ("drill", "mount"): "show a drill as a directory of this machine",
    ("drill", "list"): "list the drills, and what each has changed",
    ("drill", "end"): "throw a drill away",
    ("diverged", "list"): "list the snapshots that only this store had when another one had taken over",
    ("diverged", "release"): "say that a snapshot that diverged need not be reported any more, or delete it",
    ("peer",): "answer another store over standard input and output; what ssh runs",
    ("history",): "list transfers and changes of role, and who ordered them",
    ("failover",): "make a standby the primary when the old one is lost",
    ("failback",): "make an old primary the standby of the one that took over",
    ("automatic", "pause"): "let no store of the line take over by itself, for maintenance",
    ("automatic", "resume"): "let stores take over by themselves again",
    ("automatic", "status"): "show the write lease, who grants it, and what a takeover waits for",
    ("switchover",): "exchange primary and standby as planned, losing nothing",
}
"""The words of each command, and what it does in one line."""

GROUPS = {words[0] for words in COMMANDS if len(words) > 1}

EXIT_STATUS_HELP = "exit status: 0 done · 1 refused or failed (one line on standard error says why) · 2 wrong usage"


def module_name(words: tuple[str, ...]) -> str:
    return "idemfs.cli." + "_".join(words).replace("-", "_")


def phrase(words: tuple[str, ...]) -> str:
    return " ".join(words)


def _lines(chosen: dict[tuple[str, ...], str]) -> str:
    width = max(len(phrase(words)) for words in chosen)
    return "\n".join(f"  {phrase(words).ljust(width)}  {text}" for words, text in chosen.items())


def help_all() -> str:
    return f"""\
usage: idemfs COMMAND ...
       idemfs --version

A file system with instant snapshots, and a standby to fail over to and to come back from.

{_lines(COMMANDS)}

`idemfs COMMAND --help` tells more of one command; STORE@SNAPSHOT names a snapshot where one can be read.
{EXIT_STATUS_HELP}
documents: README.md and docs/ beside the source · in Python: help("idemfs")
"""


def help_group(group: str) -> str:
    chosen = {words: text for words, text in COMMANDS.items() if words[0] == group}
    return f"""\
usage: idemfs {group} {"|".join(words[1] for words in chosen)} ...

{_lines(chosen)}

`idemfs {group} COMMAND --help` tells more of one command.
{EXIT_STATUS_HELP}
"""


def did_you_mean(words: tuple[str, ...]) -> str | None:
    """The command that was most likely meant by these words, which are none."""
    import difflib

    known = {phrase(each): phrase(each) for each in COMMANDS}
    known |= {group: group for group in GROUPS}
    for each in COMMANDS:
        known.setdefault(each[-1], phrase(each))
    for tried in (phrase(words), words[-1]):
        for match in difflib.get_close_matches(tried, known, n=1, cutoff=0.6):
            return known[match]
    return None
