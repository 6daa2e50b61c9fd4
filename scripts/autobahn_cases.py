"""Autobahn's cases for WebSocket, against a server or a client.

    autobahn_cases.py FOLDER server URL CASES...      runs them against the server at a URL
    autobahn_cases.py FOLDER client PROGRAM CASES...  serves them to `PROGRAM URL COUNT`, which echoes

A case is named by the beginning of its number: `1`, `9.1`, `12.1.3`. FOLDER has the parts: the
source of autobahntestsuite, and what it stands on.

The cases are written for Python 2, and for an old autobahn. They are read here as Python 3, byte
for byte: their texts of bytes become texts of the characters with these numbers (Latin-1), and are
bytes again where they meet autobahn.
"""

import importlib.abc
import importlib.util
import os
import re
import subprocess
import sys
import threading
import types

FOLDER, ROLE, PEER, *WANTED = sys.argv[1:]
sys.path.insert(0, os.path.join(FOLDER, "packages"))

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.twisted.websocket import connectWS
from autobahn.websocket import utf8validator
from twisted.internet import reactor

SUITE = os.path.join(FOLDER, "suite", "autobahntestsuite")
# A loaded machine takes longer than the second that is autobahn's default.
PATIENCE = {"closeHandshakeTimeout": 10, "openHandshakeTimeout": 20}
# How many run at a time. Those of 9 have a deadline and are long, so each runs alone.
AT_ONCE = 6


def is_long(number):
    return number.startswith("9.")


# --- Python 2's source -----------------------------------------------------------------------------

# What has other names, or another form.
REPLACEMENTS = [
    (r"^# coding.*$", ""),
    (r"^(\s*)print (.*)$", r"\1print(\2)"),
    (r"^from case9_9_1 import \*$", ""),  # It is not run.
    (r"\bxrange\b", "range"),
    (r"\bunichr\b", "chr"),
    (r"\(object, Case, \)", "(Case, )"),
    (r"len\(self.payload\) / self", "len(self.payload) // self"),
    (r"\brequestNoContextTakeover\b", "request_no_context_takeover"),
    (r"\brequestMaxWindowBits\b", "request_max_window_bits"),
    (r"\bacceptNoContextTakeover\b", "accept_no_context_takeover"),
    (r"\bacceptMaxWindowBits\b", "accept_max_window_bits"),
    # One reference twice is pickled differently from two that are equal.
    (r"return pickle.dumps\(obj1\) == pickle.dumps\(obj2\)", "return obj1 == obj2"),
]


