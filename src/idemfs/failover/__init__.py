"""Roles: who writes, who follows, and how they exchange.

``facts`` is what is known of each store, and the steps that plans are made of; ``decisions`` makes plans of facts
and nothing else; ``driver`` carries them out; ``observe`` collects facts; ``peers`` is what a store remembers of the
others; ``places`` opens stores by their paths.

A plan is never stored. After a crash the facts are collected again, and the plan that is made of them goes on.
"""
