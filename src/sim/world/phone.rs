//! A caller's phone: any codec, SRTP or plain RTP, and telephone events, 20 ms at a time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use audio::{Codec, Decoder, Encoder, OpusSettings, Resampler, SampleRate};
use base::{Instant, Random, SeededRandom};
use relay::srtp::{OVERHEAD, Receiver, Sender};
use rtp::dtmf::{Digit, TelephoneEvent};
use rtp::packet::Packet;
use rtp::sdes::{CryptoLine, KeySalt, Suite};
use rtp::{Datagram, Header, classify};

const FRAME: Duration = Duration::from_millis(20);
/// Samples of 20 ms at 8 kHz: what it says and hears is at that rate whatever the codec.
const SAMPLES: usize = 160;
const EVENTS: u8 = 101;
const OPUS: u8 = 111;
/// Packets of one key press: six while it is down, three to say that it is up.
const PRESS: u16 = 9;

/// See the module's documentation.
pub(super) struct Phone {
    pub(super) address: SocketAddr,
    codec: Codec,
    mouth: Mouth,
    ear: Ear,
    /// Without SRTP.
    is_plain: bool,
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
    /// Whether it leaves undecoded what it hears.
    pub(super) is_deaf: bool,
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
    srtp: Option<Srtp>,
}

struct Srtp {
    send: Sender,
    receive: Receiver,
    theirs: KeySalt,
}

/// 8 kHz to payloads.
struct Mouth {
    encoder: Encoder,
    rate: Option<Resampler>,
    /// A frame of silence that came after another one.
    silence: Option<Vec<u8>>,
    silent: u8,
}

impl Mouth {
    fn new(codec: Codec) -> Self {
        let encoder = Encoder::new(codec, &OpusSettings::default()).expect("an encoder");
        let rate = encoder.sample_rate();
        let is_other = rate != SampleRate::Hz8000;
        let rate = is_other.then(|| Resampler::new(SampleRate::Hz8000, rate));
        Self { encoder, rate, silence: None, silent: 0 }
    }

    fn payload(&mut self, pcm: &[i16]) -> Vec<u8> {
        let is_silent = pcm.iter().all(|sample| *sample == 0);
        self.silent = if is_silent { self.silent.saturating_add(1) } else { 0 };
        // Most frames are silence, and encoding it again each time is most of the work.
        match &self.silence {
            Some(silence) if self.silent > 5 => silence.clone(),
            _ => {
                let payload = self.encode(pcm);
                if self.silent > 5 {
                    self.silence = Some(payload.clone());
                }
                payload
            }
        }
    }

    fn encode(&mut self, pcm: &[i16]) -> Vec<u8> {
        let mut wide = vec![0; SAMPLES * 6];
        let pcm = match &mut self.rate {
            Some(rate) => {
                let length = rate.process(pcm, &mut wide).expect("room");
                &wide[..length]
            }
            None => pcm,
        };
        let mut payload = vec![0; 400];
        let length = self.encoder.encode(pcm, &mut payload).expect("room");
        payload.truncate(length);
        payload
    }
}

/// Payloads to 8 kHz.
struct Ear {
    decoder: Decoder,
    rate: Option<Resampler>,
}

impl Ear {
    fn new(codec: Codec) -> Self {
        let decoder = Decoder::new(codec, SampleRate::Hz8000).expect("a decoder");
        let rate = decoder.sample_rate();
        let is_other = rate != SampleRate::Hz8000;
        Self { decoder, rate: is_other.then(|| Resampler::new(rate, SampleRate::Hz8000)) }
    }

    fn pcm(&mut self, payload: &[u8]) -> Option<Vec<i16>> {
        let mut pcm = vec![0; 6 * 960];
        let length = self.decoder.decode(payload, &mut pcm).ok()?;
        pcm.truncate(length);
        let Some(rate) = &mut self.rate else { return Some(pcm) };
        let mut narrow = vec![0; rate.output_len(length)];
        let length = rate.process(&pcm, &mut narrow).expect("room");
        narrow.truncate(length);
        Some(narrow)
    }
}

impl Phone {
    pub(super) fn new(address: SocketAddr, random: &mut SeededRandom) -> Self {
        const SUITES: [Suite; 3] =
            [Suite::AesCm128HmacSha1_80, Suite::AeadAes128Gcm, Suite::AeadAes256Gcm];
        let suite = SUITES[random.below(3) as usize];
        let codec = if random.below(2) == 0 { Codec::Pcma } else { Codec::Pcmu };
        Self {
            address,
            codec,
            mouth: Mouth::new(codec),
            ear: Ear::new(codec),
            is_plain: false,
            key: KeySalt::generate(suite, random),
            ssrc: random.u32(),
            sequence: random.u32() as u16,
            timestamp: random.u32(),
            link: None,
            next: None,
            saying: VecDeque::new(),
            pressing: VecDeque::new(),
            pressed: None,
            is_deaf: false,
            is_mute: false,
            heard: Vec::new(),
            loudness: Vec::new(),
            first: None,
            wrong: 0,
            goodbyes: 0,
        }
    }

    /// Speaks this codec, from before the call.
    pub(super) fn speak(&mut self, codec: Codec) {
        (self.codec, self.mouth, self.ear) = (codec, Mouth::new(codec), Ear::new(codec));
    }

