"""Every bound of idemfs in one place. Sizes are bytes unless the name says otherwise."""

from __future__ import annotations

NAME_SIZE_MAX = 255
SYMLINK_SIZE_MAX = 4095
SYMLINK_FOLLOW_COUNT_MAX = 40
XATTR_NAME_SIZE_MAX = 255
XATTR_VALUE_SIZE_MAX = 65536
LINK_COUNT_MAX = 65000
FILE_SIZE_MAX = 16 << 40
TIME_NS_MIN, TIME_NS_MAX = -(1 << 63), (1 << 63) - 1

SECTOR_SIZE = 4096
BLOCK_SIZE_MIN, BLOCK_SIZE_DEFAULT, BLOCK_SIZE_MAX = 4 << 10, 128 << 10, 4 << 20
INDIRECT_ENTRY_COUNT = 512
"""Blocks whose addresses stand in one indirect block record (8 KiB when full)."""
INLINE_SIZE_MAX = 1536
"""Content up to this size lives in the inode; two such records fit one 4 KiB page of LMDB."""
RECORD_SIZE_MAX = 100_000
KEY_SIZE_MAX = 300

SNAPSHOT_ID_MAX = (1 << 56) - 1
"""The top byte of an id is 0: this keeps shadow keys prefix-free, since names hold no NUL byte."""
HOLD_COUNT_MAX = 1000
SNAPSHOT_NAME_SIZE_MAX = 200
SNAPSHOT_COUNT_MAX = 1 << 20
FILESET_NAME_SIZE_MAX = 200
FILESET_COUNT_MAX = 10_000
FILESET_NUMBER_MAX = (1 << 15) - 1
"""Numbers of filesets are never used again, so this is how many a store can have seen. A mount has the top bit of
an inode number for inodes in snapshots."""

GROUP_SECONDS = 5.0
GROUP_RECORD_COUNT_MAX = 60_000
GROUP_RECORD_BYTES_MAX = 64 << 20
GROUP_DATA_BYTES_MAX = 256 << 20
"""Blocks that a group writes before it is sealed, so that the host starts on them while others are made."""
FREEING_RECORD_COUNT = 512
FREEING_BYTES = 1 << 20
"""Room that changes leave, on a host that is full, for those that free space."""
DIRTY_DATA_BYTES_MAX = 32 << 20
CALL_BYTES_MAX = 16 << 20
"""What one call of a file object reads or writes at once; more is done in several."""
BLOCK_CACHE_BYTES_MAX = 64 << 20
RECORD_CACHE_COUNT_MAX = 20_000

LOG_HALF_SECTOR_COUNT = 512
"""Sectors in each of the two halves of the log (2 MiB)."""
LOG_FILE_BYTES_MAX = 128 << 10
"""What is remembered of a file until it is synced; after more a sync commits."""
LOG_BYTES_MAX = 4 << 20
"""The same for all files together."""
LOG_HOST_FACTOR = 16
"""A host has at least this many times as much room as the log takes, or the store gets none."""

SEGMENT_SIZE = 1 << 30
"""Size of one file of the local block store."""
RESERVE_SECTOR_COUNT = 2048
"""Space is claimed from the host in steps of this many sectors (8 MiB)."""
SECTOR_COUNT_MAX = 1 << 38

FRAME_SIZE_MAX = 8 << 20
"""A stream frame holds at least one block of the largest size with its key."""
STREAM_BATCH_BYTES = 1 << 20
MESSAGE_SIZE_MAX = 4 << 20
"""Of what goes over a connection between two stores at a time."""
SAID_SIZE_MAX = 256 << 20
"""Of one question or answer between two stores, in however many messages."""
SILENCE_SECONDS = 15.0
"""A connection on which nothing comes for so long is taken for lost; whoever is busy says so in between. Until then a
standby whose primary vanished in the midst of a transfer cannot take over."""
STUCK_SECONDS = 60.0
"""The same for the first thing that comes, until which a connection is made and a store opened, and for somebody who
takes what is sent: a busy standby with a slow disk may leave it lying for a while."""
BEAT_SECONDS = 5.0
"""How often it does."""
TCP_SILENCE_SECONDS = 30
"""How long another host may leave what was sent to it, or TCP's own questions, without an answer."""
SCAN_COUNT = 1000
"""Records fetched from an engine in one range call."""
SCHEDULE_SECONDS_MAX = 4_000_000_000
"""More than a century: for how long a period of a schedule, a hold or a lock may be."""
SCHEDULE_TEXT_SIZE_MAX = 1000
HOOK_COUNT_MAX, HOOK_SIZE_MAX, HOOK_SECONDS_MAX = 16, 4096, 3600
"""Commands before, and after, a snapshot that a schedule takes; bytes of each; how long one may be let run."""
CONFIG_SIZE_MAX = 1 << 20
"""A configuration file of ``idemfs serve``."""

STATE_FILE_SIZE_MAX = 8 << 20
TRUSTED_PEER_COUNT_MAX, TOKEN_COUNT_MAX, OFFER_COUNT_MAX = 1000, 1000, 100
"""What the state directory of a node holds."""
REQUEST_SIZE_MAX, REQUEST_HEAD_SIZE_MAX = 64 << 10, 32 << 10
"""Of an HTTPS request: its body, and its first line with its headers."""
CONNECTION_COUNT_MAX, PEER_CHANNEL_COUNT_MAX = 512, 64
"""To the network side of a node: all, and those of other nodes that each have a thread."""
PEER_QUEUE_COUNT = 4
"""Messages of a channel that wait at one end; more wait at the other."""
HISTORY_BYTES_MAX = 1 << 20
"""Of what happened to a store; as much again is kept of what is older."""
