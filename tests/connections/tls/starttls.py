"""Asks a mail server for TLS, by smtplib and by hand: starttls.py PORT AUTHORITY"""

import smtplib
import socket
import ssl
import sys

DEADLINE = 20
port, authority = int(sys.argv[1]), sys.argv[2]

for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = context.maximum_version = version

    mail = smtplib.SMTP("127.0.0.1", port, local_hostname="here", timeout=DEADLINE)
    mail._host = "localhost"  # What the certificate is for.
    assert mail.ehlo()[1] == b"plain\nSTARTTLS"
    assert mail.starttls(context=context)[0] == 220
    assert mail.ehlo()[1] == b"secure"
    assert mail.noop() == (250, b"secure")
    assert mail.docmd("QUIT")[0] == 221

    plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    plain.sendall(b"STARTTLS\r\n")
    expected = b"220 mail\r\n220 go ahead\r\n"
    received = b""
    while len(received) < len(expected):
        received += plain.recv(len(expected) - len(received))
    assert received == expected, received
    stream = context.wrap_socket(plain, server_hostname="localhost")
    stream.sendall(b"NOOP\r\nQUIT\r\n")
    lines = stream.makefile("rb")
    assert [lines.readline(), lines.readline()] == [b"250 secure\r\n", b"221 bye\r\n"]
    assert lines.read() == b"", "the end is said"
