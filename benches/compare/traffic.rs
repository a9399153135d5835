//! Calls through an anchor and the packets that flow through them.
//!
//! The calls stand for as long as this lives; [`Traffic::run`] sends through some of them for a
//! while, so that two anchors can be measured in turns without setting anything up again.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use audio::{Codec, Encoder, OpusSettings, Resampler, SampleRate};
use base::SeededRandom;
use benches::rig::cpu;
use benches::rig::generator::{Generator, Load, Seen, Stream};
use loadgen::browser::{Certificate, Credentials};
use rtp::sdes::{KeySalt, Suite};
use webrtc_srtp::context::Context as Srtp;
use webrtc_srtp::protection_profile::ProtectionProfile;

use crate::anchor::{Anchor, Anchored, Browser, Party};
use crate::browser::{self, Path};

/// From so many calls on a refusal means that the anchor is full.
const FULL: usize = 500;
/// Where the generator runs; what is measured has the other core.
pub(crate) const GENERATOR_CORE: usize = 0;

/// What is done with the media of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// G.711 u-law, plain RTP on both sides.
    Plain,
    /// G.711 u-law, SRTP of the caller, plain RTP of the callee.
    SrtpToPlain,
    /// G.711 u-law, SRTP under different keys on both sides.
    SrtpToSrtp,
    /// G.711 u-law of the caller, A-law of the callee, plain RTP.
    Recode,
    /// G.711 u-law of the caller, Opus of the callee, plain RTP; ours at what it takes by itself.
    Opus,
    /// The same at the complexity that rtpengine works at.
    OpusAlike,
    /// G.711 u-law, DTLS-SRTP of the caller under this profile, SRTP by SDES of the callee.
    DtlsToSrtp(Suite),
}

impl Work {
    fn parties(
        self,
        addresses: [SocketAddr; 2],
        certificate: &Certificate,
        random: &mut SeededRandom,
    ) -> [Party; 2] {
        let codec = match self {
            Self::Plain | Self::SrtpToPlain | Self::SrtpToSrtp | Self::DtlsToSrtp(_) => Codec::Pcmu,
            Self::Recode => Codec::Pcma,
            Self::Opus | Self::OpusAlike => Codec::Opus,
        };
        let is_secure = [
            matches!(self, Self::SrtpToPlain | Self::SrtpToSrtp),
            matches!(self, Self::SrtpToSrtp | Self::DtlsToSrtp(_)),
        ];
        let browser = |side: usize, random: &mut SeededRandom| match (self, side) {
            (Self::DtlsToSrtp(suite), 0) => Some(Browser {
                credentials: Credentials::random(random),
                certificate: certificate.clone(),
                suite,
            }),
            _ => None,
        };
        [0, 1].map(|side| Party {
            address: addresses[side],
            codec: [Codec::Pcmu, codec][side],
            key: is_secure[side].then(|| KeySalt::generate(SUITES[side], random)),
            browser: browser(side, random),
            complexity: (self == Self::OpusAlike).then_some(ALIKE),
        })
    }
}

/// The complexity of rtpengine's encoder, which is libavcodec's default for libopus.
const ALIKE: u8 = 10;

/// The suites of caller and callee. They differ by the length of the tag only: with one suite on
/// both sides rtpengine hands the caller's key on and does no cryptography.
const SUITES: [Suite; 2] = [Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32];

/// Where parties receive, and ports above them that take RTCP and are never read.
struct Ends {
    sockets: Vec<UdpSocket>,
    rtcp: Vec<UdpSocket>,
}

impl Ends {
    fn open(count: usize) -> anyhow::Result<Self> {
        let mut it = Self { sockets: Vec::new(), rtcp: Vec::new() };
        let mut unused = Vec::new();
        while it.sockets.len() < count {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = socket.local_addr()?.port();
            match UdpSocket::bind((Ipv4Addr::LOCALHOST, port ^ 1)) {
                Ok(other) if port % 2 == 0 => {
                    it.sockets.push(socket);
                    it.rtcp.push(other);
                }
                // Kept until the end, so that the system offers another.
                _ => unused.push(socket),
            }
        }
        Ok(it)
    }
}

/// What one stream says.
struct Voice {
    codec: Codec,
    at: usize,
    srtp: Option<Srtp>,
}

