//! Codecs that go through as they are: what must agree between two ends that exchange packets
//! which nobody between them decodes.
//!
//! A format is known by its name, its clock and the parameters that change how a payload is laid
//! out or what may come. Their text goes on from one end to the other, without whatever is no
//! parameter of the codec, so that the two ends agree with each other.

use alloc::string::String;

use base::limit;

/// A codec that is forwarded and never decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueCodec {
    /// AMR-WB, G.722.2 (RFC 4867).
    AmrWb,
    /// AMR (RFC 4867).
    Amr,
    /// EVS (3GPP TS 26.445 annex A).
    Evs,
    /// G.729 with its annexes A and B (RFC 3551 section 4.5.6).
    G729,
    /// G.723.1 (RFC 3551 section 4.5.3).
    G723,
    /// iLBC (RFC 3952).
    Ilbc,
    /// Speex (RFC 5574).
    Speex,
}

impl OpaqueCodec {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::AmrWb, Self::Amr, Self::Evs, Self::G729, Self::G723, Self::Ilbc, Self::Speex];

    /// The encoding name in SDP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmrWb => "AMR-WB",
            Self::Amr => "AMR",
            Self::Evs => "EVS",
            Self::G729 => "G729",
            Self::G723 => "G723",
            Self::Ilbc => "iLBC",
            Self::Speex => "speex",
        }
    }

    /// The codec of an encoding name, whose case does not matter (RFC 4855 section 3).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The RTP clocks that it may have, in Hz.
    const fn clock_rates(self) -> &'static [u32] {
        match self {
            Self::AmrWb | Self::Evs => &[16_000],
            Self::Amr | Self::G729 | Self::G723 | Self::Ilbc => &[8_000],
            Self::Speex => &[8_000, 16_000, 32_000],
        }
    }

    /// The parameters that one end may tell the other.
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::AmrWb | Self::Amr => &[
                "octet-align",
                "mode-set",
                "mode-change-period",
                "mode-change-capability",
                "mode-change-neighbor",
                "crc",
                "robust-sorting",
                "interleaving",
                "max-red",
            ],
            Self::Evs => &[
                "evs-mode-switch",
                "hf-only",
                "dtx",
                "dtx-recv",
                "max-red",
                "cmr",
                "br",
                "br-send",
                "br-recv",
                "bw",
                "bw-send",
                "bw-recv",
                "ch-aw-recv",
                "mode-set",
                "mode-change-period",
                "mode-change-capability",
                "mode-change-neighbor",
            ],
            Self::G729 => &["annexb"],
            Self::G723 => &["annexa", "bitrate"],
            Self::Ilbc => &["mode"],
            Self::Speex => &["vbr", "cng", "mode"],
        }
    }
}

/// A codec that goes through, as far as both ends must mean the same by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opaque {
    /// The codec.
    pub codec: OpaqueCodec,
    /// The RTP clock, in Hz.
    pub clock_rate: u32,
    layout: Layout,
}

/// What payloads hold and how they are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Payloads speak for themselves.
    Plain,
    /// RFC 4867 section 8.1: what must be the same on both sides.
    Amr { octet_align: bool, crc: bool, sorting: bool, interleaving: u8, modes: u16 },
    /// Whether frames of silence come (G.729 annex B, G.723.1 annex A).
    Silence(bool),
    /// Frames of 20 or 30 ms (iLBC); whether the header is always there (EVS).
    Mode(u8),
}

impl Opaque {
    /// What a description says of a format; `None` where it is no codec of these, has more than
    /// one channel, states what its codec cannot have, or says more than limit `sdp.fmtp_bytes`.
    #[must_use]
    pub fn of(name: &str, clock_rate: u32, channels: u8, fmtp: Option<&str>) -> Option<Self> {
        let codec = OpaqueCodec::from_name(name)?;
        let fmtp = fmtp.unwrap_or_default();
        let is_known = channels == 1
            && codec.clock_rates().contains(&clock_rate)
            && fmtp.len() <= limit::SDP_FMTP_BYTES.get();
        let layout = layout(codec, fmtp).filter(|_| is_known)?;
        Some(Self { codec, clock_rate, layout })
    }

    /// What two ends that say this and `other` may exchange; `None` where they cannot understand
    /// each other.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<Self> {
        let layout = match (self.layout, other.layout) {
            // RFC 4856 section 2.1.9 and RFC 7261: one that wants no frames of silence gets none.
            (Layout::Silence(ours), Layout::Silence(theirs)) => Layout::Silence(ours && theirs),
            // RFC 3952 section 5: 30 ms where one of them says so.
            (Layout::Mode(ours), Layout::Mode(theirs)) if self.codec == OpaqueCodec::Ilbc => {
                Layout::Mode(ours.max(theirs))
            }
            (ours, _) => ours,
        };
        let is_lossy = matches!(layout, Layout::Silence(_))
            || matches!(layout, Layout::Mode(_)) && self.codec == OpaqueCodec::Ilbc;
        let is_same = (self.codec, self.clock_rate) == (other.codec, other.clock_rate)
            && (is_lossy || self.layout == other.layout);
        is_same.then_some(Self { layout, ..self })
    }
}

/// The parameters of `fmtp` that are the codec's, each once, for the other end.
#[must_use]
pub fn passable(codec: OpaqueCodec, fmtp: &str) -> Option<String> {
    let mut text = String::new();
    for name in codec.parameters() {
        let Some(value) = value(fmtp, name) else { continue };
        let is_plain = |it: char| it.is_ascii_alphanumeric() || ",.- ".contains(it);
        if value.is_empty() || !value.chars().all(is_plain) {
            continue;
        }
        if !text.is_empty() {
            text.push(';');
        }
        text.extend([name, "="]);
        text.extend(value.chars().filter(|it| *it != ' '));
    }
    (!text.is_empty()).then_some(text)
}

