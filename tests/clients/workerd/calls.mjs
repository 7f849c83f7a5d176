// What a Worker can do with a binding: every call, every type, and the edges of what they take.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";

import { wait } from "./cluster.mjs";

const MAX_VALUE_BYTES = 25 << 20;
const ARRIVAL_TIME_MS = 20_000;

/** Keys that would be something else if they were decoded, folded or trimmed once too often or too little. */
const HOSTILE_KEYS = [
  "bulk/get", "binding", "binding/x", "a/../b", "./a", "...", "/", "//", "a//b", "x%2Fy", "%", "100%", "%%20", "a+b",
  "a b", " ", "a?b=c", "a#b", "a&b", "a;b", "\u0000", "\r\nX-Injected: 1", "\t", "\"quoted\"", "\\", "<>`{}", "[]|^",
  "!$&'()*+,;=:@~", "grüße", "\u{1f30a}", "e\u0301", "\u00e9", "\u{10ffff}", "\u200b", "v1/status", "metrics",
  "client/v4/accounts", "k".repeat(512), "ü".repeat(256), "../".repeat(100),
];

export const bytes = (text, form) => ({ bytes: Buffer.from(text, "latin1").toString("base64"), form });
const filled = (fill, form) => ({ fill, form });

function fillDigest(length) {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = at * 31 + (at >> 11);
  return createHash("sha256").update(bytes).digest("hex");
}

/** Asserts that a call throws an error with this text in it. */
export async function refused(promise, text) {
  await assert.rejects(promise, (error) => {
    assert.ok(error.message.includes(text), `"${text}" is not in "${error.message}"`);
    return true;
  });
}

export async function run(world) {
  const { main, check } = world;
  const kv = (method, ...args) => main.call("KV", method, ...args);
  await values(kv, check);
  await attributes(kv, check);
  await keys(kv, check);
  await sizes(kv, check);
  await listings(kv, world);
  await many(kv, check);
  await elsewhere(world);
}

async function values(kv, check) {
  const all = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
  for (const form of ["buffer", "view", "stream", "fixed"]) {
    await check(`binary by ${form}`, async () => {
      await kv("put", "binary", bytes(all.toString("latin1"), form));
      for (const type of ["arrayBuffer", "stream"]) {
        assert.equal((await kv("get", "binary", type)).bytes, all.toString("base64"), type);
        assert.equal((await kv("getWithMetadata", "binary", { type })).value.bytes, all.toString("base64"), type);
      }
    });
    await check(`nothing by ${form}`, async () => {
      await kv("put", "empty", bytes("", form));
      assert.equal((await kv("get", "empty", "arrayBuffer")).length, 0);
      assert.equal(await kv("get", "empty"), "");
    });
  }
  for (const value of ["", "text", "grüße \u{1f30a}", "\r\n", '{"a":[1,null,"ü"]}']) {
    await check(`text ${JSON.stringify(value)}`, async () => {
      await kv("put", "text", value);
      for (const type of [null, "text", { type: "text" }, { cacheTtl: 60 }, { type: "text", cacheTtl: 30 }]) {
        assert.equal(await kv("get", "text", type), value);
        assert.deepEqual((await kv("getWithMetadata", "text", type)).value, value);
      }
    });
  }
  await check("json", async () => {
    const value = { a: [1, null, "ü"], b: { c: true } };
    await kv("put", "json", JSON.stringify(value));
    assert.deepEqual(await kv("get", "json", "json"), value);
    assert.deepEqual(await kv("get", "json", { type: "json" }), value);
    assert.deepEqual((await kv("getWithMetadata", "json", "json")).value, value);
    await kv("put", "json", "no json");
    await refused(kv("get", "json", "json"), "SyntaxError");
  });
  await check("what is not there, and what was deleted", async () => {
    for (const type of [null, "text", "json", "arrayBuffer", "stream"]) {
      assert.equal(await kv("get", "none", type), null);
      const { value, metadata } = await kv("getWithMetadata", "none", type);
      assert.deepEqual([value, metadata], [null, null]);
    }
    await kv("put", "short-lived", "v", { metadata: 1 });
    await kv("delete", "short-lived");
    await kv("delete", "short-lived");
    assert.equal(await kv("get", "short-lived"), null);
    await kv("delete", "never there");
  });
  await check("the last write counts", async () => {
    for (let at = 0; at < 20; at++) {
      await kv("put", "counted", String(at));
      assert.equal(await kv("get", "counted"), String(at));
    }
  });
}

