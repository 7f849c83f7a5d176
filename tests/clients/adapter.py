"""The adapters' side of the protocol that `suite.py` tells of, for adapters in Python."""

import json
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor


class Lacks(Exception):
    """The client cannot ask for this."""


class Refusal(Exception):
    """What the client says when it or the server refuses."""

    def __init__(self, message, status=None, code=None, by_client=False):
        super().__init__(message)
        self.told = {"status": status, "code": code, "message": str(message), "by_client": by_client}


def serve(traits, client, at_once=1):
    """Answers calls with the methods of `client`, in order, with up to `at_once` of them under way."""
    say(traits)
    under_way = queue.Queue()
    with ThreadPoolExecutor(at_once) as pool:
        threading.Thread(target=take_calls, args=(pool, client, under_way), daemon=True).start()
        while call := under_way.get():
            say(call.result())


def take_calls(pool, client, under_way):
    for line in sys.stdin:
        under_way.put(pool.submit(answer, client, json.loads(line)))
    under_way.put(None)


def answer(client, call):
    method = getattr(client, call.pop("call"))
    try:
        return {"result": method(**call)}
    except Lacks as why:
        return {"lacks": str(why)}
    except Refusal as refusal:
        return {"error": refusal.told}
    except Exception as error:  # The suite shows it.
        return {"error": Refusal(f"{type(error).__name__}: {error}").told}


def say(line):
    print(json.dumps(line), flush=True)
