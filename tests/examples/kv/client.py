"""What a user of redis-py does, against the server on the port that is given."""

import sys

import redis

r = redis.Redis(port=int(sys.argv[1]), socket_timeout=20)
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