async function attributes(kv, check) {
  for (const metadata of [{ a: [1, { b: "ü \u{1f30a}" }] }, "text", 0, false, [], {}, "m".repeat(1022), "\n\"\\"]) {
    await check(`metadata ${JSON.stringify(metadata).slice(0, 40)}`, async () => {
      await kv("put", "meta", "v", { metadata });
      const found = await kv("getWithMetadata", "meta");
      assert.deepEqual([found.value, found.metadata], ["v", metadata]);
      const { keys } = await kv("list", { prefix: "meta" });
      assert.deepEqual(keys, [{ name: "meta", metadata }]);
    });
  }
  await check("a put without metadata and expiry clears both", async () => {
    await kv("put", "meta", "v", { metadata: { a: 1 }, expirationTtl: 1000 });
    await kv("put", "meta", "v");
    assert.equal((await kv("getWithMetadata", "meta")).metadata, null);
    assert.deepEqual((await kv("list", { prefix: "meta" })).keys, [{ name: "meta" }]);
  });
  await check("metadata of one byte too many", async () => {
    const metadata = "m".repeat(1023);
    await refused(kv("put", "meta", "v", { metadata }), "413 Metadata length of 1025 exceeds limit of 1024.");
  });
  await check("expiry", async () => {
    const now = Math.floor(Date.now() / 1000);
    const expiration = async () => (await kv("list", { prefix: "expiring" })).keys[0].expiration;
    await kv("put", "expiring", "v", { expirationTtl: 60 });
    assert.ok(Math.abs((await expiration()) - now - 60) <= 5);
    await kv("put", "expiring", "v", { expiration: now + 1000 });
    assert.equal(await expiration(), now + 1000);
    await kv("put", "expiring", "v", { expiration: now + 1000, expirationTtl: 100 });
    assert.ok(Math.abs((await expiration()) - now - 100) <= 5);
  });
  await check("an expiry that is too near", async () => {
    const ttl = "400 Invalid expiration_ttl of 59. Expiration TTL must be at least 60.";
    await refused(kv("put", "k", "v", { expirationTtl: 59 }), ttl);
    await refused(kv("put", "k", "v", { expiration: 1000 }), "400 Invalid expiration of 1000.");
    assert.equal(await kv("get", "k"), null);
  });
  await check("a time to cache that is too short", async () => {
    const text = "400 Invalid cache_ttl of 29. Cache TTL must be at least 30.";
    await refused(kv("get", "text", { cacheTtl: 29 }), text);
    await refused(kv("get", ["text"], { cacheTtl: 29 }), text);
  });
}

