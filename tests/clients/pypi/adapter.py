"""The adapter of PyPI's `cloudflare`. Numbers are given as the floats that its signatures ask for."""

import base64
import json
import os
import sys
from pathlib import Path

import cloudflare

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from adapter import Lacks, Refusal, serve  # noqa: E402

ACCOUNT = os.environ["ACCOUNT"]


def main():
    traits = {"client": f"cloudflare {cloudflare.__version__} (PyPI)", "bulk_at_most": 10_000, "namespaces_a_page": 20}
    serve(traits, Calls())


def told(call):
    """The call, with the library's errors in the suite's words."""

    def telling(*arguments, **options):
        try:
            return call(*arguments, **options)
        except cloudflare.APIStatusError as error:
            code = error.errors[0].code if error.errors else None
            raise Refusal(error, error.status_code, code) from error
        except cloudflare.APIConnectionError as error:
            raise Refusal(error) from error
        except ValueError as error:
            raise Refusal(error, by_client=True) from error

    return telling


def floats(**options):
    return {name: float(value) for name, value in options.items() if value is not None}


class Calls:
    """The calls of the suite."""

    def __init__(self):
        token = os.environ["TOKEN"]
        by_key = {"api_email": "someone@example.com", "api_key": token}
        credentials = by_key if os.environ["AUTH"] == "key" else {"api_token": token}
        self.kv = cloudflare.Cloudflare(base_url=os.environ["BASE_URL"], **credentials).kv.namespaces

    @told
    def create_namespace(self, title):
        return self.kv.create(account_id=ACCOUNT, title=title).to_dict()

    @told
    def list_namespaces(self):
        return [namespace.to_dict() for namespace in self.kv.list(account_id=ACCOUNT)]

    @told
    def find_namespace(self, namespace):
        return self.kv.get(namespace, account_id=ACCOUNT).to_dict()

    @told
    def rename_namespace(self, namespace, title):
        self.kv.update(namespace, account_id=ACCOUNT, title=title)

    @told
    def delete_namespace(self, namespace):
        self.kv.delete(namespace, account_id=ACCOUNT)

    @told
    def put(self, namespace, key, value, as_text=False, expiration=None, expiration_ttl=None, **metadata):
        if as_text:
            raise Lacks("which takes bytes only, whatever its signature says")
        options = floats(expiration=expiration, expiration_ttl=expiration_ttl)
        if "metadata" in metadata:
            options["metadata"] = json.dumps(metadata["metadata"])
        value = base64.b64decode(value)
        self.kv.values.update(key, account_id=ACCOUNT, namespace_id=namespace, value=value, **options)

    @told
    def read(self, namespace, key):
        answer = self.kv.values.get(key, account_id=ACCOUNT, namespace_id=namespace)
        expiration = answer.headers.get("expiration")
        shown = {"expiration": int(expiration)} if expiration else {}
        return {"value": base64.b64encode(answer.read()).decode(), **shown}

    @told
    def delete(self, namespace, key):
        self.kv.values.delete(key, account_id=ACCOUNT, namespace_id=namespace)

    @told
    def read_metadata(self, namespace, key):
        return self.kv.metadata.get(key, account_id=ACCOUNT, namespace_id=namespace)

    @told
    def list_keys(self, namespace, limit=None, **prefix):
        pages = self.kv.keys.list(namespace, account_id=ACCOUNT, **floats(limit=limit), **prefix)
        return [row.to_dict() for row in pages]

    @told
    def bulk_put(self, namespace, pairs):
        return self.kv.bulk_update(namespace, account_id=ACCOUNT, body=pairs).successful_key_count

    @told
    def bulk_delete(self, namespace, keys):
        return self.kv.bulk_delete(namespace, account_id=ACCOUNT, body=keys).successful_key_count

    @told
    def bulk_read(self, namespace, keys, **options):
        return self.kv.bulk_get(namespace, account_id=ACCOUNT, keys=keys, **options).to_dict()["values"]


if __name__ == "__main__":
    main()
