// workerd as a process: its configuration, its start and its end, and calls of the bindings of its Worker.

import { spawn } from "node:child_process";
import { copyFile, mkdir, open, writeFile } from "node:fs/promises";
import path from "node:path";

import { ACCOUNT, TOKEN, freePort, wait } from "./cluster.mjs";

const START_TIME_MS = 30_000;

/** A text of Cap'n Proto. */
const text = (value) => `"${value.replace(/["\\]/g, "\\$&")}"`;

/** An external service: a KV binding whose namespace is chosen by these headers, at this address. */
export function external(address, headers, style = "host") {
  const injected = Object.entries(headers).map(([name, value]) => `(name = ${text(name)}, value = ${text(value)})`);
  return `external = (address = ${text(address)},
      http = (style = ${style}, injectRequestHeaders = [${injected.join(", ")}]))`;
}

/** A Worker that puts a prefix before each path, between the binding and the PoP. */
export function prefixing(pop, prefix) {
  const script = `export default { fetch(request, env) {
    const url = new URL(request.url);
    const changed = new Request("http://littoral" + env.PREFIX + url.pathname + url.search, request);
    changed.headers.set("Authorization", env.AUTHORIZATION);
    return env.POP.fetch(changed);
  } }`.replace(/\n\s*/g, " ");
  return `worker = (
      compatibilityDate = "2026-01-01",
      modules = [(name = "prefix.js", esModule = ${text(script)})],
      bindings = [
        (name = "PREFIX", text = ${text(prefix)}),
        (name = "AUTHORIZATION", text = ${text(`Bearer ${TOKEN}`)}),
        (name = "POP", service = ${text(pop)}),
      ])`;
}

/** The headers that choose a namespace. */
export const chosen = (namespace, token = TOKEN) => ({
  Authorization: `Bearer ${token}`,
  "X-KV-Account-Id": ACCOUNT,
  "X-KV-Namespace-Id": namespace,
});

/** A configuration whose Worker has a KV binding for each of these services that has a name in capitals. */
export function configuration(services, port) {
  const names = Object.keys(services);
  const bindings = names.filter((name) => name === name.toUpperCase());
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    ${names.map((name) => `(name = ${text(name)}, ${services[name]})`).join(",\n    ")}
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-01-01",
  bindings = [${bindings.map((name) => `(name = ${text(name)}, kvNamespace = ${text(name)})`).join(", ")}],
);`;
}

export class Runtime {
  /** Starts the program workerd with what `write` gives for a port, in a folder of its own. */
  static async start(program, folder, write) {
    await mkdir(folder);
    const port = await freePort();
    await copyFile(new URL("worker.js", import.meta.url), path.join(folder, "worker.js"));
    const config = path.join(folder, "worker.capnp");
    await writeFile(config, await write(port), { mode: 0o600 });
    const log = await open(path.join(folder, "workerd.log"), "a");
    const runtime = new Runtime();
    runtime.url = `http://127.0.0.1:${port}`;
    runtime.process = spawn(program, ["serve", config], { stdio: ["ignore", log.fd, log.fd] });
    await log.close();
    await wait("workerd serves", START_TIME_MS, async () => {
      if (runtime.process.exitCode !== null) throw new Error(`workerd ended by itself: see ${folder}/workerd.log`);
      return (await fetch(runtime.url, { method: "POST", body: "{}" }).catch(() => null)) !== null;
    });
    return runtime;
  }

  /** Makes a call of a binding. Gives its result; what it threw is thrown. */
  async call(binding, method, ...args) {
    const answer = await fetch(this.url, { method: "POST", body: JSON.stringify({ binding, method, args }) });
    const { result, error } = await answer.json();
    if (error) throw new Error(error);
    return result;
  }

  async stop() {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    if (this.process.kill("SIGKILL")) await ended;
  }
}