async function keys(kv, check) {
  for (const key of HOSTILE_KEYS) {
    await check(`key ${JSON.stringify(key).slice(0, 40)}`, async () => {
      await kv("put", key, `value of ${key}`, { metadata: { key } });
      const found = await kv("getWithMetadata", key);
      assert.deepEqual([found.value, found.metadata], [`value of ${key}`, { key }]);
      const listed = await kv("list", { prefix: key });
      assert.ok(listed.keys.some(({ name }) => name === key), "it is not listed");
      assert.deepEqual((await kv("get", [key, "none"])).map, [[key, `value of ${key}`], ["none", null]]
        .sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
      await kv("delete", key);
      assert.equal(await kv("get", key), null);
    });
  }
  await check("what is no text is no key", async () => {
    const text = "400 the key is not percent-encoded UTF-8";
    for (const key of ["\ud800", "a\udfff"]) {
      await refused(kv("get", key), text);
      await refused(kv("put", key, "v"), text);
      await refused(kv("delete", key), "");
    }
  });
  for (const key of ["", ".", "..", "k".repeat(513), "ü".repeat(257)]) {
    await check(`no key ${JSON.stringify(key).slice(0, 40)}`, async () => {
      for (const call of [["get", key], ["put", key, "v"], ["delete", key]]) await refused(kv(...call), "");
    });
  }
}

async function sizes(kv, check) {
  for (const length of [16 << 10, (16 << 10) + 1, 512 << 10, (512 << 10) + 1, MAX_VALUE_BYTES]) {
    const sha256 = fillDigest(length);
    for (const form of ["buffer", "stream"]) {
      await check(`${length} bytes by ${form}`, async () => {
        await kv("put", "large", filled(length, form), { metadata: { form } });
        assert.deepEqual(await kv("get", "large", "arrayBuffer"), { length, sha256 });
        const found = await kv("getWithMetadata", "large", "stream");
        assert.deepEqual([found.value, found.metadata], [{ length, sha256 }, { form }]);
      });
    }
  }
  for (const form of ["buffer", "fixed", "stream"]) {
    await check(`one byte too many by ${form}`, async () => {
      for (const more of [1, 8 << 20]) {
        const put = kv("put", "too large", filled(MAX_VALUE_BYTES + more, form));
        await refused(put, "KV PUT failed: 413 Value length of ");
      }
      assert.equal(await kv("get", "too large"), null);
    });
  }
}

async function listings(kv, { cluster, namespace, check }) {
  const names = Array.from({ length: 1205 }, (_, at) => `list/${at}`);
  const pairs = names.map((key) => ({ key, value: "v", metadata: { key } }));
  await cluster.rest(cluster.pops[0], "PUT", `/${namespace}/bulk`, JSON.stringify(pairs));
  const sorted = names.toSorted();
  const walk = async (options) => {
    const found = [];
    for (let cursor = null; ; ) {
      const page = await kv("list", { prefix: "list/", cursor, ...options });
      found.push(...page.keys.map(({ name }) => name));
      assert.equal(page.list_complete, page.cursor === undefined);
      if (page.list_complete) return found;
      cursor = page.cursor;
    }
  };
  await check("pages add up to every key in order", async () => {
    for (const limit of [null, 1000, 100, 7 * 43]) assert.deepEqual(await walk({ limit }), sorted);
  });
  await check("a page of one key", async () => {
    const page = await kv("list", { prefix: "list/", limit: 1 });
    assert.deepEqual(page.keys, [{ name: "list/0", metadata: { key: "list/0" } }]);
    assert.ok(page.cursor && !page.list_complete);
  });
  await check("a cursor outlives the key it stands at", async () => {
    const { cursor } = await kv("list", { prefix: "list/", limit: 10 });
    await kv("delete", sorted[9]);
    await kv("put", `${sorted[9]}.5`, "v");
    const next = await kv("list", { prefix: "list/", limit: 2, cursor });
    assert.deepEqual(next.keys.map(({ name }) => name), [`${sorted[9]}.5`, sorted[10]]);
  });
  await check("a prefix of nothing, and of one key", async () => {
    const { keys, list_complete } = await kv("list", { prefix: "no such prefix" });
    assert.deepEqual([keys, list_complete], [[], true]);
    assert.equal((await kv("list", { prefix: "list/1204" })).keys.length, 1);
    assert.ok((await kv("list")).keys.length > 0);
  });
  await check("limits and cursors that are none", async () => {
    await refused(kv("list", { limit: 1001 }), "400 Invalid key_count_limit of 1001.");
    await refused(kv("list", { cursor: "nonsense" }), "400 the cursor is not one that this store has given");
  });
}

async function many(kv, check) {
  const plain = (found) => Object.fromEntries(found.map);
  await check("bulk get", async () => {
    await kv("put", "many/a", '{"n":1}', { metadata: { m: "ü" } });
    await kv("put", "many/b", "[2]", { expirationTtl: 1000 });
    await kv("put", "many/text", "no json");
    const keys = ["many/a", "many/b", "many/none"];
    assert.deepEqual(plain(await kv("get", keys)), { "many/a": '{"n":1}', "many/b": "[2]", "many/none": null });
    assert.deepEqual(plain(await kv("get", keys, "json")), { "many/a": { n: 1 }, "many/b": [2], "many/none": null });
    assert.deepEqual(plain(await kv("get", keys, { type: "text", cacheTtl: 60 }))["many/b"], "[2]");
    const found = plain(await kv("getWithMetadata", keys));
    assert.deepEqual(found["many/a"], { value: '{"n":1}', metadata: { m: "ü" } });
    assert.deepEqual(found["many/b"], { value: "[2]", metadata: null });
    const parsed = plain(await kv("getWithMetadata", keys, { type: "json" }));
    assert.deepEqual(parsed["many/a"], { value: { n: 1 }, metadata: { m: "ü" } });
  });
  await check("bulk get of a hundred keys, and of one more", async () => {
    const keys = Array.from({ length: 101 }, (_, at) => `list/${at}`);
    assert.equal((await kv("get", keys.slice(0, 100))).map.length, 100);
    await refused(kv("get", keys), "400 You can request a maximum of 100 keys");
    await refused(kv("get", []), "400 You must request a minimum of 1 key");
  });
  await check("bulk get of what has another type", async () => {
    const text = "400 At least one of the requested keys corresponds to a non-json value";
    await refused(kv("get", ["many/text"], "json"), text);
    await refused(kv("get", ["many/a"], "arrayBuffer"), "");
  });
}

async function elsewhere({ main, check }) {
  for (const [from, to] of [["KV", "THERE"], ["THERE", "FAR"], ["FAR", "KV"]]) {
    await check(`what is written at ${from} is read at ${to}`, async () => {
      const key = `from ${from}`;
      await main.call(from, "put", key, `by ${from}`, { metadata: { from } });
      const arrived = async () => (await main.call(to, "getWithMetadata", key)).value !== null;
      await wait(`${key} is at ${to}`, ARRIVAL_TIME_MS, arrived);
      const { value, metadata } = await main.call(to, "getWithMetadata", key);
      assert.deepEqual([value, metadata], [`by ${from}`, { from }]);
      await main.call(to, "delete", key);
      const gone = async () => (await main.call(from, "get", key)) === null;
      await wait(`${key} is gone from ${from}`, ARRIVAL_TIME_MS, gone);
    });
    await check(`a large value written at ${from} is read whole at ${to}`, async () => {
      const length = (3 << 20) + 1;
      await main.call(from, "put", `large of ${from}`, filled(length, "stream"));
      const read = () => main.call(to, "get", `large of ${from}`, "arrayBuffer");
      const found = await wait("it is there", ARRIVAL_TIME_MS, read);
      assert.deepEqual(found, { length, sha256: fillDigest(length) });
    });
  }
}
