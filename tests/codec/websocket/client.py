# Speaks to an echo by the library `websockets`.
import sys
from websockets.sync.client import connect

with connect(sys.argv[1], subprotocols=["echo"], open_timeout=20, max_size=2**24) as socket:
    assert socket.subprotocol == "echo", socket.subprotocol
    for message in ["hello", "", "κόσμε", b"\0\xff", "x" * 100_000, b"y" * 5_000_000]:
        socket.send(message)
        assert socket.recv(timeout=20) == message
    socket.send(["in ", "three ", "parts"])
    assert socket.recv(timeout=20) == "in three parts"
    assert socket.ping().wait(20)
    socket.close(4000, "done")
assert socket.close_code == 4000, socket.close_code
