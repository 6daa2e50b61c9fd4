"""Goes on with sessions at other servers: sessions.py AUTHORITY CHAIN KEY PORT…

The first two servers share the keys of their tickets, as does the third, which requires a client's
certificate; the last one has keys of its own.
"""

import socket
import ssl
import sys

DEADLINE = 20
authority, chain, key = sys.argv[1:4]
first, second, strict, other = map(int, sys.argv[4:])


def visit(context, port, session=None):
    """Returns whether the session went on, and the one to go on with."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    stream = context.wrap_socket(plain, server_hostname="localhost", session=session)
    stream.sendall(b"x")
    assert stream.recv(1) == b"x"
    reused, session = stream.session_reused, stream.session
    stream.unwrap()
    return reused, session


for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(chain, key)
    _, session = visit(context, first)
    reused, session = visit(context, second, session)
    assert reused, f"{version!r}: the second server does not go on"
    reused, _ = visit(context, other, session)
    assert not reused, f"{version!r}: a server with other keys goes on"
    _, session = visit(context, first)
    reused, session = visit(context, strict, session)
    assert not reused, f"{version!r}: a client is let in without its certificate"
    reused, _ = visit(context, strict, session)
    assert reused, f"{version!r}: a client whose certificate was checked does not go on"
