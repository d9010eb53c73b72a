"""
The platform end of the upgrade: what a device talks to, on one machine.

`LocalPlatform` runs it in a thread of its own (tests, demo); `python -m tools platform` is the
command line. Nothing is imported here, so that the pure parts can be used without broker, web
server and data base.
"""
