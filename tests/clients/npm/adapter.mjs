// The adapter of npm's `cloudflare`, which is installed in the folder that is the one argument. `suite.py` has the
// protocol.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/`);
const { default: Cloudflare, toFile } = require("cloudflare");
const { VERSION } = require("cloudflare/version");

const { ACCOUNT: account_id, TOKEN: token, AUTH, BASE_URL: baseURL } = process.env;
const byKey = { apiEmail: "someone@example.com", apiKey: token };
const kv = new Cloudflare({ baseURL, ...(AUTH === "key" ? byKey : { apiToken: token }) }).kv.namespaces;

const calls = {
  create_namespace: ({ title }) => kv.create({ account_id, title }),
  list_namespaces: () => collect(kv.list({ account_id })),
  find_namespace: ({ namespace }) => kv.get(namespace, { account_id }),
  rename_namespace: ({ namespace, title }) => kv.update(namespace, { account_id, title }),
  delete_namespace: ({ namespace }) => kv.delete(namespace, { account_id }),

  async put({ namespace, key, value, as_text, metadata, ...options }) {
    const bytes = Buffer.from(value, "base64");
    const params = { account_id, namespace_id: namespace, ...options };
    params.value = as_text ? bytes.toString() : await toFile(bytes, "value");
    // A metadata object would be sent as parts named `metadata[...]`.
    if (metadata !== undefined) params.metadata = JSON.stringify(metadata);
    await kv.values.update(key, params);
  },

  async read({ namespace, key }) {
    const response = await kv.values.get(key, { account_id, namespace_id: namespace });
    const expiration = response.headers.get("expiration");
    const value = Buffer.from(await response.arrayBuffer()).toString("base64");
    return expiration === null ? { value } : { value, expiration: Number(expiration) };
  },

  delete: ({ namespace, key }) => kv.values.delete(key, { account_id, namespace_id: namespace }),
  read_metadata: ({ namespace, key }) => kv.metadata.get(key, { account_id, namespace_id: namespace }),
  list_keys: ({ namespace, ...options }) => collect(kv.keys.list(namespace, { account_id, ...options })),

  async bulk_put({ namespace, pairs }) {
    return (await kv.bulkUpdate(namespace, { account_id, body: pairs })).successful_key_count;
  },
  async bulk_delete({ namespace, keys }) {
    return (await kv.bulkDelete(namespace, { account_id, body: keys })).successful_key_count;
  },
  async bulk_read({ namespace, keys, type, with_metadata: withMetadata }) {
    return (await kv.bulkGet(namespace, { account_id, keys, type, withMetadata })).values;
  },
};

// Every row of every page.
async function collect(pages) {
  const rows = [];
  for await (const row of pages) rows.push(row);
  return rows;
}

async function answer({ call, ...given }) {
  try {
    return { result: (await calls[call](given)) ?? null };
  } catch (error) {
    const { status = null, errors, message } = error;
    // The library's own errors are of the server or of the way there.
    const by_client = !(error instanceof Cloudflare.APIError);
    return { error: { status, code: errors?.[0]?.code ?? null, message, by_client } };
  }
}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

say({ client: `cloudflare ${VERSION} (npm)`, bulk_at_most: 10_000, namespaces_a_page: 20 });
for await (const line of createInterface({ input: process.stdin })) {
  say(await answer(JSON.parse(line)));
}
