//! The browser's end of media: a check, a handshake, and checks now and then. The load tester's,
//! by `webrtc-dtls`, so that none of it is the relay's own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use base::{Random as _, SeededRandom};
use loadgen::browser::{Credentials, Peer, check, connect};
use rtp::sdes::KeySalt;
use tokio::runtime::Builder;

use crate::anchor::Browser;

/// Checks the path and shakes hands by a socket that others use as well; the key of what the
/// browser sends.
pub(crate) fn shake(socket: &UdpSocket, browser: &Browser, peer: &Peer) -> anyhow::Result<KeySalt> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let socket = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    let secured = runtime.block_on(async {
        let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
        let Browser { credentials, certificate, suite } = browser;
        let made = connect(&socket, credentials, certificate, &[*suite], peer).await;
        anyhow::Ok(made?)
    })?;
    Ok(secured.send)
}

/// A path to an anchor that wants checks.
pub(crate) struct Path {
    pub(crate) address: SocketAddr,
    ours: Credentials,
    theirs: Credentials,
}

impl Path {
    /// None where the anchor wants no checks.
    pub(crate) fn of(browser: &Browser, peer: &Peer) -> Option<Self> {
        let theirs = peer.credentials.clone()?;
        Some(Self { address: peer.address, ours: browser.credentials.clone(), theirs })
    }

    /// A check; its answer is thrown away.
    pub(crate) fn check(&self) -> Vec<u8> {
        let mut transaction = [0; 12];
        SeededRandom::new(u64::from(self.address.port())).fill(&mut transaction);
        check(&self.ours, &self.theirs, transaction)
    }
}
