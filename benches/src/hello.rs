//! The least that axum can do for the same requests: what Littoral's HTTP surface is measured against.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::Method;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::text;

/// Answers every GET with a value and every other request, once its body is read, as Littoral does a PUT.
/// Prints where it listens, then serves until it is killed.
pub(crate) async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let value = Bytes::from(text::value(0));
    let answer = move |method: Method, _body: Bytes| {
        let value = value.clone();
        async move {
            match method {
                Method::GET => value,
                _ => Bytes::from_static(br#"{"success":true,"errors":[],"messages":[],"result":null}"#),
            }
        }
    };
    let listener = TcpListener::bind(listen).await?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        // An error shows at the next read.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, Router::new().fallback(answer)).await?)
}
