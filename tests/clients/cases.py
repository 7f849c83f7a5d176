"""The cases of the suite: what is written through a client, and what is to be found. `stage.py` has the words."""

import base64
import hashlib
import os
import time

from stage import Failed, Lacking, Refused, check, check_refused

KIB, MIB = 1 << 10, 1 << 20
MAX_KEY_BYTES, MAX_VALUE_BYTES, MAX_METADATA_BYTES = 512, 25 * MIB, KIB
MAX_BULK_KEYS, MAX_BULK_READ_KEYS = 10_000, 100
MIN_TTL_S = 60
# How long a write may take, on a machine that is busy.
SLACK_S = 120
# An expired key is looked for this much longer.
MAX_WAIT_FOR_EXPIRY_S = 30
NOWHERE = "0" * 31 + "1"

# Each looks like something else: a route, a path, an escape, an operator of some URL's or shell's. A client that is
# slow is given the first ones.
HOSTILE_KEYS = [
    "bulk/get", "a/../b", "x%2Fy", "+", "a b", "🌊🏖️", "%2e%2e", "?q=1#f", "ü/ß", "two\r\nlines", "/", "&a=b;c",
    "bulk", "bulk/delete", "keys", "keys/", "values/k", "metadata/k", "a/./b", "../k", "//", "/k", "k/", "...", ".k",
    "a\\b", "%", "100%", "%zz", "a+b c", " ", " k ", "[x]|^~`{}<>\"'", "$(HOME)*!@:,=",
    "007", "true", "null", "\u0065\u0301", "日本語", "tab\there", "\ufeffk",
]  # fmt: skip
ALL_BYTES = bytes(range(256))
VALUES = {
    "all bytes": ALL_BYTES * 3,
    "CRLF at the edges": b"\r\n\r\nvalue\r\n\r\n",
    "lines like boundaries": b"--\r\n--boundary\r\n\r\n--boundary--\r\n----\r\n\r",
    "empty": b"",
    "larger than a row": ALL_BYTES * 1000,
    "CRLF": b"\r\n",
    "LF": b"\n",
    "CR": b"\r",
    "NUL": b"\0",
    "no UTF-8": b"\xff\xfe\xed\xa0\x80",
    "text": "välue 🌊".encode(),
    "form": b"a=b&c=d+e%20f",
    "a form": b'--b\r\nContent-Disposition: form-data; name="value"\r\n\r\nx\r\n--b--\r\n',
    "what older SDKs sent": b'{"value": "v", "metadata": "{}"}',
}
# A client may want a word of its own for text.
TEXTS = ['{"value": "v", "metadata": {}}', "välue 🌊\r\n", "a=b&c=%20+", "v", "7", "true"]
METADATA = [{"a": [1, 2.5, None, True], "ü": "🌊 \\ \" '"}, {"nested": {"deep": [[{}]]}}, {}]
OTHER_METADATA = [[], [{"a": 1}], "text", "", 0, 1.5, False]


def encoded(value):
    return base64.b64encode(value).decode()


def noise(count):
    """Bytes without a pattern, the same each time."""
    return hashlib.shake_256(b"littoral").digest(count)


def put(stage, key, value=b"v", **options):
    arguments = {"namespace": stage.namespace, "key": key, "value": encoded(value), **options}
    return stage.writer.call("put", **arguments)


def read(stage, key):
    answer = stage.reader.call("read", namespace=stage.namespace, key=key)
    return base64.b64decode(answer["value"])


def read_metadata(stage, key):
    """Asked for by itself, or found in the list by those who cannot ask."""
    try:
        return stage.reader.call("read_metadata", namespace=stage.namespace, key=key)
    except Lacking:
        return row_of(stage, key).get("metadata")


def metadata_both_ways(stage, key):
    """As it is read, and as it is listed."""
    return read_metadata(stage, key), row_of(stage, key).get("metadata")


def rows_of(stage, **options):
    return stage.reader.call("list_keys", namespace=stage.namespace, **options)


def row_of(stage, key):
    rows = [row for row in rows_of(stage, prefix=key) if row["name"] == key]
    if len(rows) > 1:
        raise Failed(f"{key!r} is listed {len(rows)} times")
    return rows[0] if rows else {}


def names_of(stage, **options):
    return [row["name"] for row in rows_of(stage, **options)]


