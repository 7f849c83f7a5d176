// Which namespace a binding leads to: every way of choosing it, and what a Worker hears where there is none.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { bytes, refused } from "./calls.mjs";
import { freePort } from "./cluster.mjs";

const EXAMPLE = fileURLToPath(new URL("../../../examples/worker/start", import.meta.url));

/** Ways that lead to the same namespace at the same PoP. */
const WAYS = ["KV", "ONLY_ID", "ABSOLUTE", "PREFIX", "PORT", "SOCKET"];
/** Ways that lead nowhere, with what the Worker hears. */
const REFUSED = {
  WRONG: "403 Authentication error",
  NOBODY: "401 no token was sent",
  MISSING: "400 namespace not found",
  NO_ID: "400 could not parse UUID from request's namespace_id: 'demo'",
  PORT_NOBODY: "401 no token was sent",
  SOCKET_OTHER: "400 X-KV-Namespace-Id names another namespace",
};

export async function run({ main, configured, cluster, namespace, check }) {
  for (const way of WAYS) {
    await check(`by ${way}`, async () => {
      const key = `by/${way} ü`;
      await main.call(way, "put", key, bytes("\u00ff\u0000", "stream"), { metadata: { way } });
      for (const other of WAYS) {
        const found = await main.call(other, "getWithMetadata", key, "arrayBuffer");
        assert.deepEqual([found.value.bytes, found.metadata], ["/wA=", { way }], other);
        const { keys } = await main.call(other, "list", { prefix: "by/", limit: 10 });
        assert.ok(keys.some(({ name }) => name === key), other);
      }
      await main.call(way, "put", key, "text");
      assert.deepEqual((await main.call(way, "get", [key])).map, [[key, "text"]]);
      await refused(main.call(way, "put", key, { fill: (25 << 20) + 1, form: "stream" }), "KV PUT failed: 413 ");
      await main.call(way, "delete", key);
      assert.equal(await main.call("KV", "get", key), null);
    });
  }
  for (const [way, text] of Object.entries(REFUSED)) {
    await check(`nothing by ${way}`, async () => {
      const reads = [["get", "k"], ["getWithMetadata", "k"], ["list"], ["get", ["k"]]];
      const writes = [["put", "k", "v"], ["put", "k", { fill: 1 << 20, form: "stream" }], ["delete", "k"]];
      for (const [method, ...args] of [...reads, ...writes]) await refused(main.call(way, method, ...args), text);
    });
  }
  await check("as `littoral workers config` prints it", async () => {
    await configured.call("MY_KV", "put", "configured", "v", { metadata: { a: "ü" } });
    const found = await main.call("KV", "getWithMetadata", "configured");
    assert.deepEqual([found.value, found.metadata], ["v", { a: "ü" }]);
    const read = await cluster.rest(cluster.pops[0], "GET", `/${namespace}/values/configured`);
    assert.equal(await read.text(), "v");
  });
  await check("as examples/worker starts it", async () => {
    const [first, , third] = cluster.pops;
    const args = ["--binary", cluster.binary, "--other", `http://127.0.0.1:${third.http}`, "--check"];
    const env = { ...cluster.environment(first), LITTORAL_NAMESPACE: "workers" };
    const { stdout } = await promisify(execFile)(EXAMPLE, [...args, "--port", String(await freePort())], { env });
    assert.equal(stdout.match(/^read at \d+ at once, and at \d+/gm).length, 2, stdout);
  });
}