/// Twenty milliseconds of speech each, in a row.
pub(crate) struct Speech {
    mu: Vec<Vec<u8>>,
    a: Vec<Vec<u8>>,
    opus: Vec<Vec<u8>>,
}

impl Speech {
    /// A caller's voice, three seconds of it.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mu: &[u8] = include_bytes!("../../src/relay/testdata/caller.ulaw");
        let mut a = mu.to_vec();
        audio::g711::mu_to_a(&mut a);
        let mut pcm = vec![0; mu.len()];
        audio::g711::Law::Mu.decode(mu, &mut pcm);
        let settings = OpusSettings { sample_rate: SampleRate::Hz48000, ..OpusSettings::default() };
        let mut encoder = Encoder::new(Codec::Opus, &settings)?;
        let mut resampler = Resampler::new(SampleRate::Hz8000, SampleRate::Hz48000);
        let mut opus = Vec::new();
        for frame in pcm.chunks_exact(160) {
            let mut wide = vec![0; 960];
            resampler.process(frame, &mut wide)?;
            let mut packet = vec![0; 1_000];
            let length = encoder.encode(&wide, &mut packet)?;
            packet.truncate(length);
            opus.push(packet);
        }
        let frames = |bytes: &[u8]| bytes.chunks_exact(160).map(<[u8]>::to_vec).collect();
        Ok(Self { mu: frames(mu), a: frames(&a), opus })
    }

    /// A frame of it; they repeat.
    pub(crate) fn frame(&self, codec: Codec, at: usize) -> &[u8] {
        let frames = match codec {
            Codec::Pcma => &self.a,
            Codec::Opus => &self.opus,
            Codec::Pcmu | Codec::G722 => &self.mu,
        };
        frames.get(at % frames.len().max(1)).map_or(&[], Vec::as_slice)
    }
}

/// Calls that stand at one anchor.
pub(crate) struct Traffic<'a> {
    process: u32,
    pub(crate) calls: Range<u32>,
    /// One call in so many is heard.
    pub(crate) sample: u32,
    generator: Generator,
    voices: Vec<Voice>,
    is_secure: bool,
    speech: &'a Speech,
    /// Whether packets are protected before a run, which takes about a tenth of it in which nobody
    /// sends, or each when it is sent, which takes the generator's time.
    pub(crate) is_prepared: bool,
    /// Browsers' paths, which close when nobody checks them.
    paths: Vec<(usize, Path)>,
    /// Held open, so that RTCP meets no closed port.
    _rtcp: Vec<UdpSocket>,
}

impl<'a> Traffic<'a> {
    /// Sets calls up under these numbers.
    pub(crate) fn open(
        anchor: &mut dyn Anchor,
        speech: &'a Speech,
        work: Work,
        calls: Range<u32>,
    ) -> anyhow::Result<Self> {
        Self::sampled(anchor, speech, work, calls, 1)
    }