def bulk_put(stage, pairs):
    """In as few requests as the client can make."""
    at_most = stage.traits["bulk_at_most"]
    for start in range(0, len(pairs), at_most):
        slice_of_pairs = pairs[start : start + at_most]
        count = stage.writer.call("bulk_put", namespace=stage.namespace, pairs=slice_of_pairs)
        check(count in (None, len(slice_of_pairs)), True, f"{count} keys were written")


def bulk_delete(stage, keys):
    at_most = stage.traits["bulk_at_most"]
    for start in range(0, len(keys), at_most):
        slice_of_keys = keys[start : start + at_most]
        count = stage.writer.call("bulk_delete", namespace=stage.namespace, keys=slice_of_keys)
        check(count in (None, len(slice_of_keys)), True, f"{count} keys were deleted")


def bulk_read(stage, keys, **options):
    return stage.reader.call("bulk_read", namespace=stage.namespace, keys=keys, **options)


def titles(stage, ids):
    """Those of these namespaces, as they are listed; `None` for one that is not. One that comes in between two pages, which
    have numbers, pushes another over to the next: what is listed twice may be listed once when all have come."""
    listed = [row for row in stage.reader.call("list_namespaces") if row["id"] in ids]
    if len(listed) != len({row["id"] for row in listed}):
        return ["a namespace is listed twice"]
    found = {row["id"]: row["title"] for row in listed}
    return [found.get(id) for id in ids]


def a_key_is_written_that_will_expire(stage):
    """The first case: the last one looks for it."""
    stage.written_after_s = time.time()
    put(stage, "brief", b"gone soon", expiration_ttl=MIN_TTL_S)
    stage.written_before_s = time.time()
    stage.soon(lambda: read(stage, "brief"), b"gone soon")


def a_namespace_is_created_renamed_and_deleted(stage):
    title, new_title = stage.title(), stage.title()
    created = stage.writer.call("create_namespace", title=title)
    check(created["title"], title)
    id = created["id"]
    stage.soon(lambda: titles(stage, [id]), [title])
    stage.writer.call("rename_namespace", namespace=id, title=new_title)
    stage.soon(lambda: titles(stage, [id]), [new_title])
    stage.writer.call("delete_namespace", namespace=id)
    stage.soon(lambda: titles(stage, [id]), [None])
    stage.soon(lambda: stage.reader.call("list_keys", namespace=id), Refused(404, 10013))
    check_refused(lambda: stage.writer.call("delete_namespace", namespace=id), 404, 10013)


def a_namespace_is_found_by_its_id(stage):
    title = stage.title()
    id = stage.writer.call("create_namespace", title=title)["id"]

    def find(id):
        return stage.reader.call("find_namespace", namespace=id)

    stage.soon(lambda: find(id)["title"], title)
    stage.writer.call("delete_namespace", namespace=id)
    stage.soon(lambda: find(id), Refused(404, 10013))


def a_title_is_given_once(stage):
    title, other = stage.title(), stage.title()
    id = stage.writer.call("create_namespace", title=title)["id"]

    def create(title):
        return stage.writer.call("create_namespace", title=title)

    check_refused(lambda: create(title), 400, 10014, or_by_client=True)
    check_refused(lambda: create(""), 400, 10019, or_by_client=True)
    check_refused(lambda: create("t" * 513), 400, 10021, or_by_client=True)
    id_of_other = create(other)["id"]

    def rename(title):
        return stage.writer.call("rename_namespace", namespace=id_of_other, title=title)

    check_refused(lambda: rename(title), 400, 10014)
    stage.soon(lambda: titles(stage, [id, id_of_other]), [title, other])


def every_page_of_namespaces_is_listed(stage):
    count = stage.traits["namespaces_a_page"] + 1
    new = [{"title": stage.title()} for _ in range(count)]
    ids = [created["id"] for created in stage.writer.each("create_namespace", new)]
    stage.soon(lambda: titles(stage, ids), [namespace["title"] for namespace in new])
    stage.writer.each("delete_namespace", [{"namespace": id} for id in ids])
    stage.soon(lambda: titles(stage, ids), [None] * count)


def a_namespace_that_is_not_there_is_told_from_a_key(stage):
    at = {"namespace": NOWHERE}
    check_refused(lambda: stage.reader.call("list_keys", **at), 404, 10013)
    check_refused(lambda: stage.reader.call("read", **at, key="k"), 404, 10013)
    check_refused(lambda: stage.writer.call("put", **at, key="k", value=""), 404, 10013)
    check_refused(lambda: stage.writer.call("bulk_delete", **at, keys=["k"]), 404, 10013)
    check_refused(lambda: stage.reader.call("list_keys", namespace="not-an-id"), 400, 10011, or_by_client=True)


