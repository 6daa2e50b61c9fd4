"""What a user of redis-py does, against the server on the port that is given; over
TLS, if the file of its certificate is given as well."""

import sys

import redis

tls = {"ssl": True, "ssl_ca_certs": sys.argv[2]} if sys.argv[2:] else {}
r = redis.Redis(port=int(sys.argv[1]), socket_timeout=20, **tls)
assert r.ping()
assert r.set("text", "value", ex=100) and r.get("text") == b"value" and 0 < r.ttl("text") <= 100
assert r.incrby("number", 5) == 5
assert r.hset("hash", mapping={"a": 1, "b": 2}) == 2 and r.hgetall("hash") == {b"a": b"1", b"b": b"2"}
assert r.rpush("list", 1, 2, 3) == 3 and r.lrange("list", 0, -1) == [b"1", b"2", b"3"]
assert r.sadd("set", 1, 2) == 2 and r.smembers("set") == {b"1", b"2"}
assert r.mset({"x": 1, "y": 2}) and r.mget("x", "nothing", "y") == [b"1", None, b"2"]
assert {b"text", b"hash"} <= set(r.scan_iter(count=2))
assert "redis_version" in r.info()

pipe = r.pipeline(transaction=False)
for _ in range(500):
    pipe.incr("counted")
assert pipe.execute()[-1] == 500

try:
    r.lpush("text", 1)
except redis.ResponseError as error:
    assert str(error).startswith("WRONGTYPE"), error
else:
    raise AssertionError("no error")

listener = r.pubsub()
listener.subscribe("channel")
assert listener.get_message(timeout=20)["type"] == "subscribe"
assert r.publish("channel", "hello") == 1
assert listener.get_message(timeout=20)["data"] == b"hello"

with r.pipeline() as pipe:  # In a transaction.
    pipe.watch("number")
    pipe.multi()
    pipe.set("number", 7).incr("number").lpush("text", 1)
    try:
        pipe.execute()
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error), error
assert r.get("number") == b"8"
with r.pipeline() as pipe:
    pipe.watch("number")
    r.set("number", 9)
    pipe.multi()
    pipe.set("number", 10)
    try:
        pipe.execute()
    except redis.WatchError:
        pass
    else:
        raise AssertionError("nothing changed")

assert r.blpop(["nothing", "list"], timeout=1) == (b"list", b"1")
assert r.blmove("list", "other", 1) == b"2" and r.lrange("other", 0, -1) == [b"2"]
assert r.zadd("sorted", {"a": 1, "b": 2.5}) == 2 and r.bzpopmax("sorted", 1) == (b"sorted", b"b", 2.5)
assert r.info("clients")["blocked_clients"] == 0 and r.info()["db0"]["keys"] > 0
assert {"id", "addr", "age", "idle", "flags", "cmd"} <= set(r.client_list()[0])
assert r.command_count() == len(r.command()) and r.command()["get"]["step_count"] == 1
assert r.pubsub_numsub("channel") == [(b"channel", 1)] and r.pubsub_channels() == [b"channel"]
with r.monitor() as monitor:
    r.get("text")
    assert monitor.next_command()["command"].lower() == "get text"