class Reader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of the cases, which import each other as if they were no package."""

    def find_spec(self, name, path, target=None):
        base = os.path.join(SUITE, "case")
        file = os.path.join(base, "__init__.py" if name == "cases" else name + ".py")
        if not os.path.isfile(file):
            return None
        return importlib.util.spec_from_file_location(name, file, loader=self)

    def exec_module(self, module):
        with open(module.__spec__.origin, encoding="latin-1") as file:
            source = file.read()
        for pattern, replacement in REPLACEMENTS:
            source = re.sub(pattern, replacement, source, flags=re.MULTILINE)
        exec(compile(source, module.__spec__.origin, "exec"), module.__dict__)


def to_bytes(text):
    return text.encode("latin-1") if isinstance(text, str) else text


def to_text(data):
    return data.decode("latin-1") if isinstance(data, (bytes, bytearray)) else data


class Validator(utf8validator.Utf8Validator):
    def validate(self, data):
        return super().validate(to_bytes(data))


def module(name, **contents):
    made = types.ModuleType(name)
    made.__dict__.update(contents)
    return made


def load_cases():
    """The classes of all cases, by their numbers."""
    import binascii

    hexed = lambda data: binascii.hexlify(to_bytes(data)).decode()
    replaced = {
        "binascii": module("binascii", b2a_hex=hexed, hexlify=hexed),
        "pkg_resources": module(
            "pkg_resources", resource_filename=lambda _, name: os.path.join(SUITE, name)
        ),
        "autobahn.websocket.utf8validator": module("utf8validator", Utf8Validator=Validator),
    }
    before = {name: sys.modules.get(name) for name in replaced}
    sys.modules.update(replaced)
    sys.meta_path.insert(0, Reader())
    import cases

    sys.modules.update({name: module for name, module in before.items() if module})
    number = lambda case: case.__name__[len("Case"):].replace("_", ".")
    return {number(case): case for case in cases.Cases}


# --- a connection ----------------------------------------------------------------------------------


class Fuzzing:
    """What a case asks of its connection, on top of autobahn's."""

    def begin(self, number, case):
        self.number, self.connectionWasOpen = number, False
        self.createWirelog, self.txFrameStats = False, {}
        # Of the compressed ones texts are real texts.
        self.keeps_bytes = number.startswith(("12.", "13."))
        self.runCase = case(self)

    def onOpen(self):
        self.connectionWasOpen = True
        self.runCase.onOpen()

    def onMessage(self, payload, isBinary):
        self.runCase.onMessage(payload if self.keeps_bytes else to_text(payload), isBinary)

    def onPong(self, payload):
        self.runCase.onPong(to_text(payload))

    def onClose(self, wasClean, code, reason):
        self.runCase.onClose(wasClean, code, reason)

    def ended(self):
        case = self.runCase
        case.onConnectionLost(self.failedByMe)
        result = case.result if case.behavior != "OK" else case.resultClose
        RESULTS[self.number] = (case.behavior, case.behaviorClose, result)

    def logTxFrame(self, frameHeader, payload, repeatLength, chopsize, sync):
        opcode = frameHeader.opcode
        self.txFrameStats[opcode] = self.txFrameStats.get(opcode, 0) + 1

    def enableWirelog(self, enable):
        pass

    def is_alive(self):
        return self.state != self.STATE_CLOSED

    def continueLater(self, delay, function, tag=None):
        reactor.callLater(delay, lambda: self.is_alive() and function())

    def killAfter(self, delay):
        reactor.callLater(delay, lambda: self.is_alive() and self._fail_connection())

    def closeAfter(self, delay):
        reactor.callLater(delay, lambda: self.is_alive() and self.sendClose())

    def sendFrame(self, opcode, payload=b"", **options):
        super().sendFrame(opcode, to_bytes(payload), **options)

    def sendMessage(self, payload, isBinary=False, **options):
        super().sendMessage(to_bytes(payload), isBinary, **options)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(to_bytes(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, to_bytes(reasonUtf8), isReply)


RESULTS = {}


# --- against a server ------------------------------------------------------------------------------


class FuzzingClient(Fuzzing, WebSocketClientProtocol):
    def connectionLost(self, reason):
        WebSocketClientProtocol.connectionLost(self, reason)
        self.ended()


class FuzzingClientFactory(WebSocketClientFactory):
    isServer = False

    def __init__(self, number, case, done):
        WebSocketClientFactory.__init__(self, PEER)
        self.setProtocolOptions(failByDrop=False, serverConnectionDropTimeout=10, **PATIENCE)
        self.logFrames = True
        self.number, self.case, self.done = number, case, done

    def buildProtocol(self, addr):
        protocol = FuzzingClient()
        protocol.factory = self
        protocol.begin(self.number, self.case)
        return protocol

    def clientConnectionLost(self, connector, reason):
        self.done()

    def clientConnectionFailed(self, connector, reason):
        RESULTS[self.number] = ("FAILED", "FAILED", reason.getErrorMessage())
        self.done()


def against_server(cases):
    left = sorted(cases.items(), key=lambda one: is_long(one[0]))
    running = set()

    def next_case():
        if left and running and is_long(left[0][0]):
            return
        if left:
            number, case = left.pop(0)
            running.add(number)

            def done():
                running.discard(number)
                next_case()

            connectWS(FuzzingClientFactory(number, case, done))
        elif not running and reactor.running:
            reactor.stop()

    for _ in range(AT_ONCE):
        reactor.callWhenRunning(next_case)
    reactor.run()


# --- against a client ------------------------------------------------------------------------------


class FuzzingServer(Fuzzing, WebSocketServerProtocol):
    runCase = None

    def onConnect(self, request):
        number = list(self.factory.cases)[int(request.path.rsplit("/", 1)[1])]
        self.begin(number, self.factory.cases[number])

    def connectionLost(self, reason):
        WebSocketServerProtocol.connectionLost(self, reason)
        if self.runCase:
            self.ended()


class FuzzingServerFactory(WebSocketServerFactory):
    protocol = FuzzingServer
    isServer = True


def against_client(cases):
    factory = FuzzingServerFactory()
    factory.setProtocolOptions(failByDrop=False, **PATIENCE)
    factory.logFrames = True
    port = reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port
    factory.cases = dict(sorted(cases.items(), key=lambda one: is_long(one[0])))
    command = [PEER, f"ws://127.0.0.1:{port}", str(len(cases)), "--at-once", str(AT_ONCE)]

    def run():
        status = subprocess.run(command).returncode
        if status != 0:
            print(f"{PEER} ended with {status}")
        reactor.callFromThread(reactor.stop)

    reactor.callWhenRunning(lambda: threading.Thread(target=run).start())
    reactor.run()


# --- results ---------------------------------------------------------------------------------------

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def main():
    wanted = lambda number: any((number + ".").startswith(name + ".") for name in WANTED)
    cases = {number: case for number, case in load_cases().items() if wanted(number)}
    if not cases:
        sys.exit(f"no case is called {' or '.join(WANTED)}")
    (against_server if ROLE == "server" else against_client)(cases)
    counts = {}
    failed = 0
    for number in cases:
        missing = ("FAILED", "FAILED", "it was not run")
        behavior, close, result = RESULTS.get(number, missing)
        counts[behavior] = counts.get(behavior, 0) + 1
        if behavior != "OK" or close not in GOOD:
            print(f"case {number}: {behavior}, close {close}: {result}")
        if behavior not in GOOD or close not in GOOD:
            failed += 1
    told = ", ".join(f"{count} {behavior}" for behavior, count in sorted(counts.items()))
    print(f"{len(cases)} cases: {told}; {failed} failed")
    sys.exit(1 if failed else 0)


main()
