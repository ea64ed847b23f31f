"""HOW PEOPLE AND PROGRAMS TALK TO THE MESH: the pillion.v1 API, a small typed client for it, and the `pillion` command.

Rules of this room: proxy and control_plane share nothing but pillion.v1, pillion.client and pillion.stdio; the command
line imports either of them only inside the command that needs it, so that `pillion --help` stays quick.
"""
