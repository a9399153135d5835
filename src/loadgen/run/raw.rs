//! Connections of bad actors: bytes out, and what comes back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::limit::{SIP_MESSAGE_BYTES, TRANSPORT_HANDSHAKE_MS};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::Transport;
use crate::line::Far;

/// One connection.
pub(super) enum Raw {
    Stream(Box<dyn Stream>),
    Datagrams(UdpSocket),
}

/// TCP, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Raw {
    /// Connects; an error is the stable code of why not.
    pub(super) async fn open(far: &Far) -> Result<Self, &'static str> {
        if far.transport == Transport::Udp {
            let any: IpAddr = match far.address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await.map_err(|_| "connect.failed")?;
            socket.connect(far.address).await.map_err(|_| "connect.failed")?;
            return Ok(Self::Datagrams(socket));
        }
        let socket = connect(far.address).await?;
        let Some((config, name)) = &far.tls else { return Ok(Self::Stream(Box::new(socket))) };
        let connector = TlsConnector::from(Arc::clone(config));
        let handshake = connector.connect(name.clone(), socket);
        match timeout(TRANSPORT_HANDSHAKE_MS.millis(), handshake).await {
            Ok(Ok(stream)) => Ok(Self::Stream(Box::new(stream))),
            Ok(Err(_)) => Err("connect.tls_failed"),
            Err(_) => Err("connect.timeout"),
        }
    }

    /// Sends bytes and says what came back: the status of the first line, `closed` or `silence`.
    pub(super) async fn ask(&mut self, bytes: &[u8], patience: Duration) -> String {
        let mut buffer = vec![0; SIP_MESSAGE_BYTES.get()];
        let length = match self {
            Self::Stream(stream) => {
                if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
                    return "closed".to_owned();
                }
                match timeout(patience, stream.read(&mut buffer)).await {
                    Ok(Ok(0) | Err(_)) => return "closed".to_owned(),
                    Ok(Ok(length)) => length,
                    Err(_) => return "silence".to_owned(),
                }
            }
            Self::Datagrams(socket) => {
                if socket.send(bytes).await.is_err() {
                    return "connect.refused".to_owned();
                }
                match timeout(patience, socket.recv(&mut buffer)).await {
                    Ok(Ok(length)) => length,
                    Ok(Err(_)) => return "connect.refused".to_owned(),
                    Err(_) => return "silence".to_owned(),
                }
            }
        };
        status_of(&buffer[..length])
    }
}

/// A TCP connection.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, &'static str> {
    match timeout(TRANSPORT_HANDSHAKE_MS.millis(), TcpStream::connect(address)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err("connect.refused")
        }
        Ok(Err(_)) => Err("connect.failed"),
        Err(_) => Err("connect.timeout"),
    }
}

/// The status line of an answer, in short.
fn status_of(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let Some(status) = first.strip_prefix("SIP/2.0 ") else { return "no SIP".to_owned() };
    status.chars().filter(|it| !it.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_its_first_line() {
        assert_eq!(status_of(b"SIP/2.0 400 Bad Request\r\nVia: x\r\n"), "400 Bad Request");
        assert_eq!(status_of(b"HTTP/1.1 400 Bad Request\r\n"), "no SIP");
        assert_eq!(status_of(b"\xff\xfe"), "no SIP");
    }
}
