//! Writes as forms: what the official SDKs always send.

use serde_json::{Value as Json, json};

use super::{ACCOUNT, TOKEN, noise, test_node};

/// A part: its headers' lines beside nothing else, and its bytes.
type Part<'a> = (&'a str, &'a [u8]);

const VALUE: &str = "Content-Disposition: form-data; name=\"value\"";
const FILE: &str = "Content-Disposition: form-data; name=\"value\"; filename=\"blob\"\r\nContent-Type: application/octet-stream";
const METADATA: &str = "Content-Disposition: form-data; name=\"metadata\"";
const METADATA_JSON: &str =
    "Content-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json";
const UNKNOWN: &str = "Content-Disposition: form-data; name=\"metadata[a][b]\"";
const BOUNDARY: &str = "----boundary-7f3a";
const FORM: &str = "multipart/form-data; boundary=----boundary-7f3a";
/// The same, as other clients may write it.
const QUOTED_FORM: &str = "Multipart/Form-Data; charset=utf-8; boundary=\"----boundary-7f3a\"";

fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut form = Vec::new();
    for (headers, bytes) in parts {
        form.extend_from_slice(format!("--{BOUNDARY}\r\n{headers}\r\n\r\n").as_bytes());
        form.extend_from_slice(bytes);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    form
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_taken_apart_byte_for_byte() {
    let node = test_node().await;
    let all_bytes: Vec<u8> = (0..=255).cycle().take(3 * 256).collect();
    let boundary_like =
        format!("--\r\n--{}\r\n----boundary\r\n\r\n--\r\n-\r\n\r", &BOUNDARY[..BOUNDARY.len() - 1]);
    let values: [&[u8]; 9] = [
        b"",
        b"plain",
        b"\r\n",
        b"\r\n\r\nvalue\r\n\r\n",
        b"\n",
        b"\r",
        &all_bytes,
        boundary_like.as_bytes(),
        &noise(200_000),
    ];
    for value in values {
        let forms: [(&[Part<'_>], Json); 5] = [
            (&[(VALUE, value)], Json::Null),
            (&[(VALUE, value), (METADATA, b"{\"a\":1}")], json!({"a": 1})),
            (&[(METADATA_JSON, b" [1, 2] "), (FILE, value)], json!([1, 2])),
            (&[(UNKNOWN, b"x"), (FILE, value), (UNKNOWN, &all_bytes)], Json::Null),
            (&[(METADATA, b"null"), (VALUE, value)], Json::Null),
        ];
        for (parts, metadata) in forms {
            let body = form(parts);
            node.send_typed("/values/k", FORM, &body).await.ok();
            assert_eq!(node.value("k").await, value);
            assert_eq!(node.send("GET", "/metadata/k", "").await.ok(), metadata);
        }
        node.send_typed("/values/k", QUOTED_FORM, &form(&[(VALUE, value)])).await.ok();
        assert_eq!(node.value("k").await, value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_may_come_in_pieces_of_any_size() {
    let node = test_node().await;
    let value = b"\r\n------boundary-7f3\r\n--\r\nend\r".repeat(20);
    let body = form(&[(UNKNOWN, b"?"), (VALUE, &value), (METADATA, b"\"m\"")]);
    for step in [1, 2, 3, 7, 64] {
        let length = format!("Transfer-Encoding: chunked\r\nContent-Type: {FORM}");
        let mut request = format!(
            "PUT {}/values/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{length}\r\n\r\n",
            node.kv
        )
        .into_bytes();
        for piece in body.chunks(step) {
            request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            request.extend_from_slice(piece);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        node.client.raw(&request).await.ok();
        assert_eq!(node.value("k").await, value, "{step}");
        assert_eq!(node.send("GET", "/metadata/k", "").await.ok(), "m");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_cut_off_anywhere_is_refused() {
    let node = test_node().await;
    node.send("PUT", "/values/k", "before").await.ok();
    let whole = form(&[(UNKNOWN, b"skipped"), (VALUE, b"some value"), (METADATA, b"{\"a\":1}")]);
    let last_boundary = whole.len() - "--\r\n".len();
    for len in (0..last_boundary).step_by(5).chain([last_boundary]) {
        let answer = node.send_typed("/values/k", FORM, &whole[..len]).await;
        answer.assert_error(400, 20006, "put: 'malformed multipart body");
    }
    assert_eq!(node.value("k").await, b"before");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_say_nothing_sensible_are_refused() {
    let node = test_node().await;
    let long_metadata = format!("\"{}\"", "m".repeat(1023));
    let huge_metadata = format!("\"{}\"", "m".repeat(40_000));
    let cases: [(&[Part<'_>], u16, u64, &str); 9] = [
        (&[], 400, 20006, "no part \"value\""),
        (&[(METADATA, b"{}")], 400, 20006, "no part \"value\""),
        (&[(VALUE, b"a"), (VALUE, b"b")], 400, 20006, "more than one part \"value\""),
        (&[(METADATA, b"1"), (VALUE, b"a"), (METADATA, b"2")], 400, 20006, "more than one part \"metadata\""),
        (&[(VALUE, b"a"), (METADATA, b"{")], 400, 10021, "metadata must be valid JSON"),
        (&[(VALUE, b"a"), (METADATA, b"")], 400, 10021, "metadata must be valid JSON"),
        (&[(VALUE, b"a"), (METADATA, b"\"\xff\"")], 400, 10021, "metadata must be valid JSON"),
        (
            &[(VALUE, b"a"), (METADATA, long_metadata.as_bytes())],
            413,
            10030,
            "Metadata length of 1025 exceeds limit of 1024.",
        ),
        (&[(METADATA, huge_metadata.as_bytes()), (VALUE, b"a")], 413, 10030, "Metadata length"),
    ];
    for (parts, status, code, text) in cases {
        node.send_typed("/values/k", FORM, &form(parts)).await.assert_error(status, code, text);
    }
    for content_type in
        ["multipart/form-data", "multipart/form-data; boundary=", "Multipart/Form-Data; charset=x"]
    {
        node.send_typed("/values/k", content_type, b"x").await.assert_error(
            400,
            20006,
            "malformed multipart body",
        );
    }
    let fitting = format!("  \"{}\"  ", "m".repeat(1022));
    node.send_typed("/values/k", FORM, &form(&[(VALUE, b"a"), (METADATA, fitting.as_bytes())])).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_the_form_around_it_have_their_limits() {
    let node = test_node().await;
    let put = async |metadata: &[u8]| {
        node.send_typed("/values/k", FORM, &form(&[(VALUE, b"v"), (METADATA, metadata)])).await
    };
    for (len, fits) in [(1023, true), (1024, true), (1025, false)] {
        let answer = put(format!("\"{}\"", "m".repeat(len - 2)).as_bytes()).await;
        answer.assert_limit(fits, 413, 10030, "length of 1025 exceeds");
    }
    // White space does not count, but is not taken for ever.
    for (len, fits) in [(16_383, true), (16_384, true), (16_385, false)] {
        let answer = put(format!("{:len$}", "1").as_bytes()).await;
        answer.assert_limit(fits, 413, 10030, "length of 16385 exceeds");
    }
    let form_of = |len: usize| {
        let around = form(&[(UNKNOWN, b""), (VALUE, b"v")]).len();
        form(&[(UNKNOWN, &noise(len - around)), (VALUE, b"v")])
    };
    let most = 26 << 20;
    for (len, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
        let answer = node.send_typed("/values/k", FORM, &form_of(len)).await;
        answer.assert_limit(fits, 413, 20010, "exceeds 27262976 bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_part_has_the_limit_of_a_value() {
    let node = test_node().await;
    let value = noise((25 << 20) + 1);
    let largest = &value[..25 << 20];
    node.send_typed("/values/k", FORM, &form(&[(METADATA, b"1"), (FILE, largest)])).await.ok();
    assert_eq!(node.value("k").await, largest);
    let too_large = node.send_typed("/values/k", FORM, &form(&[(FILE, &value)])).await;
    too_large.assert_error(413, 10030, "exceeds limit of 26214400.");
    let padded =
        node.send_typed("/values/k", FORM, &form(&[(FILE, b"v"), (UNKNOWN, &noise(27 << 20))])).await;
    padded.assert_error(413, 20010, "the request body exceeds");
    assert!(node.kv.contains(ACCOUNT));
}
