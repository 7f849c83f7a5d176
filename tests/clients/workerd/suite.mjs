// Every call of a KV binding, made by real workerd against three real PoPs; see `run`.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

import * as calls from "./calls.mjs";
import { Cluster, freePort } from "./cluster.mjs";
import * as miniflare from "./miniflare.mjs";
import { Runtime, chosen, configuration, external, prefixing } from "./runtime.mjs";
import * as selection from "./selection.mjs";

const { values: options } = parseArgs({ options: { binary: { type: "string" }, installed: { type: "string" } } });
/** A package as `run` has installed it. */
const installed = createRequire(path.join(path.resolve(options.installed), "package.json"));
const folder = await mkdtemp(path.join(os.tmpdir(), "littoral-workerd-"));
const cluster = new Cluster(options.binary, folder);
const runtimes = [];
const tally = { passed: 0, failed: 0 };

/** One thing that must hold. A failure is told, and the suite goes on. */
async function check(name, body) {
  try {
    await body();
    tally.passed += 1;
  } catch (error) {
    tally.failed += 1;
    console.log(`FAILED ${name}\n    ${String(error?.message ?? error).replaceAll("\n", "\n    ")}`);
  }
}

/** Everything that is bound: the Worker's view of the same namespace, by each way of choosing it. */
async function start() {
  await cluster.start();
  const namespace = await cluster.createNamespace("workers");
  const [first, second, third] = cluster.pops;
  const port = await freePort();
  // Relative, as sockets have short paths.
  const socket = path.join(first.folder, "kv.sock");
  const binding = (listen, access) =>
    `[[http.bindings]]\nnamespace = "${namespace}"\nlisten = "${listen}"\naccess = "${access}"\n`;
  await cluster.reconfigure(first, binding(`127.0.0.1:${port}`, "token") + binding("unix:kv.sock", "socket"));
  const at = (pop) => `127.0.0.1:${pop.http}`;
  const { Authorization } = chosen(namespace);
  const services = {
    KV: external(at(first), chosen(namespace)),
    THERE: external(at(second), chosen(namespace)),
    FAR: external(at(third), chosen(namespace)),
    ONLY_ID: external(at(first), { Authorization, "X-KV-Namespace-Id": namespace }),
    ABSOLUTE: external(at(first), chosen(namespace), "proxy"),
    pop: external(at(first), {}),
    PREFIX: prefixing("pop", `/binding/${namespace}`),
    PORT: external(`127.0.0.1:${port}`, { Authorization }),
    SOCKET: external(`unix:${socket}`, {}),
    WRONG: external(at(first), chosen(namespace, "wrong")),
    NOBODY: external(at(first), { "X-KV-Namespace-Id": namespace }),
    MISSING: external(at(first), chosen("f".repeat(32))),
    NO_ID: external(at(first), chosen("demo")),
    PORT_NOBODY: external(`127.0.0.1:${port}`, {}),
    SOCKET_OTHER: external(`unix:${socket}`, { "X-KV-Namespace-Id": "f".repeat(32) }),
  };
  const program = installed("workerd").default;
  const main = await Runtime.start(program, path.join(folder, "main"), (port) => configuration(services, port));
  runtimes.push(main);
  const printed = (port) =>
    cluster.littoral(["workers", "config", "workers", "--binding", "MY_KV", "--listen", `127.0.0.1:${port}`], first);
  const configured = await Runtime.start(program, path.join(folder, "printed"), printed);
  runtimes.push(configured);
  return { cluster, namespace, main, configured, check };
}

// However this ends, no process is left behind.
process.on("exit", () => {
  for (const { process: child } of [...runtimes, ...cluster.pops]) child?.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

let outcome = 1;
try {
  const world = await start();
  await calls.run(world);
  await selection.run(world);
  await miniflare.run(world, installed);
  assert.ok(tally.passed > 0);
  outcome = tally.failed ? 1 : 0;
  console.log(`${tally.passed} passed, ${tally.failed} failed`);
} catch (error) {
  console.log(`FAILED ${error?.stack ?? error}`);
} finally {
  for (const runtime of runtimes) await runtime.stop();
  await cluster.stop();
  if (outcome) console.log(`data and logs are kept in ${folder}`);
  else await rm(folder, { recursive: true });
}
process.exit(outcome);
