//! A caller's phone: SRTP, G.711 and telephone events, 20 ms at a time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use audio::g711::Law;
use base::{Instant, Random, SeededRandom};
use relay::srtp::{OVERHEAD, Receiver, Sender};
use rtp::dtmf::{Digit, TelephoneEvent};
use rtp::packet::Packet;
use rtp::sdes::{CryptoLine, KeySalt, Suite};
use rtp::{Datagram, Header, classify};

const FRAME: Duration = Duration::from_millis(20);
/// Samples in one of its packets.
const SAMPLES: usize = 160;
const EVENTS: u8 = 101;
/// Packets of one key press: six while it is down, three to say that it is up.
const PRESS: u16 = 9;

/// See the module's documentation.
pub(super) struct Phone {
    pub(super) address: SocketAddr,
    law: Law,
    key: KeySalt,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    link: Option<Link>,
    pub(super) next: Option<Instant>,
    saying: VecDeque<i16>,
    pressing: VecDeque<char>,
    /// Packets sent of the press under way, and its timestamp.
    pressed: Option<(u16, u32)>,
    /// Whether anything is sent at all.
    pub(super) is_mute: bool,
    /// What was heard, in its place by timestamp; a hole is silence.
    pub(super) heard: Vec<i16>,
    /// When each packet came, and how loud it was.
    pub(super) loudness: Vec<(Instant, f32)>,
    first: Option<u32>,
    /// Packets that were not what they should be.
    pub(super) wrong: u32,
    pub(super) goodbyes: u32,
}

/// What the answer told.
struct Link {
    remote: SocketAddr,
    send: Sender,
    receive: Receiver,
    theirs: KeySalt,
}

impl Phone {
    pub(super) fn new(address: SocketAddr, random: &mut SeededRandom) -> Self {
        const SUITES: [Suite; 3] =
            [Suite::AesCm128HmacSha1_80, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm];
        let suite = SUITES[random.below(3) as usize];
        Self {
            address,
            law: if random.below(2) == 0 { Law::A } else { Law::Mu },
            key: KeySalt::generate(suite, random),
            ssrc: random.u32(),
            sequence: random.u32() as u16,
            timestamp: random.u32(),
            link: None,
            next: None,
            saying: VecDeque::new(),
            pressing: VecDeque::new(),
            pressed: None,
            is_mute: false,
            heard: Vec::new(),
            loudness: Vec::new(),
            first: None,
            wrong: 0,
            goodbyes: 0,
        }
    }

