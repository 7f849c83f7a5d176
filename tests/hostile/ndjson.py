"""How schemathesis sends NDJSON: a request of one line."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def one_line(_context, value):
    return value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"
