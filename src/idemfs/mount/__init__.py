"""A store as a file system of this machine, through the kernel's FUSE protocol.

``wire`` is the protocol's bytes (pure), ``channel`` the device and the mount, ``server`` the threads that
take requests, ``nodes`` which state a kernel's inode number means, ``active``, ``directories`` and
``snapshot_folder`` the requests, ``session`` the life of one mount. An adapter: POSIX meaning is in ``vfs``.
docs/decisions/0009 says why no FUSE library is used.
"""
