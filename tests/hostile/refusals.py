#!/usr/bin/env python3
"""Calls every operation of a node's OpenAPI document without a token, and with a wrong one: each says no, as its side of
the API does. schemathesis looks for 401 or 403, where the REST API of Workers KV has 400 for a missing token.

Finds URL, ACCOUNT and NAMESPACE in its environment. Exit code 1 where something was not refused.
"""

import json
import os
import sys
import urllib.error
import urllib.request

URL = os.environ["URL"]
# Status without a token, and with a wrong one: of the surface of Workers KV, and of all others.
KV, OTHERS = (400, 403), (401, 401)


def main():
    with urllib.request.urlopen(f"{URL}/v1/openapi.json") as answer:
        document = json.load(answer)
    names = {"account": os.environ["ACCOUNT"], "namespace": os.environ["NAMESPACE"]}
    wrong = 0
    for template, methods in document["paths"].items():
        path = "/".join(names.get(part[1:-1], "x") if part[:1] == "{" else part for part in template.split("/"))
        for method, operation in methods.items():
            if method == "parameters" or operation.get("security") == []:
                continue
            [side] = operation["tags"]
            found = (status(method, path, {}), status(method, path, {"Authorization": "Bearer wrong"}))
            expected = KV if side == "kv" else OTHERS
            if found != expected:
                wrong += 1
                print(f"  FAILED  {method.upper()} {template}: {found}, expected {expected}")
    sys.exit(1 if wrong else 0)


def status(method, path, headers):
    body = None if method == "get" else b"{}"
    request = urllib.request.Request(URL + path, method=method.upper(), headers=headers, data=body)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    main()
