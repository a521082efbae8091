"""The end of a mount's device, which two may tell and a third one closes."""

from __future__ import annotations

import os
import threading

import pytest

from idemfs.mount.awake import Awake
from idemfs.mount.channel import Channel


def test_who_tells_of_the_end_while_it_is_closed_writes_into_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(os.open("/dev/null", os.O_RDWR), "/mnt", Awake())
    write = os.eventfd_write
    closing = threading.Thread(target=channel.close)

    def slowly(fd: int, value: int) -> None:
        closing.start()
        closing.join(0.2)
        write(fd, value)

    monkeypatch.setattr(os, "eventfd_write", slowly)
    channel.end()
    closing.join()
    channel.end()
    assert channel.is_ending and channel.fd == -1
