//! The closed sets of words that a policy is written in. A word that is not here is a load error.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident $word:literal,)* })*) => {
        $($(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            JsonSchema,
        )]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every word of the set.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word, as written in files and shown to people.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.word())
            }
        })*
    };
}

words! {
    /// How a SIP message arrives or leaves.
    Transport {
        /// UDP, plaintext.
        Udp "udp",
        /// TCP, plaintext.
        Tcp "tcp",
        /// TLS over TCP.
        Tls "tls",
        /// WebSocket, plaintext.
        Ws "ws",
        /// WebSocket over TLS.
        Wss "wss",
        /// WHIP, over HTTPS.
        Whip "whip",
    }
    /// An audio codec.
    Codec {
        /// Opus (RFC 7587).
        Opus "opus",
        /// G.722 (RFC 3551).
        G722 "g722",
        /// G.711 A-law.
        Pcma "pcma",
        /// G.711 mu-law.
        Pcmu "pcmu",
        /// AMR-WB (RFC 4867); forwarded between two trunks, never decoded.
        AmrWb "amr-wb",
        /// AMR (RFC 4867); forwarded, never decoded.
        Amr "amr",
        /// EVS (3GPP TS 26.445); forwarded, never decoded.
        Evs "evs",
        /// G.729 with its annexes A and B; forwarded, never decoded.
        G729 "g729",
        /// G.723.1; forwarded, never decoded.
        G723 "g723",
        /// iLBC (RFC 3952); forwarded, never decoded.
        Ilbc "ilbc",
        /// Speex (RFC 5574); forwarded, never decoded.
        Speex "speex",
    }
    /// An SRTP crypto suite, named as in an `a=crypto` line.
    Suite {
        /// AES-256-GCM (RFC 7714).
        AeadAes256Gcm "AEAD_AES_256_GCM",
        /// AES-128-GCM (RFC 7714).
        AeadAes128Gcm "AEAD_AES_128_GCM",
        /// AES-128 counter mode, 80-bit tag (RFC 4568).
        AesCm128HmacSha1_80 "AES_CM_128_HMAC_SHA1_80",
        /// AES-128 counter mode, 32-bit tag (RFC 4568).
        AesCm128HmacSha1_32 "AES_CM_128_HMAC_SHA1_32",
    }
    /// Whether a leg's media must be SRTP.
    Protection {
        /// SRTP or no call.
        Required "required",
        /// SRTP where the peer can, plain RTP where it cannot: a running exemption says so.
        Optional "optional",
    }
    /// How keys pressed in a call reach us, in order of preference.
    DtmfMethod {
        /// RTP events (RFC 4733).
        Rfc4733 "rfc4733",
        /// SIP INFO bodies.
        Info "info",
        /// Tones in the audio.
        Inband "inband",
    }
    /// Whether something said in a call may be kept; the most restrictive of trunk, call and voice
    /// agent wins.
    Keep {
        /// Never, whatever the voice agent says.
        Never "never",
        /// If the voice agent's own switch is on.
        Allowed "allowed",
    }
    /// Whether a trunk may carry its other party to somebody else (REFER).
    Transfer {
        /// The edge dials the new party itself, by the routes that the trunk could use.
        Edge "edge",
        /// The other party is asked to call the new one, through the edge again.
        Pass "pass",
        /// It may not.
        Refuse "refuse",
    }
    /// What callers of a trunk get while the telephone of whom they call rings.
    RingBack {
        /// The 180 alone: their own side makes the tone.
        Signal "signal",
        /// A tone that is made here, as early media with a 183.
        Tone "tone",
    }
    /// What does the DTLS handshakes of a trunk.
    DtlsLibrary {
        /// `dimpl`: DTLS 1.2 and 1.3, cheap; no peer with an RSA certificate.
        Dimpl "dimpl",
        /// `webrtc-dtls`: DTLS 1.2 only; peers with RSA certificates too.
        WebrtcDtls "webrtc-dtls",
    }
    /// How a peer that is not admitted is refused.
    RefusalManner {
        /// With a SIP answer.
        Answer "answer",
        /// With nothing at all.
        Silent "silent",
    }
    /// What an exemption lifts.
    Exempted {
        /// The rule that signalling is encrypted.
        Signalling "signalling",
        /// The rule that media is encrypted.
        Media "media",
    }
}

impl Codec {
    /// What is used where nothing is said: what is decoded here.
    pub const DEFAULT: [Self; 4] = [Self::Opus, Self::G722, Self::Pcma, Self::Pcmu];

    /// Whether it only goes through, undecoded, to a party that has it too.
    #[must_use]
    pub fn is_opaque(self) -> bool {
        !Self::DEFAULT.contains(&self)
    }
}

impl Transport {
    /// Whether it is the edge's own HTTPS port, where everybody has proved who they are.
    #[must_use]
    pub const fn is_browsers(self) -> bool {
        matches!(self, Self::Wss | Self::Whip)
    }

    /// Whether anybody on the way can read it.
    #[must_use]
    pub const fn is_plaintext(self) -> bool {
        matches!(self, Self::Udp | Self::Tcp | Self::Ws)
    }
}

impl RingBack {
    /// What is usual.
    pub(crate) const fn usual() -> Self {
        Self::Signal
    }

    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::usual()
    }
}

impl DtlsLibrary {
    /// What is usual.
    pub(crate) const fn usual() -> Self {
        Self::Dimpl
    }

    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::usual()
    }
}

impl Default for Transfer {
    /// A decision that was stored before the word existed let nobody transfer.
    fn default() -> Self {
        Self::Refuse
    }
}
