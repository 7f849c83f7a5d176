#!/usr/bin/env python3
"""What a client of the REST API must be able to do with Littoral, told once for all clients.

    suite.py ADAPTER...        ADAPTER is the command that starts a client's adapter

An adapter is a small process around an unmodified client. Its first line on stdout tells of the client; from then on
it takes one call a line on stdin and answers each, in order, with one line:

    {"call": "put", "namespace": "5d...", "key": "k", "value": "aGk="}     values are base64
    {"result": null}
    {"error": {"status": 404, "code": 10009, "message": "..."}}            what the client does not tell is null
    {"error": {..., "by_client": true}}                                    refused before anything was sent
    {"lacks": "no such command"}                                           the client cannot ask for that at all

It finds BASE_URL, ACCOUNT, TOKEN and AUTH ("bearer" or "key") in its environment. The suite finds WRITE_URL and
READ_URL: what is written at one is read at the other, at once where they are the same PoP, and else soon. READER may be
the command of another client's adapter, a word a line, to read through.

Prints a line for each case and "N passed, M failed"; exit code 1 where one failed.
"""

import signal
import sys

import cases
from stage import Ended, Failed, Lacking, Refused, Stage


def main():
    # A signal ends the suite as an error does: the adapters with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    stage = Stage(sys.argv[1:])
    passed = failed = 0
    try:
        for case in cases.ALL:
            name = case.__name__.replace("_", " ")
            try:
                case(stage)
            except Lacking as lacking:
                print(f"  -       {name}: not with this client, {lacking}", flush=True)
            except Exception as error:
                failed += 1
                kind = "" if isinstance(error, (Ended, Failed, Refused)) else f"{type(error).__name__}: "
                print(f"  FAILED  {name}: {kind}{error}", flush=True)
                if isinstance(error, (Ended, OSError)):
                    break
            else:
                passed += 1
                print(f"  ok      {name}", flush=True)
    finally:
        stage.close()
    read_by = stage.reader.traits["client"]
    by = "" if read_by == stage.traits["client"] else f", read by {read_by}"
    print(f"{stage.traits['client']}{by}: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
