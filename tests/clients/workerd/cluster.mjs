// Three PoPs, each a process of the real program, in a folder of their own.

import { spawn, execFile } from "node:child_process";
import dgram from "node:dgram";
import { appendFile, mkdir, open, writeFile } from "node:fs/promises";
import net from "node:net";
import path from "node:path";
import { promisify } from "node:util";

const POPS = ["pop-1", "pop-2", "pop-3"];
/** How long a node may take to serve, and to stop. */
const READY_TIME_MS = 60_000;
const STOP_TIME_MS = 30_000;
const POLL_INTERVAL_MS = 50;

export const ACCOUNT = "0123456789abcdef0123456789abcdef";
export const TOKEN = 'a"token\\of~visible!ASCII';

/** Waits until the condition gives something true, and returns it. */
export async function wait(what, limitMs, condition) {
  const end = Date.now() + limitMs;
  for (;;) {
    const outcome = await condition();
    if (outcome) return outcome;
    if (Date.now() > end) throw new Error(`waited ${limitMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS));
  }
}

/** A TCP port that is free now. */
export async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function freeUdpPort() {
  const socket = dgram.createSocket("udp4");
  await new Promise((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}

export class Cluster {
  constructor(binary, folder) {
    this.binary = path.resolve(binary);
    this.folder = folder;
    this.pops = [];
  }

  async start() {
    const authority = path.join(this.folder, "authority");
    await this.littoral(["cluster", "init", authority]);
    for (const name of POPS) {
      this.pops.push({ name, http: await freePort(), quic: await freeUdpPort(), folder: path.join(this.folder, name) });
    }
    for (const pop of this.pops) {
      const token = await this.littoral(["cluster", "join-token", authority, "--pop", pop.name]);
      await mkdir(pop.folder);
      await this.littoral(["node", "init", path.join(pop.folder, "identity"), "--token", token.trim()]);
      await writeFile(path.join(pop.folder, "config.toml"), this.configuration(pop));
    }
    for (const pop of this.pops) await this.startPop(pop);
    for (const pop of this.pops) await this.waitReady(pop);
  }

  configuration(pop) {
    const peers = this.pops.filter((peer) => peer !== pop);
    const peer = ({ name, quic }) => `[[replication.peers]]\npop = "${name}"\naddress = "127.0.0.1:${quic}"\n`;
    return `[node]\npop = "${pop.name}"\ndata_dir = "data"\nidentity_dir = "identity"\n
[http]\nlisten = "127.0.0.1:${pop.http}"\n[[http.tokens]]\naccount = "${ACCOUNT}"\ntoken = '${TOKEN}'\n
[replication]\nlisten = "127.0.0.1:${pop.quic}"\n${peers.map(peer).join("")}`;
  }

  async startPop(pop) {
    const log = await open(path.join(pop.folder, "littoral.log"), "a");
    const config = path.join(pop.folder, "config.toml");
    // The pipe: a node whose parent is gone stops, however the parent ended.
    pop.process = spawn(this.binary, ["serve", "--parent-pipe", "--config", config], {
      stdio: ["pipe", log.fd, log.fd],
      env: this.environment(),
    });
    await log.close();
  }

  async waitReady(pop) {
    await wait(`${pop.name} serves`, READY_TIME_MS, async () => {
      if (pop.process.exitCode !== null) throw new Error(`${pop.name} ended by itself; its log says why`);
      return (await fetch(`http://127.0.0.1:${pop.http}/readyz`).catch(() => null))?.ok;
    });
  }

  async stopPop({ process: child, name }) {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), STOP_TIME_MS);
    await ended;
    clearTimeout(late);
    if (child.signalCode === "SIGKILL") throw new Error(`${name} did not stop within ${STOP_TIME_MS} ms of SIGTERM`);
  }

  /** Stops a PoP, adds to its configuration, and starts it again. */
  async reconfigure(pop, text) {
    await this.stopPop(pop);
    await appendFile(path.join(pop.folder, "config.toml"), text);
    await this.startPop(pop);
    await this.waitReady(pop);
  }

  async stop() {
    await Promise.all(this.pops.map((pop) => this.stopPop(pop)));
  }

  /** The standard output of a command that must succeed. */
  async littoral(args, pop) {
    const done = await promisify(execFile)(this.binary, args, { env: this.environment(pop) });
    return done.stdout;
  }

  environment(pop) {
    const others = Object.entries(process.env).filter(([name]) => !name.startsWith("LITTORAL_"));
    const own = pop && {
      LITTORAL_URL: `http://127.0.0.1:${pop.http}`,
      LITTORAL_ACCOUNT: ACCOUNT,
      LITTORAL_TOKEN: TOKEN,
    };
    return { ...Object.fromEntries(others), ...own };
  }

  /** A call of the REST API that must succeed. */
  async rest(pop, method, tail, body) {
    const url = `http://127.0.0.1:${pop.http}/client/v4/accounts/${ACCOUNT}/storage/kv/namespaces${tail}`;
    const answer = await fetch(url, { method, body, headers: { authorization: `Bearer ${TOKEN}` } });
    if (!answer.ok) throw new Error(`${method} ${tail}: ${answer.status} ${await answer.text()}`);
    return answer;
  }

  async createNamespace(title) {
    const answer = await this.rest(this.pops[0], "POST", "", JSON.stringify({ title }));
    const { id } = (await answer.json()).result;
    for (const pop of this.pops) {
      const listed = async () => (await this.rest(pop, "GET", `/${id}`).catch(() => null))?.ok;
      await wait(`${title} is at ${pop.name}`, READY_TIME_MS, listed);
    }
    return id;
  }
}
