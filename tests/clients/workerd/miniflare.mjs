// miniflare's remote bindings: it forwards each request of a binding to a PoP, target and headers wrapped.

import assert from "node:assert/strict";

import { refused } from "./calls.mjs";
import { TOKEN } from "./cluster.mjs";

const SCRIPT = `export default { async fetch(request, env) {
  const { method, args } = await request.json();
  try {
    return Response.json({ result: await env.KV[method](...args) ?? null });
  } catch (error) {
    return Response.json({ error: error.message });
  }
} }`;

export async function run({ cluster, namespace, check }, installed) {
  const { Miniflare } = installed("miniflare");
  const [pop] = cluster.pops;
  const start = (token) => {
    const url = new URL(`http://127.0.0.1:${pop.http}/binding/${namespace}/${encodeURIComponent(token)}`);
    return new Miniflare({
      modules: true,
      script: SCRIPT,
      compatibilityDate: "2026-01-01",
      kvNamespaces: { KV: { id: namespace, remoteProxyConnectionString: url } },
    });
  };
  const call = async (instance, method, ...args) => {
    const body = JSON.stringify({ method, args });
    const answer = await instance.dispatchFetch("http://worker", { method: "POST", body });
    const { result, error } = await answer.json();
    if (error) throw new Error(error);
    return result;
  };
  const instance = start(TOKEN);
  await check("miniflare: values, metadata, keys", async () => {
    const kv = (method, ...args) => call(instance, method, ...args);
    const key = "miniflare/a b%2F?";
    await kv("put", key, "grüße", { metadata: { a: 1 }, expirationTtl: 1000 });
    const found = await kv("getWithMetadata", key);
    assert.deepEqual([found.value, found.metadata], ["grüße", { a: 1 }]);
    const { keys, list_complete } = await kv("list", { prefix: "miniflare/" });
    assert.deepEqual([keys[0].name, keys[0].metadata, list_complete], [key, { a: 1 }, true]);
    assert.equal(await kv("get", "none"), null);
    await refused(kv("put", key, "v", { expirationTtl: 1 }), "Invalid expiration_ttl of 1.");
    await kv("delete", key);
    assert.equal(await kv("get", key), null);
  });
  await instance.dispose();
  const stranger = start("wrong");
  await check("miniflare: a wrong token", () => refused(call(stranger, "get", "k"), "403"));
  await stranger.dispose();
}
