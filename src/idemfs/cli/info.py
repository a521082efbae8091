"""``idemfs info STORE``: reads the last committed group, and takes no lock."""

from __future__ import annotations

import os

from idemfs.cli.names import show_name
from idemfs.cli.parser import add_store
from idemfs.cli.render import format_size, format_time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from idemfs.cli.render import Json

_SIZES = ("block_size", "data_bytes", "metadata_bytes", "free_bytes")


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="write one object instead of lines")


def run(options: Namespace) -> None:
    facts = _facts(options.store)
    if options.json:
        from json import dumps

        print(dumps(facts, indent=2))
        return
    space = facts.pop("space")
    for name, value in facts.items():
        shown = format_size(value) if name in _SIZES and isinstance(value, int) else _show(value)
        print(f"{name.replace('_', ' ').ljust(16)}  {show_name(shown)}")
    if isinstance(space, dict):
        print("\nbytes")
        width = max(len(f"{size:,}") for size in space.values())
        for name, size in space.items():
            if name == "total":
                print(" " * 16 + "  " + "-" * width)
            print(f"{name.replace('_', ' ').ljust(16)}  {size:>{width},}")


def _show(value: Json) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _facts(path: str) -> dict[str, Json]:
    from idemfs import api
    from idemfs.engines import lock
    from idemfs.format.superblock import COMPRESSION_ZSTD
    from idemfs.snapshots.footprint import footprint

    with api.open(path, readonly=True) as fs:
        store, tree = fs.tree.store, fs.tree
        block = store.superblock
        fileset = store.catalog.filesets[tree.fileset]
        snapshots = store.catalog.snapshots(tree.fileset)
        return {
            "path": os.path.abspath(path),
            "guid": block.guid.hex(),
            "fileset_guid": fileset.guid.hex(),
            "format": block.version,
            "created": format_time_ns(block.created_ns),
            "block_size": block.block_size,
            "compression": "zstd" if block.compression == COMPRESSION_ZSTD else "none",
            "role": tree.role.role.name.lower(),
            "epoch": tree.role.epoch,
            "snapshots": len(snapshots),
            "newest_snapshot": snapshots[-1].name if snapshots else None,
            "filesets": len(store.catalog.listed_filesets()),
            "files": sum(each.inode_count for each in store.catalog.listed_filesets()),
            "data_bytes": store.blocks.used_bytes(),
            "metadata_bytes": store.kv.used_bytes(),
            "free_bytes": store.blocks.free_bytes(),
            "in_use_by": lock.owner(path),
            "space": footprint(store, path),
        }