def a_key_may_look_like_anything(stage):
    names = stage.few(HOSTILE_KEYS, 12)
    keys = [{"namespace": stage.namespace, "key": name} for name in names]
    stage.writer.each("put", [{**key, "value": encoded(key["key"].encode())} for key in keys])
    stage.soon(lambda: [name for name in names_of(stage) if name in names], sorted(names, key=str.encode))
    for name, answer in zip(names, stage.reader.each("read", keys)):
        check(base64.b64decode(answer["value"]), name.encode(), repr(name))
    stage.writer.each("delete", keys)
    stage.soon(lambda: [name for name in names_of(stage) if name in names], [])


def a_key_may_have_a_nul(stage):
    put(stage, "nul\0", b"v")
    stage.soon(lambda: read(stage, "nul\0"), b"v")


def a_key_that_is_none_harms_nothing(stage):
    """Clients fold `values/..` to the namespace's own path, which would rename or delete it."""
    title = stage.title()
    with stage.in_namespace(title):
        put(stage, "k", b"canary")
        for key in ["", ".", ".."]:
            for ask in [
                lambda: put(stage, key, b'{"title": "stolen"}'),
                # Refused while it is still being sent.
                lambda: put(stage, key, noise(MAX_VALUE_BYTES if key == ".." else 0)),
                lambda: stage.writer.call("delete", namespace=stage.namespace, key=key),
            ]:
                # 7003: no such path. 10021: no key.
                status, code = (404, 7003) if key == ".." else (400, 10021)
                check_refused(ask, status, code, or_by_client=True)
        stage.soon(lambda: titles(stage, [stage.namespace]), [title])
        stage.soon(lambda: (names_of(stage), read(stage, "k")), (["k"], b"canary"))


