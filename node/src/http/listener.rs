//! Where the HTTP surface listens: TCP ports and unix sockets, and what each leads to.
//!
//! The rule this file upholds: a unix socket takes no connection before its file has the mode it is to have, and a file
//! that is not a socket nobody serves is never removed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use replication::NamespaceId;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::tls::Tls;

/// The mode of a socket's file: for the user and the group of this process.
const SOCKET_MODE: u32 = 0o660;
/// Connections that wait to be accepted at a unix socket.
const SOCKET_BACKLOG: u32 = 1024;

/// What a listener leads to.
#[derive(Clone, Copy, Debug)]
pub enum Door {
    /// Everything the node serves.
    Node,
    /// One namespace, by the binding protocol; nothing else.
    Namespace {
        /// The namespace.
        id: NamespaceId,
        /// Who is let in.
        access: Access,
    },
}

/// Who is let in by the door of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever sends a token of an account that owns the namespace.
    Token,
    /// Whoever may open the unix socket.
    Socket,
}

/// One port or socket.
pub struct Listener {
    socket: Socket,
    tls: Option<Arc<Tls>>,
    pub(crate) door: Door,
}

enum Socket {
    Tcp(TcpListener),
    Unix(SocketFile),
}

/// A unix socket, whose file goes with it.
struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
}

/// A connection as it was accepted.
pub(crate) enum Stream {
    /// With what secures it, on ports that speak TLS.
    Tcp(TcpStream, Option<TlsAcceptor>),
    Unix(UnixStream),
}

impl Listener {
    /// Behind a TCP port, in plain HTTP.
    pub fn tcp(listener: TcpListener, door: Door) -> Self {
        Self { socket: Socket::Tcp(listener), tls: None, door }
    }

    /// The same with TLS. A unix socket stays plain: its file says who may open it.
    pub fn secured(self, tls: Arc<Tls>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Behind a unix socket at this path, readable and writable by the user and the group of this process. A socket
    /// that a killed process left there is replaced.
    ///
    /// # Errors
    /// Where another process serves the socket, the path is that of another file, or the folder does not take it.
    pub fn unix(path: &Path, door: Door) -> io::Result<Self> {
        remove_left_over(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other("its folder does not exist; make it first"),
            _ => error,
        })?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        let listener = socket.listen(SOCKET_BACKLOG)?;
        let socket = Socket::Unix(SocketFile { listener, path: path.to_owned() });
        Ok(Self { socket, tls: None, door })
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Stream::Tcp(stream, self.tls.as_ref().map(|tls| tls.acceptor())))
            }
            Socket::Unix(file) => file.listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that is left is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_left_over(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::other(
                "there is a file that is no socket; move it away, or name another path",
            ));
        }
        Ok(_) => {}
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: Door = Door::Namespace { id: NamespaceId([1; 16]), access: Access::Socket };

    #[tokio::test]
    async fn a_socket_is_for_user_and_group_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kv.sock");
        let listener = Listener::unix(&path, DOOR).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        let (accepted, connected) = tokio::join!(listener.accept(), UnixStream::connect(&path));
        assert!(accepted.is_ok() && connected.is_ok());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_process_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kv.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file, as a killed process does");
        let served = Listener::unix(&path, DOOR).unwrap();
        let refused = Listener::unix(&path, DOOR).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists(), "the one that is served stays");
        drop(served);

        let nowhere = Listener::unix(&folder.path().join("none/kv.sock"), DOOR).err().unwrap();
        assert!(nowhere.to_string().contains("its folder does not exist"), "{nowhere}");

        fs::write(&path, "a file of somebody's").unwrap();
        let refused = Listener::unix(&path, DOOR).err().unwrap();
        assert!(refused.to_string().contains("no socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file of somebody's");
    }
}
