//! One HTTPS connection for a few requests, as a browser's page makes them.

use std::net::SocketAddr;
use std::time::Duration;

use base::limit::{SIP_MESSAGE_BYTES, TRANSPORT_HANDSHAKE_MS};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::line::Far;

/// How long an answer may take: a call that rings is answered at once all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Where what was made is.
    pub(crate) location: Option<String>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The stable code of a problem (RFC 9457 with a `code`), or nothing.
    pub(crate) fn code(&self) -> Option<String> {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(problem.get("code")?.as_str()?.to_owned())
    }
}

/// A connection; the code of a failure is stable.
pub(crate) struct Web {
    sender: SendRequest<Full<Bytes>>,
    local: SocketAddr,
    authority: String,
}

impl Web {
    pub(crate) async fn open(far: &Far, authority: String) -> Result<Self, &'static str> {
        let (stream, local) = far.open(None).await.map_err(|error| error.0)?;
        let shaking = http1::handshake(TokioIo::new(stream));
        let shaken = timeout(TRANSPORT_HANDSHAKE_MS.millis(), shaking).await;
        let (sender, connection) =
            shaken.map_err(|_| "connect.timeout")?.map_err(|_| "connect.failed")?;
        // It ends with the sender; what fails on it shows in the requests.
        tokio::spawn(connection);
        Ok(Self { sender, local, authority })
    }

    /// Our address on it.
    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether another request can be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request, with a session description if there is one, and waits for the answer.
    pub(crate) async fn request(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&str>,
        description: Option<String>,
    ) -> Result<Reply, &'static str> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if description.is_some() {
            request = request.header(CONTENT_TYPE, "application/sdp");
        }
        let body = Full::new(Bytes::from(description.unwrap_or_default()));
        let request = request.body(body).map_err(|_| "http.bad_request")?;
        let exchange = async {
            self.sender.ready().await.map_err(|_| "connect.lost")?;
            let reply = self.sender.send_request(request).await.map_err(|_| "connect.lost")?;
            let location = reply.headers().get(LOCATION).and_then(|it| it.to_str().ok());
            let (status, location) = (reply.status().as_u16(), location.map(str::to_owned));
            let body = Limited::new(reply.into_body(), SIP_MESSAGE_BYTES.get());
            let body = body.collect().await.map_err(|_| "http.bad_body")?.to_bytes();
            Ok(Reply { status, location, body })
        };
        timeout(PATIENCE, exchange).await.unwrap_or(Err("http.timeout"))
    }
}
