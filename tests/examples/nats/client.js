// What a user of nats.js does, against the server at the address and port that are given; over TLS,
// if the file of its certificate is given as well.

const assert = require("node:assert");
const { connect, headers, StringCodec, ErrorCode } = require("nats");

const text = StringCodec();
const servers = `${process.argv[2]}:${process.argv[3]}`;

/** The next so many messages of a subscription, as texts. */
async function take(subscription, count) {
    const taken = [];
    if (count === 0) return taken;
    for await (const message of subscription) {
        taken.push(text.decode(message.data));
        if (taken.length === count) break;
    }
    return taken;
}

async function everything() {
    const [, , , , caFile] = process.argv;
    const options = { servers, reconnect: false, tls: caFile ? { caFile } : undefined };
    const [one, other] = [await connect(options), await connect({ ...options, noEcho: true })];

    const subscription = one.subscribe("a.*.c", { max: 500 });
    const deaf = other.subscribe("a.>");
    await Promise.all([one.flush(), other.flush()]);
    for (let number = 0; number < 600; number++) {
        other.publish(`a.${number}.c`, text.encode(String(number)));
    }
    const numbers = await take(subscription, 500);
    assert.deepStrictEqual(numbers, [...Array(500).keys()].map(String));
    await other.flush();
    assert.strictEqual(deaf.getProcessed(), 0);

    other.subscribe("service", {
        queue: "q",
        callback: (error, message) => {
            assert.ifError(error);
            const reply = headers();
            reply.set("Kind", "reply");
            message.respond(message.data, { headers: reply });
        },
    });
    await other.flush();
    const requests = [...Array(100).keys()].map(async (number) => {
        const reply = await one.request("service", text.encode(String(number)), { timeout: 5000 });
        assert.strictEqual(text.decode(reply.data), String(number));
        assert.strictEqual(reply.headers.get("Kind"), "reply");
    });
    await Promise.all(requests);
    await assert.rejects(one.request("nobody"), { code: ErrorCode.NoResponders });

    assert.ok((await one.rtt()) < 5000);
    await one.drain();
    await other.close();
}

setTimeout(() => process.exit(1), 18000).unref();
everything().catch((error) => {
    console.error(error);
    process.exit(1);
});
