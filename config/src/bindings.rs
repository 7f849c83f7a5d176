//! The bindings: listeners that lead to one namespace each, for Workers whose runtime cannot name one.
//!
//! The rule: nobody is let in without a token but through a unix socket, whose file says who may open it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::names::NamespaceId;
use crate::sections::{address, folder, one_of_two};
use crate::source::Otherwise::{Missing, Use};
use crate::source::Source;
use crate::{Http, display};

/// The most bindings of one node.
pub const MAX_BINDINGS: usize = 256;
/// The longest path of a unix socket, in bytes: what the shortest `sun_path` of our systems holds.
pub const MAX_SOCKET_PATH_BYTES: usize = 103;

/// What the address of a unix socket begins with.
const UNIX: &str = "unix:";

/// A listener that leads to one namespace, by the binding protocol of workerd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The namespace.
    #[serde(serialize_with = "display")]
    pub namespace: NamespaceId,
    /// Where to listen.
    pub listen: BindingListen,
    /// Who is let in. Never `Socket` on TCP.
    pub access: BindingAccess,
}

/// Where a binding listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingListen {
    /// A TCP port; 0 takes any free one.
    Tcp(SocketAddr),
    /// A unix socket at a path of at most [`MAX_SOCKET_PATH_BYTES`].
    Unix(PathBuf),
}

/// Who is let in by a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BindingAccess {
    /// Whoever sends a token of the account that owns the namespace.
    Token,
    /// Whoever may open the unix socket.
    Socket,
}

impl fmt::Display for BindingListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Serialize for BindingListen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads the list; a relative path of a socket starts at `base`.
pub(crate) fn bindings(source: &mut Source<'_>, base: &Path) -> Option<Vec<Binding>> {
    let count = source.tables("http.bindings", MAX_BINDINGS);
    let mut bindings = Vec::new();
    for index in 0..count.unwrap_or(0) {
        let path = |key: &str| format!("http.bindings[{index}].{key}");
        let namespace = source.text(&path("namespace"), Missing("the id of the namespace"), str::parse);
        let listen = source.text(
            &path("listen"),
            Missing("where workerd connects, such as \"127.0.0.1:9001\" or \"unix:kv.sock\""),
            |text| listen(base, text),
        );
        let access = source.text(&path("access"), Use(BindingAccess::Token), access);
        if let (Some(BindingListen::Tcp(_)), Some(BindingAccess::Socket)) = (&listen, access) {
            let what = format!(
                "{} = \"socket\" would let in all who reach the port: set listen to a unix socket, or use \"token\"",
                path("access")
            );
            source.refuse(source.place(&path("access")), what);
        }
        bindings.push(namespace.zip(listen).zip(access));
    }
    count?;
    let binding = |((namespace, listen), access)| Binding { namespace, listen, access };
    bindings.into_iter().map(|read| read.map(binding)).collect()
}

/// Notes each listener that is there twice.
pub(crate) fn cross_check(http: &Http, source: &mut Source<'_>) {
    let mut seen = BTreeMap::from([(http.listen.to_string(), "http.listen".to_owned())]);
    for (index, binding) in http.bindings.iter().enumerate() {
        let path = format!("http.bindings[{index}].listen");
        // Port 0 asks for any free port, so two of them are not the same.
        if matches!(binding.listen, BindingListen::Tcp(address) if address.port() == 0) {
            continue;
        }
        let listen = binding.listen.to_string();
        if let Some(first) = seen.get(&listen) {
            let what = format!("{path} = {listen} is also {first}: give each its own");
            source.refuse(source.place(&path), what);
        } else {
            seen.insert(listen, path);
        }
    }
}

fn listen(base: &Path, text: &str) -> Result<BindingListen, String> {
    let Some(path) = text.strip_prefix(UNIX) else {
        let wanted = "use IP:port, such as 127.0.0.1:9001, or unix:PATH";
        return address(text).map(BindingListen::Tcp).map_err(|_| format!("is not an address: {wanted}"));
    };
    let path =
        folder(base, path).map_err(|_| "names no file: use unix:PATH, such as unix:kv.sock".to_owned())?;
    match path.as_os_str().len() {
        0..=MAX_SOCKET_PATH_BYTES => Ok(BindingListen::Unix(path)),
        bytes => Err(format!(
            "is a path of {bytes} bytes ({}): a unix socket has {MAX_SOCKET_PATH_BYTES} at most, so use a shorter one",
            path.display()
        )),
    }
}

fn access(text: &str) -> Result<BindingAccess, String> {
    one_of_two(text, "a kind of access", [("token", BindingAccess::Token), ("socket", BindingAccess::Socket)])
}
