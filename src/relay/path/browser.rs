//! A browser for tests: checks, a handshake, and sound under its keys. It opens no socket.

use std::net::SocketAddr;

use base::{Instant, Random, SeededRandom, SessionId, WallTime};
use media::{DtlsBackend, DtlsRole, Fingerprint, Handshake};
use rtp::ice::stun::{Class, Message, Role, Writer};
use rtp::ice::{Credentials, MalformedCredentials};
use rtp::packet::Packet;
use rtp::{Datagram, Header};
use tokio::sync::mpsc;

use crate::dtls::{
    Association, Backends, Failure, Identity, Keys, Output, PREFERENCE, Setup, Wake,
};
use crate::srtp::{OVERHEAD, Receiver, Sender};

pub(crate) fn credentials(seed: u64) -> Credentials {
    Credentials::random(&mut SeededRandom::new(seed))
}

pub(crate) fn identity(seed: u64) -> Identity {
    let wall = WallTime::from_unix_millis(1_795_392_000_000);
    Identity::generate(&mut SeededRandom::new(seed), wall).unwrap()
}

pub(crate) fn wake() -> Wake {
    Wake { queue: mpsc::channel(1_000).0, session: SessionId::new(1, 0) }
}

/// Begins a handshake without a thread.
pub(crate) fn begin(now: Instant, setup: Setup) -> Association {
    Backends::new().unwrap().begin(now, setup, wake()).unwrap()
}

/// See the module.
pub(crate) struct Browser {
    /// Its own credentials, and ours.
    pub(crate) local: Credentials,
    pub(crate) remote: Credentials,
    pub(crate) identity: Identity,
    pub(crate) address: SocketAddr,
    pub(crate) association: Option<Association>,
    pub(crate) keys: Option<Keys>,
    pub(crate) failure: Option<Failure>,
    /// Answers to its checks, by the address that they say.
    pub(crate) mapped: Vec<SocketAddr>,
    /// Payloads that it heard, and its packets' authenticity was proved.
    pub(crate) heard: Vec<Vec<u8>>,
    send: Option<Sender>,
    receive: Option<Receiver>,
    sequence: u16,
    random: SeededRandom,
}

impl Browser {
    pub(crate) fn new(seed: u64, address: SocketAddr) -> Self {
        Self {
            local: credentials(seed),
            remote: credentials(seed + 100),
            identity: identity(seed),
            address,
            association: None,
            keys: None,
            failure: None,
            mapped: Vec::new(),
            heard: Vec::new(),
            send: None,
            receive: None,
            sequence: 100,
            random: SeededRandom::new(seed),
        }
    }

    /// What the edge's plan says of this browser, the edge's side passive.
    pub(crate) fn handshake(&self) -> Handshake {
        Handshake {
            role: DtlsRole::Passive,
            peer: self.identity.fingerprint().clone(),
            backend: DtlsBackend::Dimpl,
            local: self.remote.clone(),
            remote: self.local.clone(),
        }
    }

    /// Restarts ICE on both sides.
    pub(crate) fn restart(&mut self, seed: u64) -> Result<(), MalformedCredentials> {
        (self.local, self.remote) = (credentials(seed), credentials(seed + 100));
        Credentials::parse(&self.local.ufrag, self.local.pwd.expose()).map(drop)
    }

    /// A check.
    pub(crate) fn check(&mut self, nominates: bool) -> Vec<u8> {
        let mut id = [0; 12];
        self.random.fill(&mut id);
        let mut buffer = [0; 512];
        let mut writer = Writer::new(&mut buffer, Class::Request, id);
        writer.username(&self.remote.ufrag, &self.local.ufrag);
        writer.priority(1_853_824_767);
        writer.role(Role::Controlling(7));
        if nominates {
            writer.use_candidate();
        }
        let length = writer.finish(Some(self.remote.pwd.expose().as_bytes())).unwrap();
        buffer[..length].to_vec()
    }

    /// Begins the handshake and gives what is to be sent.
    pub(crate) fn shake(
        &mut self,
        now: Instant,
        role: DtlsRole,
        edge: &Fingerprint,
    ) -> Vec<Vec<u8>> {
        let setup = Setup {
            backend: DtlsBackend::Dimpl,
            role,
            identity: self.identity.clone(),
            fingerprint: edge.clone(),
            suites: PREFERENCE.to_vec(),
            has_cookie: false,
            has_13: false,
        };
        self.association = Some(begin(now, setup));
        self.drain()
    }

    /// Time passes; gives what is to be sent.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let association = self.association.as_mut();
        if let Some(late) = association.filter(|it| it.poll_timeout().is_some_and(|at| at <= now)) {
            late.handle_timeout(now);
        }
        self.drain()
    }

    /// Hears a datagram; gives what is to be sent.
    pub(crate) fn hear(&mut self, now: Instant, datagram: &[u8]) -> Vec<Vec<u8>> {
        match rtp::classify(datagram) {
            Datagram::Stun => {
                let answer = Message::parse(datagram).unwrap();
                assert!(answer.is_signed_with(self.remote.pwd.expose().as_bytes()));
                self.mapped.extend(answer.mapped_address());
            }
            Datagram::Dtls => {
                if let Some(association) = &mut self.association {
                    association.handle_datagram(now, datagram);
                }
            }
            Datagram::Rtp => {
                let mut packet = datagram.to_vec();
                let receive = self.receive.as_mut().expect("media before the keys");
                let length = receive.unprotect_rtp(&mut packet).unwrap().length;
                let packet = Packet::parse(&packet[..length]).unwrap();
                self.heard.push(packet.payload().to_vec());
            }
            _ => {}
        }
        self.drain()
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while let Some(output) = self.association.as_mut().and_then(Association::poll_output) {
            match output {
                Output::Datagram(datagram) => datagrams.push(datagram),
                Output::Keys(keys) => {
                    self.send = Some(Sender::new(keys.suite, &keys.send).unwrap());
                    self.receive = Some(Receiver::new(keys.suite, &keys.receive).unwrap());
                    self.keys = Some(keys);
                }
                Output::Failed(failure) => self.failure = Some(failure),
                Output::Closed => {}
            }
        }
        datagrams
    }

    /// 20 ms of sound in PCMU, under the keys.
    pub(crate) fn voice(&mut self) -> Vec<u8> {
        let timestamp = u32::from(self.sequence) * 160;
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let header = Header { marker: false, payload_type: 0, sequence, timestamp, ssrc: 77 };
        let mut packet = vec![0; 172 + OVERHEAD];
        let length = header.write(&[0x55; 160], &mut packet).unwrap();
        let length = self.send.as_mut().unwrap().protect_rtp(&mut packet, length).unwrap();
        packet.truncate(length);
        packet
    }
}
