"""Random changes and snapshots from a seed; after each, dynamic links lead where a model of a few dictionaries says.

The model knows of each snapshot the content of every file by its number: nothing of names, dittos, back-references.
"""

from __future__ import annotations

from random import Random

from idemfs import FileSystem
from idemfs.testing.builders import assert_clean, memory_tree

RUNS, STEP_COUNT = 6, 120
UP = "../"
LATEST = ".snapshots/latest/"


class Links:
    """The store and its model, changed together."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.fs = FileSystem(memory_tree())
        self.count = 0
        self.files: dict[str, int] = {}
        """Inode numbers by path."""
        self.active: dict[int, bytes] = {}
        self.taken: dict[str, dict[int, bytes]] = {}
        self.links: dict[str, int] = {}
        for name in ("/a", "/a/b", "/c"):
            self.fs.mkdir(name)

    def new_path(self) -> str:
        self.count += 1
        directories = [path for path, _, _ in self.fs.walk("/")]
        return f"{self.rng.choice(directories).rstrip('/')}/{self.count}"

    def content(self) -> bytes:
        return self.rng.randbytes(self.rng.choice((10, 5000, 9000)))

    def create(self) -> None:
        path, content = self.new_path(), self.content()
        self.fs.write_bytes(path, content)
        self.files[path] = number = self.fs.stat(path).st_ino
        self.active[number] = content

    def link(self) -> None:
        path, link = self.rng.choice(list(self.files)), self.new_path()
        self.fs.dynamic_link(path, link)
        self.links[link] = self.files[path]

    def write(self) -> None:
        path, content = self.rng.choice(list(self.files)), self.content()
        self.fs.write_bytes(path, content)
        self.active[self.files[path]] = content

    def append(self) -> None:
        path, content = self.rng.choice(list(self.files)), self.content()
        with self.fs.open(path, "ab") as file:
            file.write(content)
        self.active[self.files[path]] += content

    def rename(self) -> None:
        path, new_path = self.rng.choice(list(self.files)), self.new_path()
        self.fs.rename(path, new_path)
        self.files[new_path] = self.files.pop(path)

    def rename_directory(self) -> None:
        directory = self.rng.choice([path for path, _, _ in self.fs.walk("/") if path != "/"])
        new_path = self.new_path()
        if new_path.startswith(directory + "/"):
            return
        self.fs.rename(directory, new_path)
        for known in (self.files, self.links):
            for path in [path for path in known if path.startswith(directory + "/")]:
                known[new_path + path.removeprefix(directory)] = known.pop(path)

    def unlink(self) -> None:
        path = self.rng.choice(list(self.files))
        self.fs.unlink(path)
        del self.active[self.files.pop(path)]

    def take(self) -> None:
        self.count += 1
        self.fs.snapshots.create(str(self.count))
        self.taken[str(self.count)] = dict(self.active)

    def delete(self) -> None:
        if self.taken:
            # The newest one as often as any other.
            name = self.rng.choice([list(self.taken)[-1], self.rng.choice(list(self.taken))])
            self.fs.snapshots.delete(name)
            del self.taken[name]

    def step(self) -> None:
        actions = [self.create, self.take, self.delete]
        if self.files:
            actions += [self.link, self.write, self.write, self.append, self.rename, self.rename_directory, self.unlink]
        self.rng.choice(actions)()

    def compare(self) -> None:
        newest = list(self.taken)[-1] if self.taken else None
        expected = self.active if newest is None else self.taken[newest]
        for link, number in self.links.items():
            target = self.fs.readlink(link)
            up = UP * (link.count("/") - 1)
            assert target.startswith(up) and not target.startswith(up + UP)
            if number not in expected:
                assert not self.fs.exists(link) and "@no-inode" in target
                continue
            assert self.fs.read_bytes(link) == expected[number], link
            path = target.removeprefix(up)
            if newest is None:
                assert self.fs.read_bytes("/" + path) == expected[number]
            else:
                assert path.startswith(LATEST)
                view = self.fs.snapshots[newest]
                assert view.read_bytes("/" + path.removeprefix(LATEST)) == expected[number], target
                assert not view.exists(link, follow_symlinks=False) or view.read_bytes(link) == expected[number]


def test_links_lead_where_the_model_says(seed: int) -> None:
    for run in range(RUNS):
        links = Links(seed * 1000 + run)
        for _ in range(STEP_COUNT):
            links.step()
            links.compare()
        assert links.links
        links.fs.sync()
        assert_clean(links.fs.tree)
        links.fs.close()