    /// Its description, sending in this `direction`.
    pub(super) fn description(&self, direction: &str) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        let line = CryptoLine { tag: 1, key: self.key.clone() };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/SAVP {} {EVENTS}\r\na=rtpmap:{EVENTS} telephone-event/8000\r\n\
             a=rtcp-mux\r\na=crypto:{}\r\na={direction}\r\n",
            self.payload_type(),
            line.to_attribute().expose()
        )
    }

    /// What must never be seen in an event.
    pub(super) fn secret(&self) -> String {
        let line = CryptoLine { tag: 1, key: self.key.clone() }.to_attribute();
        line.expose().split("inline:").nth(1).expect("a key").to_owned()
    }

    const fn payload_type(&self) -> u8 {
        match self.law {
            Law::Mu => 0,
            Law::A => 8,
        }
    }

    /// Reads the edge's description and begins to send.
    pub(super) fn connect(&mut self, now: Instant, body: &[u8]) {
        let session = sdp::Session::parse(body).expect("the edge's description");
        let media = &session.media[0];
        let ip = session.connection_of(media).and_then(|it| it.host.ip()).expect("an address");
        let line = media.crypto().find_map(|line| CryptoLine::parse(line).ok()).expect("a key");
        assert_eq!(line.key.suite(), self.key.suite());
        let remote = SocketAddr::new(ip, media.port);
        match &mut self.link {
            Some(link) => {
                assert!(link.theirs == line.key, "the edge keeps its key in a re-INVITE");
                link.remote = remote;
            }
            None => {
                let suite = self.key.suite();
                self.link = Some(Link {
                    remote,
                    send: Sender::new(suite, &self.key).expect("our key"),
                    receive: Receiver::new(suite, &line.key).expect("their key"),
                    theirs: line.key,
                });
                self.next = Some(now);
            }
        }
    }

    /// Says this, at 8 kHz.
    pub(super) fn say(&mut self, sound: &[i16]) {
        self.saying.extend(sound);
    }

    pub(super) fn press(&mut self, keys: &str) {
        self.pressing.extend(keys.chars());
    }

    pub(super) fn hang_up(&mut self) {
        self.next = None;
    }

    /// The next 20 ms: where to, and what.
    pub(super) fn tick(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        self.next = Some(now + FRAME);
        let (header, payload) = match self.event() {
            Some(event) => event,
            None => (self.header(self.payload_type(), false), self.sound()),
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(SAMPLES as u32);
        let link = self.link.as_mut().filter(|_| !self.is_mute)?;
        let mut packet = vec![0; 12 + payload.len() + OVERHEAD];
        let length = header.write(&payload, &mut packet).expect("room");
        let length = link.send.protect_rtp(&mut packet, length).expect("a fresh index");
        packet.truncate(length);
        Some((link.remote, packet))
    }

    const fn header(&self, payload_type: u8, marker: bool) -> Header {
        let Self { sequence, timestamp, ssrc, .. } = *self;
        Header { marker, payload_type, sequence, timestamp, ssrc }
    }

    fn sound(&mut self) -> Vec<u8> {
        let count = self.saying.len().min(SAMPLES);
        let mut pcm: Vec<i16> = self.saying.drain(..count).collect();
        pcm.resize(SAMPLES, 0);
        let mut payload = vec![0; SAMPLES];
        self.law.encode(&pcm, &mut payload);
        payload
    }

    /// The telephone event of this frame, if a key is down.
    fn event(&mut self) -> Option<(Header, Vec<u8>)> {
        let key = *self.pressing.front()?;
        let (sent, timestamp) = self.pressed.unwrap_or((0, self.timestamp));
        let event = TelephoneEvent {
            event: Digit::from_char(key).expect("a key").event(),
            end: sent + 3 >= PRESS,
            volume: 10,
            duration: (sent + 1).min(PRESS - 2) * SAMPLES as u16,
        };
        self.pressed = Some((sent + 1, timestamp));
        if sent + 1 == PRESS {
            self.pressing.pop_front();
            self.pressed = None;
        }
        let header = Header { timestamp, ..self.header(EVENTS, sent == 0) };
        Some((header, event.to_bytes().to_vec()))
    }

    /// A datagram from the edge.
    pub(super) fn receive(&mut self, now: Instant, datagram: &mut [u8]) {
        let Some(link) = &mut self.link else { return };
        if classify(datagram) == Datagram::Rtcp {
            match link.receive.unprotect_rtcp(datagram) {
                // A BYE is the last packet of a compound (RFC 3550 section 6.1).
                Ok((length, _)) => {
                    let has_bye = datagram[..length].windows(2).any(|pair| pair == [0x81, 203]);
                    self.goodbyes += u32::from(has_bye);
                }
                Err(relay::srtp::SrtpError::Replayed) => {}
                Err(_) => self.wrong += 1,
            }
            return;
        }
        let length = match link.receive.unprotect_rtp(datagram) {
            Ok(unprotected) => unprotected.length,
            Err(relay::srtp::SrtpError::Replayed) => return, // doubled on the way
            Err(_) => {
                self.wrong += 1;
                return;
            }
        };
        let packet = Packet::parse(&datagram[..length]).expect("what we are sent is RTP");
        if packet.payload_type() != self.payload_type() {
            self.wrong += 1;
            return;
        }
        let mut pcm = vec![0; packet.payload().len()];
        self.law.decode(packet.payload(), &mut pcm);
        self.loudness.push((now, audio::level::dbfs(&pcm)));
        let first = *self.first.get_or_insert(packet.timestamp());
        let at = packet.timestamp().wrapping_sub(first) as usize;
        // What was sent before the first that arrived is of no place in the buffer.
        if at < 8_000 * 7_200 {
            let end = at + pcm.len();
            if self.heard.len() < end {
                self.heard.resize(end, 0);
            }
            self.heard[at..end].copy_from_slice(&pcm);
        }
    }
}
