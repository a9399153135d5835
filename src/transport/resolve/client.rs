//! Asking name servers: a datagram each, TCP where the answer does not fit into one.
//!
//! A forged answer would have to guess the port and the id of a query, both random (RFC 5452); a
//! socket is connected to its server, so that the kernel drops what comes from elsewhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use base::{Random as _, limit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::message::{Kind, Reply, UDP_BYTES, query, read};
use crate::random::SystemRandom;

/// Who is asked, and which names need no asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServers {
    /// These, in this order; the first of limit `transport.dns_servers`. Empty: those that
    /// `resolv_conf` names.
    pub servers: Vec<SocketAddr>,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
}

impl Default for NameServers {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        }
    }
}

/// Asks until a server answers; `None` where none does.
pub(crate) async fn ask(servers: &[SocketAddr], name: &str, kind: Kind) -> Option<Reply> {
    for _ in 0..limit::TRANSPORT_DNS_ROUNDS.get() {
        for server in servers {
            let reply = match over_udp(*server, name, kind).await {
                Ok(Some(Reply::Truncated)) => over_tcp(*server, name, kind).await,
                other => other,
            };
            match reply {
                Ok(Some(Reply::Refused | Reply::Truncated)) | Err(_) => {}
                Ok(Some(reply)) => return Some(reply),
                Ok(None) => return None, // no such name can be
            }
        }
    }
    None
}

async fn over_udp(server: SocketAddr, name: &str, kind: Kind) -> io::Result<Option<Reply>> {
    let id = SystemRandom.u32() as u16;
    let Some(question) = query(id, name, kind) else { return Ok(None) };
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let deadline = Instant::now() + limit::TRANSPORT_DNS_QUERY_MS.millis();
    let mut buffer = vec![0; usize::from(UDP_BYTES)];
    loop {
        let size = timeout_at(deadline, socket.recv(&mut buffer)).await??;
        let reply = read(buffer.get(..size).unwrap_or_default(), id, name, kind);
        if reply.is_some() {
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, name: &str, kind: Kind) -> io::Result<Option<Reply>> {
    let id = SystemRandom.u32() as u16;
    let Some(question) = query(id, name, kind) else { return Ok(None) };
    let deadline = Instant::now() + limit::TRANSPORT_DNS_QUERY_MS.millis();
    let asking = async {
        let mut stream = TcpStream::connect(server).await?;
        // RFC 1035 section 4.2.2: two bytes of length before the message.
        let size = u16::try_from(question.len()).map_err(io::Error::other)?;
        let mut framed = size.to_be_bytes().to_vec();
        framed.extend_from_slice(&question);
        stream.write_all(&framed).await?;
        let size = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(size)];
        stream.read_exact(&mut answer).await?;
        let reply = read(&answer, id, name, kind);
        reply.map(Some).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    timeout_at(deadline, asking).await?
}
