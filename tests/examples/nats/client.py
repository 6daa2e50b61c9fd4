"""What a user of nats-py does, against the server at the address and port that are given; over TLS,
if the file of its certificate is given as well."""

import asyncio
import ssl
import sys

import nats
from nats.errors import MaxPayloadError, NoRespondersError


async def settle(*clients):
    """Waits until the server has done what clients asked. nats-py sends a flush's PING ahead of
    what is in its buffer, so the second one is behind that."""
    for client in clients * 2:
        await client.flush()


SERVER = f"nats://{sys.argv[1]}:{sys.argv[2]}"
TLS = {"tls": ssl.create_default_context(cafile=sys.argv[3])} if sys.argv[3:] else {}


async def everything():
    failures = []

    async def failed(error):
        failures.append(error)

    async def connect(**options):
        return await nats.connect(SERVER, error_cb=failed, allow_reconnect=False, **TLS, **options)

    one, other = await connect(name="one"), await connect(name="other", pedantic=True)
    assert one.max_payload == 1024 * 1024

    # Subjects and wildcards.
    exact = await one.subscribe("news.sport")
    any_token = await one.subscribe("news.*")
    rest = await one.subscribe("news.>")
    await settle(one)
    await other.publish("news.sport", b"goal", headers={"From": "other"})
    await other.publish("news.sport.late", b"")
    for subscription in (exact, any_token, rest):
        message = await subscription.next_msg(timeout=5)
        assert (message.subject, message.data) == ("news.sport", b"goal"), message
        assert message.headers == {"From": "other"}, message.headers
    assert (await rest.next_msg(timeout=5)).data == b""
    await exact.unsubscribe()

    # A queue group shares, and nothing is lost.
    got = []
    done = asyncio.Event()

    async def work(message):
        got.append(int(message.data))
        if len(got) == 1000:
            done.set()

    workers = [await client.subscribe("work", queue="workers", cb=work) for client in (one, other) * 2]
    await settle(one, other)
    for number in range(1000):
        await one.publish("work", str(number).encode())
    await asyncio.wait_for(done.wait(), 10)
    assert sorted(got) == list(range(1000))
    for worker in workers:
        await worker.drain()

    # Requests.
    async def answer(message):
        await message.respond(message.data.upper())

    await other.subscribe("service", cb=answer)
    await settle(other)
    replies = await asyncio.gather(*(one.request("service", b"hi", timeout=5) for _ in range(100)))
    assert all(reply.data == b"HI" for reply in replies)
    assert (await one.request("service", b"old", timeout=5, old_style=True)).data == b"OLD"
    try:
        await one.request("nobody", b"", timeout=5)
    except NoRespondersError:
        pass
    else:
        raise AssertionError("somebody responded")

    # Large messages, and those that are too large.
    large = await one.subscribe("large")
    await settle(one)
    await other.publish("large", b"x" * one.max_payload)
    assert len((await large.next_msg(timeout=10)).data) == one.max_payload
    try:
        await other.publish("large", b"x" * (one.max_payload + 1))
    except MaxPayloadError:
        pass
    else:
        raise AssertionError("it was not too large")

    # A maximum.
    few = await one.subscribe("few")
    await few.unsubscribe(limit=3)
    await settle(one)
    for number in range(5):
        await other.publish("few", str(number).encode())
    await other.flush()
    assert [(await few.next_msg(timeout=5)).data for _ in range(3)] == [b"0", b"1", b"2"]

    assert not failures, failures
    await one.drain()
    await other.close()


asyncio.run(asyncio.wait_for(everything(), 18))
