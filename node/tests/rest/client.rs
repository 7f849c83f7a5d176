//! A client that sends what it is told, byte by byte, on a connection per request.

use std::net::SocketAddr;

use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::TOKEN;

#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body is as long as the head says.
    pub(crate) complete: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.body[..self.body.len().min(300)];
        write!(f, "{}\n{}", self.head, String::from_utf8_lossy(shown))
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// A request with our token and a Content-Length.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut all =
            vec![("Authorization", format!("Bearer {TOKEN}")), ("Content-Length", body.len().to_string())];
        all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let mut request = head(method, path, &all);
        request.extend_from_slice(body);
        self.raw(&request).await
    }

    /// A request with our token whose body comes in chunks of `step` bytes.
    pub(crate) async fn send_chunked(&self, method: &str, path: &str, body: &[u8], step: usize) -> Answer {
        let headers =
            [("Authorization", format!("Bearer {TOKEN}")), ("Transfer-Encoding", "chunked".to_owned())];
        let mut request = head(method, path, &headers);
        for piece in body.chunks(step) {
            request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            request.extend_from_slice(piece);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        self.raw(&request).await
    }

    /// Sends these bytes, then reads one answer.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // The server may close before it has everything; what it answered is still to be read.
        let _ = stream.write_all(request).await;
        read_answer(&mut stream).await.expect("an answer")
    }

    /// Sends these bytes and no more, as a client does whose line is cut, then reads what comes.
    pub(crate) async fn raw_cut_off(&self, request: &[u8]) -> Option<Answer> {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        read_answer(&mut stream).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

impl Answer {
    /// What stands on the status line after the status.
    pub(crate) fn reason(&self) -> &str {
        self.head.lines().next().unwrap().splitn(3, ' ').nth(2).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The result of an envelope that says success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Json {
        assert_eq!((self.status, self.json()["success"] == true), (200, true), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.json()["result"].clone()
    }

    /// Asserts that what fits a limit was done, and that what does not was refused with this error.
    #[track_caller]
    pub(crate) fn assert_limit(&self, fits: bool, status: u16, code: u64, text: &str) {
        if fits {
            self.ok();
        } else {
            self.assert_error(status, code, text);
        }
    }

    /// Asserts that this is the envelope of this error.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: u64, text: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let json = self.json();
        assert_eq!((&json["success"], &json["result"]), (&Json::Bool(false), &Json::Null));
        assert_eq!(json["errors"][0]["code"], code, "{self:?}");
        let message = json["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(text), "\"{text}\" is not in \"{message}\"");
    }
}

pub(crate) fn head(method: &str, path: &str, headers: &[(&str, String)]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The next answer on a connection; `None` if it closes before there is one.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<Answer> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head, body: bytes.split_off(end + 4), complete: true };
    let len: usize = match answer.status {
        304 => 0,
        _ => answer.header("content-length").expect("every answer says how long it is").parse().unwrap(),
    };
    while answer.body.len() < len {
        if !matches!(stream.read_buf(&mut answer.body).await, Ok(1..)) {
            answer.complete = false;
            break;
        }
    }
    Some(answer)
}
