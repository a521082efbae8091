"""What a restore through a mount removes, when the owner of what goes plays tricks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from idemfs.mount import restoring


def test_a_link_that_takes_the_place_of_a_directory_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root restores over somebody's directory, who has it lead to somebody else's files just then."""
    victim, top = tmp_path / "victim", tmp_path / "top"
    victim.mkdir()
    (victim / "f").write_text("precious")
    (top / "inner").mkdir(parents=True)
    (top / "inner/f").write_text("goes")
    fileset, number = restoring._fileset, (top / "inner").stat().st_ino

    def swap(status: os.stat_result) -> int:
        if status.st_ino == number and not (top / "inner").is_symlink():
            os.rename(top / "inner", tmp_path / "moved")
            os.symlink(victim, top / "inner")
        return fileset(status)

    monkeypatch.setattr(restoring, "_fileset", swap)
    restoring.remove(str(top))
    assert (victim / "f").read_text() == "precious"
    assert not top.exists() and os.listdir(tmp_path / "moved") == []
