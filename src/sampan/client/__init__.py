"""Talks to the daemon: the calls, HTTP, the blocking and the asynchronous client, and the library.

`calls` describes every operation once. `http` and `streams` are bytes in, values out.
`sync` and `aio` perform calls; `flows` says what the library does in terms of them, once for both.
`launch` starts a daemon on demand, `embedded` runs one inside of this process. What the command
line imports of this room needs the cheap part of the standard library only.
"""
