//! The doors through which tests reach this crate's decoders of foreign bytes; nothing else may use them.
//!
//! Each takes what a stranger sent, and gives what the decoder understood in a form that can be compared: what is
//! true of that for every input is said, and checked, in the tests crate (`decoders`).

use hyper::Method;
use replication::NamespaceId;
use replication::link::MAX_FRAME_BYTES;

use crate::http::attributes::{self, expires_at_s};
use crate::http::batch;
use crate::http::binding;
use crate::http::bulk;
use crate::http::keys::{decode_cursor, encode_cursor};
use crate::http::query::{Query, decode_key};
use crate::http::route::{Routed, route};
use crate::http::{Access, Door};
use crate::identity::ClusterId;
use crate::identity::token::{self, Contents};
use crate::transport::chunk_fetch::Request;
use crate::transport::hello::Hello;
use crate::transport::packing::{Packer, Unpacker};

/// The hello in these bytes, encoded again.
pub fn hello(bytes: &[u8]) -> Option<Vec<u8>> {
    Hello::decode(bytes).ok().map(|hello| hello.encode())
}

/// The request for a chunk in these bytes, encoded again.
pub fn chunk_request(bytes: &[u8]) -> Option<Vec<u8>> {
    Request::decode(bytes).map(|request| request.encode().to_vec())
}

/// A hello that nobody refuses.
pub fn real_hello(pop: &str, region: &str) -> Vec<u8> {
    let (pop, region) = (pop.to_owned(), region.to_owned());
    let replica = replication::ReplicaId([2; 16]);
    Hello { cluster: ClusterId([1; 16]), replica, boot_nonce: [3; 16], pop, region }.encode()
}

/// The frame in these bytes, the first of a lane.
pub fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    Unpacker::new().unpack(bytes, MAX_FRAME_BYTES).ok().map(|frame| frame.to_vec())
}

/// The first frame of a lane as it is sent, without the head that says how long it is; none where that says that it is
/// not packed.
pub fn packed(frame: &[u8]) -> Option<Vec<u8>> {
    let [head, packed] = Packer::new(true).pack(frame.to_vec().into());
    (head.first()? & 1 == 1).then(|| packed.to_vec())
}

/// The join token in this text, packed again.
pub fn join_token(text: &str) -> Option<String> {
    Contents::unpack(text).ok().map(|contents| contents.pack())
}

/// A join token around anything, its checksum being right.
pub fn sealed_join_token(contents: &[u8]) -> String {
    token::seal(contents.to_vec())
}

/// The key that a cursor of a listing stands after, and the cursor made again.
pub fn cursor(text: &str) -> Option<(Vec<u8>, String)> {
    let after = decode_cursor(text).ok()?;
    let again = encode_cursor(&after);
    Some((after, again))
}

/// The cursor after this key.
pub fn real_cursor(after: &[u8]) -> String {
    encode_cursor(after)
}

/// The key that a request's path names, where it is routed to an operation on a key and the key may be one.
pub fn key_in_path(method: &str, path: &str) -> Option<String> {
    let Routed::Call(call) = route(&Method::from_bytes(method.as_bytes()).ok()?, path) else { return None };
    // As the surface looks at it, for every operation that names one.
    (!call.key.is_empty()).then(|| decode_key(call.key).ok().map(|key| key.into_owned())).flatten()
}

/// What a request of the binding protocol is about.
pub struct BindingRequest {
    /// The namespace's id: 32 hexadecimal digits.
    pub namespace: String,
    /// Of a call that names one.
    pub key: Option<String>,
    /// The metadata as it would be stored, and as the header it is read from.
    pub metadata: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What a request of the binding protocol is about; at the listener of a namespace, where that is given.
pub fn binding_request<'a>(
    listener: Option<[u8; 16]>,
    method: &str,
    target: &str,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Option<BindingRequest> {
    let request = hyper::Request::builder().method(method).uri(target);
    let request = headers.fold(request, |request, (name, value)| request.header(name, value));
    let (head, ()) = request.body(()).ok()?.into_parts();
    let of = |id| Door::Namespace { id: NamespaceId(id), access: Access::Token };
    let meaning = binding::meaning(listener.map_or(Door::Node, of), &head).ok()?;
    let sent = meaning.metadata_sent.map(|header| header.as_bytes().to_vec());
    Some(BindingRequest {
        namespace: meaning.namespace.to_string(),
        key: meaning.key,
        metadata: meaning.metadata.map(|stored| (stored.to_vec(), sent)),
    })
}

/// When a write with this query, made at `now_s`, expires.
pub fn expiry_in_query(query: &str, now_s: u64) -> Option<u64> {
    let query = Query::parse(Some(query)).ok()?;
    let _ = (query.ack(), query.number("limit"), query.number("page"), query.text("prefix"));
    let (at, ttl) = (query.float("expiration").ok()?, query.float("expiration_ttl").ok()?);
    expires_at_s(at, ttl, now_s).ok().flatten()
}

/// Metadata as it would be stored.
pub fn metadata(text: &[u8]) -> Option<Vec<u8>> {
    attributes::metadata(text).ok().flatten().map(|metadata| metadata.to_vec())
}

/// The keys of a bulk put, each with the length of its value.
pub fn bulk_put(body: &[u8]) -> Option<Vec<(String, usize)>> {
    let pairs = bulk::check_pairs(body).ok()?;
    Some(pairs.into_iter().map(|pair| (pair.key.into_owned(), pair.value.len())).collect())
}

/// The keys of the writes of a batch.
pub fn batch(body: &[u8]) -> Option<Vec<String>> {
    batch::keys_of(body)
}

/// The keys of a bulk delete.
pub fn bulk_delete(body: &[u8]) -> Option<Vec<String>> {
    bulk::check_keys(body).ok().map(|keys| keys.into_iter().map(|key| key.into_owned()).collect())
}

/// The keys of a bulk read.
pub fn bulk_read(body: &[u8]) -> Option<Vec<String>> {
    let wanted = bulk::check_read(body).ok()?;
    Some(wanted.keys.into_iter().map(|key| key.into_owned()).collect())
}
