// The Worker under test: makes the call of a KV binding that a request describes, and answers what came of it. What
// JSON has no word for is described: see `decoded` and `encoded`.

const STREAM_PIECE_BYTES = 64 << 10;
/** Values up to this size come back whole, larger ones as their digest. */
const MAX_WHOLE_BYTES = 4096;

export default {
  async fetch(request, env) {
    const { binding, method, args } = await request.json();
    try {
      const result = await env[binding][method](...args.map(decoded));
      return Response.json({ result: (await encoded(result)) ?? null });
    } catch (error) {
      return Response.json({ error: `${error.name}: ${error.message}` });
    }
  },
};

/** { bytes: base64 } or { fill: length }, in the form of a buffer, a view, a stream or a stream of known length. */
function decoded(arg) {
  if (!arg?.form) return arg ?? undefined;
  const bytes = arg.fill === undefined ? Uint8Array.from(atob(arg.bytes), (c) => c.charCodeAt(0)) : filled(arg.fill);
  switch (arg.form) {
    case "buffer":
      return bytes.buffer;
    case "view":
      return bytes;
    case "stream": {
      let at = 0;
      return new ReadableStream({
        pull(controller) {
          if (at < bytes.length) controller.enqueue(bytes.slice(at, (at += STREAM_PIECE_BYTES)));
          else controller.close();
        },
      });
    }
    case "fixed": {
      const { readable, writable } = new FixedLengthStream(bytes.length);
      const writer = writable.getWriter();
      writer.write(bytes).then(() => writer.close()).catch(() => {});
      return readable;
    }
  }
}

function filled(length) {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at++) bytes[at] = at * 31 + (at >> 11);
  return bytes;
}

async function encoded(value) {
  if (value instanceof ReadableStream) return encoded(await new Response(value).arrayBuffer());
  if (value instanceof ArrayBuffer) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", value));
    const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (value.byteLength > MAX_WHOLE_BYTES) return { length: value.byteLength, sha256 };
    return { length: value.byteLength, sha256, bytes: btoa(String.fromCharCode(...new Uint8Array(value))) };
  }
  if (value instanceof Map) return { map: [...value] };
  if (value && typeof value === "object" && "value" in value && "metadata" in value) {
    return { ...value, value: await encoded(value.value) };
  }
  return value;
}