def a_key_has_up_to_512_bytes(stage):
    for key in ["k" * MAX_KEY_BYTES, "é" * (MAX_KEY_BYTES // 2)]:
        put(stage, key, b"v")
        stage.soon(lambda: read(stage, key), b"v")
        check_refused(lambda: put(stage, key + "x"), 414, 10022)


def a_value_stays_as_it_was_byte_for_byte(stage):
    values = stage.few(list(VALUES.items()), 5)
    at = {"namespace": stage.namespace}
    stage.writer.each("put", [{**at, "key": key, "value": encoded(value)} for key, value in values])
    for key, value in values:
        stage.soon(lambda: read(stage, key), value)


def a_value_with_metadata_stays_as_it_was_too(stage):
    for key, value in stage.few(list(VALUES.items()), 3):
        put(stage, key, value, metadata={"of": key})
        stage.soon(lambda: (read(stage, key), read_metadata(stage, key)), (value, {"of": key}))


def a_text_is_stored_verbatim(stage):
    for text in stage.few(TEXTS, 3):
        put(stage, "text", text.encode(), as_text=True)
        stage.soon(lambda: read(stage, "text"), text.encode())


def a_value_has_up_to_25_mib(stage):
    largest = noise(MAX_VALUE_BYTES)
    put(stage, "largest", largest)
    stage.soon(lambda: read(stage, "largest") == largest, True)
    check_refused(lambda: put(stage, "largest", largest + b"x"), 413, 10030)
    stage.soon(lambda: read(stage, "largest") == largest, True)
    stage.writer.call("delete", namespace=stage.namespace, key="largest")


def metadata_goes_with_its_value(stage):
    for metadata in METADATA:
        put(stage, "described", b"v", metadata=metadata)
        stage.soon(lambda: metadata_both_ways(stage, "described"), (metadata, metadata))
    put(stage, "described", b"v")
    stage.soon(lambda: row_of(stage, "described"), {"name": "described"})
    stage.soon(lambda: read_metadata(stage, "described"), None)


def metadata_may_be_any_json(stage):
    for metadata in OTHER_METADATA:
        put(stage, "described", b"v", metadata=metadata)
        stage.soon(lambda: metadata_both_ways(stage, "described"), (metadata, metadata))
    pairs = [{"key": f"any {i}", "value": "v", "metadata": metadata} for i, metadata in enumerate(OTHER_METADATA)]
    bulk_put(stage, pairs)
    stage.soon(lambda: [row.get("metadata") for row in rows_of(stage, prefix="any ")], OTHER_METADATA)


def metadata_has_up_to_1024_bytes(stage):
    largest = {"m": "m" * (MAX_METADATA_BYTES - len('{"m":""}'))}
    put(stage, "described", b"old", metadata=largest)
    check_refused(lambda: put(stage, "described", b"new", metadata={"m": largest["m"] + "m"}), 413, 10030)
    stage.soon(lambda: (read(stage, "described"), read_metadata(stage, "described")), (b"old", largest))


def an_expiry_is_shown_and_cleared(stage):
    for at_s, ttl_s in [(1_000, None), (None, 2_000), (1_000, 2_000)]:
        now_s = int(time.time())
        options = {"expiration": now_s + at_s} if at_s else {}
        options |= {"expiration_ttl": ttl_s} if ttl_s else {}
        put(stage, "brief too", b"v", **options)
        # A time to live wins.
        earliest_s = now_s + (ttl_s or at_s)
        latest_s = earliest_s + (SLACK_S if ttl_s else 0)
        stage.soon(lambda: earliest_s <= row_of(stage, "brief too").get("expiration", 0) <= latest_s, True)
        # A header, which some clients show.
        answer = stage.reader.call("read", namespace=stage.namespace, key="brief too")
        shown_s = row_of(stage, "brief too")["expiration"]
        check(answer.get("expiration", shown_s), shown_s, "the header Expiration")
    put(stage, "brief too", b"v")
    stage.soon(lambda: row_of(stage, "brief too"), {"name": "brief too"})


def an_expiry_is_a_minute_ahead_at_least(stage):
    check_refused(lambda: put(stage, "k", expiration_ttl=MIN_TTL_S - 1), 400, 10034)
    check_refused(lambda: put(stage, "k", expiration=int(time.time()) + MIN_TTL_S // 2), 400, 10034)
    pair = {"key": "k", "value": "v", "expiration_ttl": MIN_TTL_S - 1}
    check_refused(lambda: bulk_put(stage, [pair]), 400, 10034)


def a_key_that_is_not_there_is_absent(stage):
    stage.soon(lambda: read(stage, "absent"), Refused(404, 10009))
    stage.writer.call("delete", namespace=stage.namespace, key="absent")
    put(stage, "absent", b"v")
    stage.soon(lambda: read(stage, "absent"), b"v")
    stage.writer.call("delete", namespace=stage.namespace, key="absent")
    stage.soon(lambda: read(stage, "absent"), Refused(404, 10009))


def metadata_of_an_absent_key_is_absent(stage):

    def ask():
        return stage.reader.call("read_metadata", namespace=stage.namespace, key="absent")

    stage.soon(ask, Refused(404, 10009))


def a_bulk_write_takes_all_that_a_pair_may_have(stage):
    at_s = int(time.time()) + 1_000
    pairs = [
        {"key": "bulk/" + key, "value": key} for key in HOSTILE_KEYS
    ] + [
        {"key": "bulk bytes", "value": encoded(ALL_BYTES), "base64": True},
        {"key": "bulk literal", "value": "AP+A", "base64": False},
        {"key": "bulk brief", "value": "", "expiration": at_s},
        {"key": "bulk brief too", "value": "", "expiration": 1, "expiration_ttl": 2_000},
    ]  # fmt: skip
    bulk_put(stage, pairs)
    stage.soon(lambda: read(stage, "bulk bytes"), ALL_BYTES)
    stage.soon(lambda: row_of(stage, "bulk brief too").get("expiration", 0) > at_s, True)
    stage.soon(lambda: row_of(stage, "bulk brief"), {"name": "bulk brief", "expiration": at_s})
    stage.soon(lambda: read(stage, "bulk literal"), b"AP+A")
    stage.soon(lambda: names_of(stage, prefix="bulk/"), sorted("bulk/" + key for key in HOSTILE_KEYS))
    stage.soon(lambda: read(stage, "bulk/x%2Fy"), b"x%2Fy")


def a_bulk_write_takes_metadata(stage):
    pairs = [{"key": f"bulk metadata {i}", "value": "v", "metadata": metadata} for i, metadata in enumerate(METADATA)]
    bulk_put(stage, pairs)
    stage.soon(lambda: [row.get("metadata") for row in rows_of(stage, prefix="bulk metadata ")], METADATA)


def a_bad_pair_leaves_a_bulk_undone(stage):
    good = {"key": "undone", "value": "v"}
    for bad, status, code in [
        ({"key": "..", "value": "v"}, 400, 10021),
        ({"key": "k" * 513, "value": "v"}, 414, 10022),
        ({"key": "k", "value": "no base64", "base64": True}, 400, 10012),
    ]:
        check_refused(lambda: bulk_put(stage, [good, bad]), status, code)
    check_refused(lambda: bulk_delete(stage, ["k", ""]), 400, 10021)
    stage.soon(lambda: names_of(stage, prefix="undone"), [])


def more_than_10_000_keys_are_listed_page_by_page_and_deleted(stage):
    with stage.in_namespace(stage.title()):
        keys = [f"k{i:05}" for i in range(MAX_BULK_KEYS)] + ["a", "z", "ü", "K"]
        expected = sorted(keys, key=str.encode)
        bulk_put(stage, [{"key": key, "value": key} for key in keys])
        stage.soon(lambda: names_of(stage) == expected, True)
        stage.soon(lambda: names_of(stage, prefix="k099"), [f"k099{i:02}" for i in range(100)])
        stage.soon(lambda: names_of(stage, prefix="k05000"), ["k05000"])
        stage.soon(lambda: names_of(stage, prefix="k1"), [])
        bulk_delete(stage, keys[:-2])
        stage.soon(lambda: names_of(stage), ["K", "ü"])


def a_page_has_the_size_asked_for(stage):
    keys = [f"page {i:02}" for i in range(25)]
    bulk_put(stage, [{"key": key, "value": ""} for key in keys])
    for limit in [10, 24, 25, 26, 1000]:
        stage.soon(lambda: names_of(stage, prefix="page ", limit=limit), keys)
    for limit in [0, 9, 1001]:
        check_refused(lambda: names_of(stage, prefix="page ", limit=limit), 400, 10021, or_by_client=True)


def a_bulk_read_gives_text(stage):
    bulk_put(stage, [{"key": f"read {i:03}", "value": f"välue {i}"} for i in range(MAX_BULK_READ_KEYS)])
    expected = {f"read {i:03}": f"välue {i}" for i in range(MAX_BULK_READ_KEYS - 1)} | {"read none": None}
    stage.soon(lambda: bulk_read(stage, list(expected)), expected)
    check_refused(lambda: bulk_read(stage, [*expected, "one more"]), 400, 10024)
    check_refused(lambda: bulk_read(stage, []), 400, 10029, or_by_client=True)
    put(stage, "read bytes", b"\xff")
    stage.soon(lambda: bulk_read(stage, ["read bytes"]), Refused(400, 10021))


def a_bulk_read_gives_json_and_metadata(stage):
    at_s = int(time.time()) + 1_000
    put(stage, "read json", b'{"a": [1, "\xc3\xbc"]}', metadata={"m": 1}, expiration=at_s)
    put(stage, "read plain", b"7")
    stage.soon(
        lambda: bulk_read(stage, ["read json", "read plain", "read none"], type="json"),
        {"read json": {"a": [1, "ü"]}, "read plain": 7, "read none": None},
    )
    json_row = {"value": {"a": [1, "ü"]}, "metadata": {"m": 1}, "expiration": at_s}
    stage.soon(
        lambda: bulk_read(stage, ["read json", "read plain", "read none"], type="json", with_metadata=True),
        {"read json": json_row, "read plain": {"value": 7, "metadata": None}, "read none": None},
    )
    put(stage, "read text", b"no JSON")
    stage.soon(lambda: bulk_read(stage, ["read text"], type="json"), Refused(400, 10021))


def a_bulk_has_up_to_10_000_keys(stage):
    if stage.traits["bulk_at_most"] != MAX_BULK_KEYS:
        raise Lacking("which divides its bulks itself or cannot take an answer for as many")
    too_many = [f"too many {i}" for i in range(MAX_BULK_KEYS + 1)]
    pairs = [{"key": key, "value": ""} for key in too_many]
    at = {"namespace": stage.namespace}
    check_refused(lambda: stage.writer.call("bulk_put", **at, pairs=pairs), 400, 10024)
    check_refused(lambda: stage.writer.call("bulk_delete", **at, keys=too_many), 400, 10024)
    check_refused(lambda: stage.writer.call("bulk_put", **at, pairs=[]), 400, 10029)
    check_refused(lambda: stage.writer.call("bulk_delete", **at, keys=[]), 400, 10029)
    stage.soon(lambda: names_of(stage, prefix="too many"), [])


def a_wrong_token_sees_and_changes_nothing(stage):
    put(stage, "secret", b"old")
    stranger = stage.client(stage.write_url, "wrong-token")
    at = {"namespace": stage.namespace}
    for name, arguments in [
        ("put", {**at, "key": "secret", "value": encoded(b"new")}),
        ("put", {**at, "key": "secret", "value": encoded(noise(3 * MIB))}),
        ("read", {**at, "key": "secret"}),
        ("delete", {**at, "key": "secret"}),
        ("list_keys", at),
        ("bulk_put", {**at, "pairs": [{"key": "secret", "value": "new"}]}),
        ("bulk_delete", {**at, "keys": ["secret"]}),
        ("list_namespaces", {}),
        ("create_namespace", {"title": stage.title()}),
        ("delete_namespace", at),
    ]:
        check_refused(lambda: stranger.call(name, **arguments), 403, 10000)
    stage.soon(lambda: read(stage, "secret"), b"old")


def a_token_does_what_its_scopes_say_and_nothing_else(stage):
    for key in ["own/a", "other"]:
        put(stage, key, b"old")
    scope = {"namespace": stage.namespace, "prefix": "own/", "actions": ["read", "list"]}
    guest = stage.client(stage.write_url, stage.token([scope]))
    at = {"namespace": stage.namespace}
    check(base64.b64decode(guest.call("read", **at, key="own/a")["value"]), b"old")
    check([row["name"] for row in guest.call("list_keys", **at, prefix="own/")], ["own/a"])
    check([row["id"] for row in guest.call("list_namespaces")], [stage.namespace])
    for name, arguments in [
        ("put", {**at, "key": "own/a", "value": encoded(b"new")}),
        ("delete", {**at, "key": "own/a"}),
        ("bulk_put", {**at, "pairs": [{"key": "own/a", "value": "new"}]}),
        ("read", {**at, "key": "other"}),
        ("list_keys", at),
        ("create_namespace", {"title": stage.title()}),
        ("delete_namespace", at),
    ]:
        check_refused(lambda: guest.call(name, **arguments), 403, 10000)
    stage.soon(lambda: read(stage, "own/a"), b"old")


def a_global_key_does_as_well_as_a_token(stage):
    put(stage, "by key", b"v")
    other = stage.client(stage.write_url, os.environ["TOKEN"], auth="key")
    answer = other.call("read", namespace=stage.namespace, key="by key")
    check(base64.b64decode(answer["value"]), b"v")


def an_expired_key_is_gone(stage):
    deadline_s = stage.written_before_s + MIN_TTL_S + MAX_WAIT_FOR_EXPIRY_S
    while "brief" in names_of(stage, prefix="brief") and time.time() < deadline_s:
        time.sleep(1)
    gone_after_s = time.time() - stage.written_after_s
    # Expiry is in whole seconds.
    if gone_after_s < MIN_TTL_S - 1:
        raise Failed(f"gone {gone_after_s:.1f} s after it was written, for {MIN_TTL_S} s")
    stage.soon(lambda: names_of(stage, prefix="brief"), ["brief too"])
    stage.soon(lambda: read(stage, "brief"), Refused(404, 10009))


ALL = [
    a_key_is_written_that_will_expire,
    a_namespace_is_created_renamed_and_deleted,
    a_namespace_is_found_by_its_id,
    a_title_is_given_once,
    every_page_of_namespaces_is_listed,
    a_namespace_that_is_not_there_is_told_from_a_key,
    a_key_may_look_like_anything,
    a_key_may_have_a_nul,
    a_key_that_is_none_harms_nothing,
    a_key_has_up_to_512_bytes,
    a_value_stays_as_it_was_byte_for_byte,
    a_value_with_metadata_stays_as_it_was_too,
    a_text_is_stored_verbatim,
    a_value_has_up_to_25_mib,
    metadata_goes_with_its_value,
    metadata_may_be_any_json,
    metadata_has_up_to_1024_bytes,
    an_expiry_is_shown_and_cleared,
    an_expiry_is_a_minute_ahead_at_least,
    a_key_that_is_not_there_is_absent,
    metadata_of_an_absent_key_is_absent,
    a_bulk_write_takes_all_that_a_pair_may_have,
    a_bulk_write_takes_metadata,
    a_bad_pair_leaves_a_bulk_undone,
    more_than_10_000_keys_are_listed_page_by_page_and_deleted,
    a_page_has_the_size_asked_for,
    a_bulk_read_gives_text,
    a_bulk_read_gives_json_and_metadata,
    a_bulk_has_up_to_10_000_keys,
    a_wrong_token_sees_and_changes_nothing,
    a_token_does_what_its_scopes_say_and_nothing_else,
    a_global_key_does_as_well_as_a_token,
    an_expired_key_is_gone,
]
