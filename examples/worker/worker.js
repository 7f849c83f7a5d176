// A Worker with a KV binding, as it would be written for Cloudflare: nothing in it knows of Littoral.
//
//   PUT /key      stores the body, and answers what it reads back
//   GET /key      the value, and who wrote it when
//   DELETE /key
//   GET /         all keys

export default {
  async fetch(request, env) {
    const key = decodeURIComponent(new URL(request.url).pathname.slice(1));
    if (!key) {
      const { keys } = await env.KV.list();
      return Response.json(keys.map(({ name, metadata }) => ({ name, ...metadata })));
    }
    switch (request.method) {
      case "PUT":
        await env.KV.put(key, request.body ?? "", { metadata: { written: new Date().toISOString() } });
        return read(env, key);
      case "DELETE":
        await env.KV.delete(key);
        return new Response(null, { status: 204 });
      case "GET":
        return read(env, key);
      default:
        return new Response("use GET, PUT or DELETE\n", { status: 405 });
    }
  },
};

async function read(env, key) {
  const { value, metadata } = await env.KV.getWithMetadata(key);
  if (value === null) return new Response(`there is no key ${key}\n`, { status: 404 });
  return new Response(`${value}\n`, { headers: { "X-Written": metadata?.written ?? "by another" } });
}
