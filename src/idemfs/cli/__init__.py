"""The command line: one file per command, each with ``arguments(parser)`` and ``run(options)``.

``commands`` is the table of commands, ``main`` chooses one and imports only its module,
``failures`` turns errors into exit statuses, ``operands`` and ``render`` are what commands share.
No logic of a store lives here.
"""
