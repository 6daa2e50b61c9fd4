"""Drives an echo server over TLS: peers.py PORT AUTHORITY"""

import socket
import ssl
import sys

DEADLINE = 20
port, authority = int(sys.argv[1]), sys.argv[2]


def connect(context, session=None):
    plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def exchange(stream, sent):
    stream.sendall(sent)
    received = b""
    while len(received) < len(sent):
        piece = stream.recv(1 << 16)
        assert piece, "it ended early"
        received += piece
    assert received == sent, "other bytes came back"


for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = context.maximum_version = version
    stream = connect(context)
    for size in (1, 16384, 16385, 200_000):
        exchange(stream, bytes(range(256)) * (size // 256 + 1))
    session = stream.session
    stream.unwrap()  # Both sides say their end.
    again = connect(context, session)
    exchange(again, b"again")
    assert again.session_reused, f"{version!r}: not resumed"
    again.unwrap()

old = ssl.create_default_context(cafile=authority)
old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
old.set_ciphers("ALL:@SECLEVEL=0")
try:
    connect(old)
    raise SystemExit("TLS 1.1 was spoken")
except ssl.SSLError:
    pass
print("done")
