"""Dispatch: which command runs, what the process returns, and that each failure is one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from idemfs.cli import commands
from idemfs.cli.failures import Refused, UsageError
from idemfs.cli.main import main
from idemfs.cli.operands import Target
from idemfs.cli.parser import add_dry_run, add_json, add_store, add_target, add_yes
from idemfs.errors import NotPrimary, StoreMissing

Capture = pytest.CaptureFixture[str]


def install(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], run: Callable[[Namespace], int | None]) -> None:
    """Put a command into the table whose arguments are the common ones."""

    def arguments(parser: ArgumentParser) -> None:
        add_store(parser)
        add_json(parser)
        add_yes(parser)
        add_dry_run(parser)

    module = ModuleType(commands.module_name(words))
    vars(module).update(arguments=arguments, run=run)
    monkeypatch.setitem(commands.COMMANDS, words, "do what the test says")
    monkeypatch.setitem(sys.modules, module.__name__, module)


def fail_with(error: BaseException) -> Callable[[Namespace], int | None]:
    def run(options: Namespace) -> int | None:
        raise error

    return run


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_names_every_command_and_exit_status(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for words, text in commands.COMMANDS.items():
        assert f"  {' '.join(words)} " in out and text in out
    assert "exit status: 0 done" in out and "docs/" in out


def test_no_command_shows_the_help_as_an_error(capsys: Capture) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("usage: idemfs")


def test_version_is_that_of_the_package(capsys: Capture) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"idemfs {version('idemfs')}\n"


@pytest.mark.parametrize("group", sorted(commands.GROUPS))
def test_help_of_a_group_names_its_commands_alone(group: str, capsys: Capture) -> None:
    assert main([group, "--help"]) == 0
    out = capsys.readouterr().out
    for words in commands.COMMANDS:
        assert (f"  {' '.join(words)} " in out) == (words[0] == group)
    assert main([group]) == 2
    assert capsys.readouterr().err == out


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["snapshto"], "snapshot"),
        (["snapshot", "crate"], "snapshot create"),
        (["rename"], "snapshot rename"),
        (["fail-over", "A"], "failover"),
        (["statsu", "A"], "status"),
    ],
)
def test_an_unknown_command_is_met_with_the_likely_one(arguments: list[str], meant: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("idemfs: no command ") and err.endswith(f"did you mean '{meant}'?\n")


def test_a_word_like_no_command_is_referred_to_the_help(capsys: Capture) -> None:
    assert main(["\x1b[2Jqqq"]) == 2
    assert capsys.readouterr().err == "idemfs: no command '\\x1b[2Jqqq'; 'idemfs --help' lists them\n"


def test_the_command_gets_its_options_and_gives_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Namespace] = []

    def run(options: Namespace) -> int | None:
        seen.append(options)
        return 1 if options.dry_run else None

    install(monkeypatch, ("snapshot", "test"), run)
    assert main(["snapshot", "test", "/srv/a", "--json"]) == 0
    assert main(["snapshot", "test", "/srv/a", "--dry-run", "--yes"]) == 1
    assert seen == [
        Namespace(store="/srv/a", json=True, yes=False, dry_run=False),
        Namespace(store="/srv/a", json=False, yes=True, dry_run=True),
    ]


def test_a_target_is_read_into_store_and_snapshot() -> None:
    parser = ArgumentParser()
    add_target(parser)
    assert parser.parse_args(["/srv/a@monday"]).target == Target("/srv/a", "monday")


def test_help_of_a_command_ends_with_status_0(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    install(monkeypatch, ("test",), lambda _: 1)
    assert main(["test", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: idemfs test ") and "Do what the test says." in out
    assert commands.EXIT_STATUS_HELP in out


@pytest.mark.parametrize("rest", [[], ["a", "b"], ["a", "--jso"], ["a", "--nothing"]])
def test_wrong_arguments_are_one_line_and_status_2(
    rest: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    install(monkeypatch, ("test",), lambda _: 0)
    assert main(["test", *rest]) == 2
    err = capsys.readouterr().err
    assert err.startswith("idemfs: ") and err.endswith("; see 'idemfs test --help'\n") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (StoreMissing("/srv/a: no store"), 1, "idemfs: /srv/a: no store"),
        (NotPrimary("/srv/a is a standby"), 1, "idemfs: /srv/a is a standby"),
        (Refused("nothing was done"), 1, "idemfs: nothing was done"),
        (UsageError("no size"), 2, "idemfs: no size"),
        (OSError(errno.ENOENT, "No such file", "a\nb"), 1, "idemfs: a\\x0ab: No such file"),
        (OSError(errno.ENOENT, "No such file", b"\xff"), 1, "idemfs: \\xff: No such file"),
        (OSError(errno.EXDEV, "Invalid link", "a", None, "b"), 1, "idemfs: a -> b: Invalid link"),
        (OSError("odd"), 1, "idemfs: odd"),
        (StoreMissing(), 1, "idemfs: StoreMissing"),
        (KeyboardInterrupt(), 130, "idemfs: interrupted"),
    ],
)
def test_each_error_is_one_line_and_its_status(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    install(monkeypatch, ("test",), fail_with(error))
    assert main(["test", "a"]) == status
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == line + "\n"


def test_an_interrupt_over_which_something_else_fails_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Argparse does so: interrupted while it reads the arguments, it ends with an AttributeError."""

    def run(options: Namespace) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            del options.nothing

    install(monkeypatch, ("test",), run)
    assert main(["test", "a"]) == 130
    assert capsys.readouterr().err == "idemfs: interrupted\n"


def test_a_reader_that_went_away_is_no_news(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    install(monkeypatch, ("test",), fail_with(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert main(["test", "a"]) == 141
    assert capsys.readouterr().err == ""


def test_our_own_mistakes_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("test",), fail_with(AssertionError("ours")))
    with pytest.raises(AssertionError, match="ours"):
        main(["test", "a"])


def test_every_command_of_the_table_has_its_module() -> None:
    import importlib

    for words in commands.COMMANDS:
        module = importlib.import_module(commands.module_name(words))
        assert callable(module.arguments) and callable(module.run), words


def test_every_module_of_a_command_is_in_the_table() -> None:
    folder = Path(commands.__file__).parent
    named = {commands.module_name(words).rpartition(".")[2] for words in commands.COMMANDS}
    found = {file.stem for file in folder.glob("*.py") if "\ndef run(options" in file.read_text()}
    assert found <= named


def run_process(*arguments: str, stdout: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "idemfs.cli", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False)


def test_a_full_disk_under_standard_output_is_one_line() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        ended = run_process("--help", stdout=full)
    finally:
        os.close(full)
    assert (ended.returncode, ended.stderr) == (1, b"idemfs: No space left on device\n")


def test_a_closed_pipe_under_standard_output_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = run_process("--help", stdout=writer)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")