    /// The same, of which one call in `sample` is heard; the far ends of the others take what comes
    /// and throw it away. Where the anchor takes fewer calls there are fewer.
    pub(crate) fn sampled(
        anchor: &mut dyn Anchor,
        speech: &'a Speech,
        work: Work,
        calls: Range<u32>,
        sample: u32,
    ) -> anyhow::Result<Self> {
        let ends = Ends::open(4)?;
        let mut addresses = Vec::new();
        for socket in &ends.sockets {
            addresses.push(socket.local_addr()?);
        }
        let mut random = SeededRandom::new(u64::from(calls.start) + 1);
        let certificate = Certificate::generate()?;
        let (mut streams, mut voices, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        let mut opened = calls.start..calls.start;
        for call in calls {
            // The first two sockets are read, the others are not.
            let pair = if (call - opened.start).is_multiple_of(sample) { 0 } else { 2 };
            let addresses = [addresses[pair], addresses[pair + 1]];
            let parties = work.parties(addresses, &certificate, &mut random);
            let anchored = match anchor.open(call, &parties) {
                Ok(anchored) => anchored,
                Err(_) if sample > 1 && opened.len() > FULL => break,
                Err(error) => return Err(error.context(format!("call {call}"))),
            };
            opened.end = call + 1;
            check_keys(&parties, &anchored)?;
            let mut keys = parties.each_ref().map(|party| party.key.clone());
            for side in [0, 1] {
                let Some(browser) = &parties[side].browser else { continue };
                let peer = anchored[side].peer.as_ref().context("no handshake is offered")?;
                keys[side] = Some(browser::shake(&ends.sockets[pair + side], browser, peer)?);
                paths.extend(Path::of(browser, peer).map(|path| (pair + side, path)));
            }
            for (from, to) in [(0, 1), (1, 0)] {
                let codec = parties[from].codec;
                streams.push(Stream {
                    socket: pair + from,
                    to: anchored[from].address,
                    back: anchored[to].address,
                    payload_type: parties[from].payload_type(),
                    payload: 160,
                    ticks: codec.clock_rate() / 50,
                });
                let srtp = keys[from].as_ref().map(protector).transpose()?;
                // Not all at the same word.
                voices.push(Voice { codec, at: voices.len() * 7, srtp });
            }
        }
        let mut generator = Generator::new(ends.sockets, &streams)?;
        generator.hear(2);
        let (process, calls) = (anchor.process(), opened);
        let is_secure = voices.iter().any(|voice| voice.srtp.is_some());
        let rtcp = ends.rtcp;
        Ok(Self {
            process,
            calls,
            sample,
            generator,
            voices,
            is_secure,
            speech,
            is_prepared: true,
            paths,
            _rtcp: rtcp,
        })
    }

    /// Sends through the first `calls` calls and measures.
    pub(crate) fn run(&mut self, calls: u32, load: &Load) -> anyhow::Result<Seen> {
        let process = self.process;
        for (socket, path) in &self.paths {
            // Well before thirty seconds without a check have passed (RFC 7675).
            self.generator.send_now(*socket, path.address, &path.check())?;
        }
        self.generator.use_streams(calls as usize * 2);
        self.generator.forget();
        let mut tested = || cpu::of_process(process);
        let (voices, speech) = (&mut self.voices, self.speech);
        let mut speak =
            |stream: usize, packet: &mut [u8], _: usize| voices[stream].speak(speech, packet);
        cpu::pin(None, GENERATOR_CORE)?;
        // Protecting takes longer than sending.
        if self.is_secure && self.is_prepared {
            self.generator.prepare(load, &mut speak);
            self.generator.forget();
        }
        let seen = self.generator.run(load, &mut tested, Some(&mut speak));
        // What is started from here later may use any core.
        crate::process::unpin()?;
        Ok(seen?)
    }

    /// Tears the calls down.
    pub(crate) fn close(mut self, anchor: &mut dyn Anchor) -> anyhow::Result<()> {
        self.calls.try_for_each(|call| anchor.close(call))
    }
}

impl Voice {
    /// Puts the next frame behind the header; the packet's length.
    fn speak(&mut self, speech: &Speech, packet: &mut [u8]) -> usize {
        let frame = speech.frame(self.codec, self.at);
        self.at += 1;
        let length = 12 + frame.len();
        packet[12..length].copy_from_slice(frame);
        let Some(srtp) = &mut self.srtp else { return length };
        let Ok(sealed) = srtp.encrypt_rtp(&packet[..length]) else { return length };
        packet[..sealed.len()].copy_from_slice(&sealed);
        sealed.len()
    }
}

fn protector(key: &KeySalt) -> anyhow::Result<Srtp> {
    let profile = match key.suite() {
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        _ => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    Ok(Srtp::new(key.key(), key.salt(), profile, None, None)?)
}

/// An anchor that hands keys through does no cryptography, and is not compared.
fn check_keys(parties: &[Party; 2], anchored: &[Anchored; 2]) -> anyhow::Result<()> {
    for (near, far) in [(0, 1), (1, 0)] {
        let is_secure = parties[far].key.is_some();
        anyhow::ensure!(anchored[far].key.is_some() == is_secure, "SRTP is not as asked for");
        let handed = parties[near].key.is_some() && parties[near].key == anchored[far].key;
        anyhow::ensure!(!handed, "a party's key was handed on");
    }
    Ok(())
}

/// Packets each 20 ms, after a pause that warms caches up again, measured for so long.
pub(crate) fn window(seconds: f64) -> Load {
    Load {
        every: Duration::from_millis(20),
        warm_up: Duration::from_millis(700),
        measured: Duration::from_secs_f64(seconds),
        settle: Duration::from_millis(300),
    }
}