/// The first value of a parameter.
fn value<'a>(fmtp: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = fmtp.split(';').filter_map(|part| part.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    Some(value.trim())
}

fn layout(codec: OpaqueCodec, fmtp: &str) -> Option<Layout> {
    let value = |wanted: &str| value(fmtp, wanted);
    let flag = |name: &str| match value(name) {
        None | Some("0") => Some(false),
        Some("1") => Some(true),
        Some(_) => None,
    };
    let no = |name: &str| value(name).is_some_and(|value| value.eq_ignore_ascii_case("no"));
    Some(match codec {
        OpaqueCodec::AmrWb | OpaqueCodec::Amr => {
            let interleaving = value("interleaving").map_or(Some(0), |it| it.parse().ok())?;
            let (crc, sorting) = (flag("crc")?, flag("robust-sorting")?);
            Layout::Amr {
                // RFC 4867 section 8.1: each of the three implies it.
                octet_align: flag("octet-align")? || crc || sorting || interleaving > 0,
                crc,
                sorting,
                interleaving,
                modes: modes(value("mode-set"))?,
            }
        }
        OpaqueCodec::G729 => Layout::Silence(!no("annexb")),
        OpaqueCodec::G723 => Layout::Silence(!no("annexa")),
        OpaqueCodec::Ilbc => match value("mode") {
            None | Some("30") => Layout::Mode(30),
            Some("20") => Layout::Mode(20),
            Some(_) => return None,
        },
        OpaqueCodec::Evs => Layout::Mode(u8::from(flag("hf-only")?)),
        OpaqueCodec::Speex => Layout::Plain,
    })
}

/// The modes of a `mode-set` as bits; all of them where nothing is said.
fn modes(value: Option<&str>) -> Option<u16> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Some(u16::MAX) };
    value.split(',').try_fold(0, |modes, mode| {
        let mode: u32 = mode.trim().parse().ok()?;
        Some(modes | 1u16.checked_shl(mode)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amr(fmtp: &str) -> Opaque {
        Opaque::of("amr-wb", 16_000, 1, Some(fmtp)).unwrap()
    }

    #[test]
    fn amr_goes_through_only_where_both_ends_lay_it_out_alike() {
        let aligned = amr("octet-align=1; mode-set=0,1,2");
        assert_eq!(aligned.agree(amr("mode-set=2,0,1;octet-align=1")), Some(aligned));
        assert_eq!(aligned.agree(amr("mode-set=0,1,2;crc=1;octet-align=1")), None);
        assert_eq!(aligned.agree(amr("mode-set=0,1,2")), None, "the layout differs");
        assert_eq!(aligned.agree(amr("octet-align=1;mode-set=0,1")), None, "a mode is missing");
        assert_eq!(aligned.agree(amr("octet-align=1")), None, "more modes than it may get");
        // What only tells what its owner likes is no hindrance.
        let plain = amr("");
        assert_eq!(plain.agree(amr("mode-change-capability=2;max-red=0")), Some(plain));
        let narrow = Opaque::of("AMR", 8_000, 1, None).unwrap();
        assert_eq!(narrow.agree(plain), None);
    }

    #[test]
    fn one_that_wants_no_frames_of_silence_gets_none() {
        let of = |fmtp| Opaque::of("G729", 8_000, 1, fmtp).unwrap();
        let (usual, bare) = (of(None), of(Some("annexb=no")));
        assert_eq!(of(Some("annexb=yes")), usual);
        assert_eq!(usual.agree(bare), Some(bare));
        assert_eq!(bare.agree(usual), Some(bare));
        assert_eq!(usual.agree(usual), Some(usual));
    }

    #[test]
    fn ilbc_takes_the_longer_frame() {
        let of = |fmtp| Opaque::of("iLBC", 8_000, 1, fmtp).unwrap();
        let (short, long) = (of(Some("mode=20")), of(None));
        assert_eq!(short.agree(long), Some(long));
        assert_eq!(short.agree(short), Some(short));
    }

    #[test]
    fn what_a_codec_cannot_have_is_no_format() {
        let of = |name: &str, clock, channels, fmtp| Opaque::of(name, clock, channels, fmtp);
        assert_eq!(of("AMR-WB", 8_000, 1, None), None);
        assert_eq!(of("AMR-WB", 16_000, 2, None), None);
        assert_eq!(of("PCMU", 8_000, 1, None), None);
        for wrong in ["mode-set=16", "mode-set=x", "octet-align=2", "interleaving=999", "crc="] {
            assert_eq!(of("AMR-WB", 16_000, 1, Some(wrong)), None, "{wrong}");
        }
        assert!(of("EVS", 16_000, 1, Some("br=5.9-24.4; bw=nb-swb")).is_some());
        assert!(of("speex", 32_000, 1, None).is_some() && of("G723", 8_000, 1, None).is_some());
    }

    #[test]
    fn only_the_codecs_own_parameters_go_on_and_not_too_many() {
        let pass = |fmtp: &str| passable(OpaqueCodec::AmrWb, fmtp);
        assert_eq!(
            pass("Octet-Align=1; x-site=10.1.2.3;mode-set=0,2 ;secret;crc=\"1\"").as_deref(),
            Some("octet-align=1;mode-set=0,2")
        );
        assert_eq!(pass("x=1"), None);
        assert_eq!(pass("crc=0; crc=1;mode-set=0, 1").as_deref(), Some("mode-set=0,1;crc=0"));
        let endless = "mode-set=0;".repeat(100);
        assert_eq!(Opaque::of("AMR-WB", 16_000, 1, Some(&endless)), None);
    }
}
