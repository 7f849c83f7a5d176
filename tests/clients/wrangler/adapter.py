"""The adapter of wrangler: adapter.py FOLDER VERSION, where FOLDER has it installed.

Each call runs the program once.
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from adapter import Lacks, Refusal, serve  # noqa: E402

# It starts in a second, most of it its own CPU time.
AT_ONCE = 2
# It divides greater bulks itself.
BULK_AT_MOST = 1_000_000
COMMAND_TIME_S = 110


def main():
    folder, version = sys.argv[1:]
    # It asks for 1,000 a page, and for the next page until one is empty.
    traits = {"client": f"wrangler {version}", "bulk_at_most": BULK_AT_MOST, "namespaces_a_page": 1, "is_slow": True}
    # A folder without a configuration, which is its home too: it writes logs and settings there.
    with tempfile.TemporaryDirectory(prefix="littoral-wrangler-") as home:
        serve(traits, Calls(Path(folder), Path(home)), AT_ONCE)


class Calls:
    """The calls of the suite."""

    def __init__(self, folder, home):
        self.command = ["node", folder / "node_modules/wrangler/bin/wrangler.js", "kv"]
        self.home = home
        token = os.environ["TOKEN"]
        by_key = {"CLOUDFLARE_API_KEY": token, "CLOUDFLARE_EMAIL": "someone@example.com"}
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "CI": "1",
            "NO_COLOR": "1",
            "DO_NOT_TRACK": "1",
            "WRANGLER_SEND_METRICS": "false",
            "WRANGLER_SEND_ERROR_REPORTS": "false",
            "CLOUDFLARE_API_BASE_URL": os.environ["BASE_URL"],
            "CLOUDFLARE_ACCOUNT_ID": os.environ["ACCOUNT"],
            **(by_key if os.environ["AUTH"] == "key" else {"CLOUDFLARE_API_TOKEN": token}),
        }

    def create_namespace(self, title):
        said = self.run("namespace", "create", title)
        return {"id": re.search(rb'"id": "([0-9a-f]{32})"', said)[1].decode(), "title": title}

    def list_namespaces(self):
        return json.loads(self.run("namespace", "list"))

    def find_namespace(self, namespace):
        raise Lacks("which has no such command")

    def rename_namespace(self, namespace, title):
        self.run("namespace", "rename", f"--namespace-id={namespace}", f"--new-name={title}")

    def delete_namespace(self, namespace):
        self.run("namespace", "delete", f"--namespace-id={namespace}", "--skip-confirmation")

    def put(self, namespace, key, value, as_text=False, expiration=None, expiration_ttl=None, **metadata):
        options = [f"--expiration={expiration}"] if expiration else []
        options += [f"--ttl={expiration_ttl}"] if expiration_ttl else []
        options += [f"--metadata={json.dumps(metadata['metadata'])}"] if metadata else []
        if not isinstance(metadata.get("metadata", {}), dict):
            raise Lacks("which takes objects only")
        value = base64.b64decode(value)
        if as_text:
            self.run_key("put", namespace, key, value.decode(), options=options)
        else:
            with self.file(value) as path:
                self.run_key("put", namespace, key, options=[*options, f"--path={path}"])

    def read(self, namespace, key):
        return {"value": base64.b64encode(self.run_key("get", namespace, key)).decode()}

    def delete(self, namespace, key):
        self.run_key("delete", namespace, key)

    def read_metadata(self, namespace, key):
        raise Lacks("which has no such command")

    def list_keys(self, namespace, prefix=None, limit=None):
        if limit is not None:
            raise Lacks("which has no such option")
        options = [f"--prefix={prefix}"] if prefix else []
        return json.loads(self.run("key", "list", "--remote", f"--namespace-id={namespace}", *options))

    def bulk_put(self, namespace, pairs):
        self.run_bulk("put", namespace, pairs)

    def bulk_delete(self, namespace, keys):
        self.run_bulk("delete", namespace, keys, "--force")

    def bulk_read(self, namespace, keys, **options):
        if options:
            raise Lacks("which has no such options")
        said = self.run_bulk("get", namespace, keys)
        return json.JSONDecoder().raw_decode(said.decode())[0]

    def run_key(self, command, namespace, *words, options=()):
        return self.run("key", command, "--remote", f"--namespace-id={namespace}", *options, *words)

    def run_bulk(self, command, namespace, content, *options):
        with self.file(json.dumps(content).encode()) as path:
            return self.run("bulk", command, str(path), "--remote", f"--namespace-id={namespace}", *options)

    @contextmanager
    def file(self, content):
        with tempfile.NamedTemporaryFile(dir=self.home) as file:
            file.write(content)
            file.flush()
            yield file.name

    def run(self, *words):
        """What the program writes to its stdout."""
        if any("\0" in word for word in words):
            raise Lacks("whose arguments cannot have it")
        ended = subprocess.run(
            [*self.command, *words],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIME_S,
        )
        if ended.returncode == 0:
            return ended.stdout
        raise refusal(ended.stderr.decode(errors="replace"))


def refusal(said):
    """Errors come as `message [code: N]`, those of a read as a status, and some as a sentence of its own."""
    code = re.search(r"\[code: (\d+)\]", said)
    status = re.search(r" - (\d{3}): ", said)
    # It knows this one, and then says neither.
    is_title_given = "A KV namespace with the title" in said
    return Refusal(
        " ".join(said.split()),
        status=int(status[1]) if status else None,
        code=10014 if is_title_given else int(code[1]) if code else None,
        by_client="is required" in said or "Not enough non-option arguments" in said,
    )


if __name__ == "__main__":
    main()