    /// Does without SRTP, from before the call.
    pub(super) const fn bare(&mut self) {
        self.is_plain = true;
    }

    /// Its description, sending in this `direction`.
    pub(super) fn description(&self, direction: &str) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        let (payload_type, clock) = (self.payload_type(), self.codec.clock_rate());
        let (profile, crypto) = if self.is_plain {
            ("RTP/AVP", String::new())
        } else {
            let line = CryptoLine { tag: 1, key: self.key.clone() }.to_attribute();
            ("RTP/SAVP", format!("a=crypto:{}\r\n", line.expose()))
        };
        let opus = match self.codec {
            Codec::Opus => format!("a=rtpmap:{OPUS} opus/48000/2\r\n"),
            _ => String::new(), // static payload types need no map
        };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} {profile} {payload_type} {EVENTS}\r\n{opus}\
             a=rtpmap:{EVENTS} telephone-event/{clock}\r\na=rtcp-mux\r\n{crypto}a={direction}\r\n",
        )
    }

    /// Timestamps in 20 ms.
    const fn step(&self) -> u32 {
        self.codec.timestamp_step(20)
    }

    /// What must never be seen in an event.
    pub(super) fn secret(&self) -> String {
        let line = CryptoLine { tag: 1, key: self.key.clone() }.to_attribute();
        line.expose().split("inline:").nth(1).expect("a key").to_owned()
    }

    fn payload_type(&self) -> u8 {
        self.codec.payload_type().unwrap_or(OPUS)
    }

    /// Reads the edge's description and begins to send.
    pub(super) fn connect(&mut self, now: Instant, body: &[u8]) {
        let session = sdp::Session::parse(body).expect("the edge's description");
        let media = &session.media[0];
        let ip = session.connection_of(media).and_then(|it| it.host.ip()).expect("an address");
        let line = media.crypto().find_map(|line| CryptoLine::parse(line).ok());
        assert_eq!(line.as_ref().map(|it| it.key.suite()), self.suite());
        let remote = SocketAddr::new(ip, media.port);
        match (&mut self.link, line) {
            (Some(link), line) => {
                let known = link.srtp.as_ref().map(|srtp| &srtp.theirs);
                let key = line.as_ref().map(|line| &line.key);
                assert!(known == key, "the edge keeps its key in a re-INVITE");
                link.remote = remote;
            }
            (None, line) => {
                let suite = self.key.suite();
                let srtp = line.map(|line| Srtp {
                    send: Sender::new(suite, &self.key).expect("our key"),
                    receive: Receiver::new(suite, &line.key).expect("their key"),
                    theirs: line.key,
                });
                self.link = Some(Link { remote, srtp });
                self.next = Some(now);
            }
        }
    }

    fn suite(&self) -> Option<Suite> {
        (!self.is_plain).then(|| self.key.suite())
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
        self.timestamp = self.timestamp.wrapping_add(self.step());
        if payload.is_empty() {
            return None; // Opus in silence
        }
        self.sequence = self.sequence.wrapping_add(1);
        let link = self.link.as_mut().filter(|_| !self.is_mute)?;
        let mut packet = vec![0; 12 + payload.len() + OVERHEAD];
        let mut length = header.write(&payload, &mut packet).expect("room");
        if let Some(srtp) = &mut link.srtp {
            length = srtp.send.protect_rtp(&mut packet, length).expect("a fresh index");
        }
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
        self.mouth.payload(&pcm)
    }

    /// The telephone event of this frame, if a key is down.
    fn event(&mut self) -> Option<(Header, Vec<u8>)> {
        let key = *self.pressing.front()?;
        let (sent, timestamp) = self.pressed.unwrap_or((0, self.timestamp));
        let event = TelephoneEvent {
            event: Digit::from_char(key).expect("a key").event(),
            end: sent + 3 >= PRESS,
            volume: 10,
            duration: (sent + 1).min(PRESS - 2) * self.step() as u16,
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
            let length = match &mut link.srtp {
                Some(srtp) => srtp.receive.unprotect_rtcp(datagram).map(|(length, _)| length),
                None => Ok(datagram.len()),
            };
            match length {
                // A BYE is the last packet of a compound (RFC 3550 section 6.1).
                Ok(length) => {
                    let has_bye = datagram[..length].windows(2).any(|pair| pair == [0x81, 203]);
                    self.goodbyes += u32::from(has_bye);
                }
                Err(relay::srtp::SrtpError::Replayed) => {}
                Err(_) => self.wrong += 1,
            }
            return;
        }
        let length = match &mut link.srtp {
            Some(srtp) => srtp.receive.unprotect_rtp(datagram).map(|it| it.length),
            None => Ok(datagram.len()),
        };
        let length = match length {
            Ok(length) => length,
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
        if self.is_deaf {
            return;
        }
        let Some(pcm) = self.ear.pcm(packet.payload()) else {
            self.wrong += 1;
            return;
        };
        self.loudness.push((now, audio::level::dbfs(&pcm)));
        let first = *self.first.get_or_insert(packet.timestamp());
        let at = packet.timestamp().wrapping_sub(first) / (self.codec.clock_rate() / 8_000);
        let at = at as usize;
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
