//! What may stand in a scenario file, as types. What the keys mean is in
//! `benches/scenarios/README.md`; what they amount to is in [`super::compile`].

use serde::Deserialize;
use toml::Spanned;

/// A text with its place in the file.
pub(super) type Text = Spanned<String>;

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScenarioFile {
    pub(super) name: Option<Text>,
    pub(super) description: Option<String>,
    pub(super) seed: Option<u64>,
    pub(super) target: Option<TargetFile>,
    pub(super) limits: Option<LimitsFile>,
    #[serde(default)]
    pub(super) stage: Vec<Spanned<StageFile>>,
    #[serde(default)]
    pub(super) caller: Vec<Spanned<CallerFile>>,
    pub(super) callee: Option<Spanned<CalleeFile>>,
    #[serde(default)]
    pub(super) actor: Vec<Spanned<ActorFile>>,
    #[serde(default)]
    pub(super) expect: Vec<Text>,
}

/// `[target]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetFile {
    pub(super) to: Option<Text>,
    pub(super) from: Option<Text>,
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<Text>,
    pub(super) key: Option<Text>,
    pub(super) server_name: Option<String>,
    pub(super) danger_accept_any_certificate: Option<bool>,
    pub(super) connections: Option<Spanned<u32>>,
    pub(super) token_env: Option<Text>,
    pub(super) token_file: Option<Text>,
    pub(super) media_address: Option<Text>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsFile {
    pub(super) calls: Option<Spanned<u32>>,
    pub(super) concurrency: Option<Spanned<u32>>,
    pub(super) duration: Option<Text>,
    pub(super) setup_timeout: Option<Text>,
    pub(super) media_threads: Option<Spanned<u32>>,
}

/// `[[stage]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageFile {
    pub(super) rate: Spanned<f64>,
    pub(super) to: Option<Spanned<f64>>,
    pub(super) steps: Option<Spanned<u32>>,
    #[serde(rename = "for")]
    pub(super) time: Text,
}

/// `[[caller]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallerFile {
    pub(super) name: Option<Text>,
    pub(super) weight: Option<Spanned<u32>>,
    pub(super) to: Option<Text>,
    pub(super) from: Option<Text>,
    pub(super) codecs: Option<Vec<Text>>,
    pub(super) ptime: Option<Spanned<u16>>,
    pub(super) every: Option<Text>,
    pub(super) media: Option<Text>,
    pub(super) suites: Option<Vec<Text>>,
    pub(super) late_offer: Option<bool>,
    pub(super) rtcp_mux: Option<bool>,
    pub(super) say: Option<Vec<Text>>,
    pub(super) say_after: Option<Text>,
    pub(super) pause: Option<Text>,
    pub(super) once: Option<bool>,
    pub(super) talk: Option<Text>,
    pub(super) hang_up: Option<Text>,
    pub(super) cause: Option<Text>,
    pub(super) cancel_after: Option<Text>,
    pub(super) keys: Option<KeysFile>,
    pub(super) on_hold: Option<OnHoldFile>,
}

/// `keys = { .. }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysFile {
    pub(super) digits: Text,
    pub(super) form: Option<Text>,
    pub(super) after: Option<Text>,
}

/// `on_hold = { .. }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnHoldFile {
    pub(super) after: Text,
    #[serde(rename = "for")]
    pub(super) time: Text,
}

/// `[callee]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CalleeFile {
    pub(super) listen: Option<Text>,
    pub(super) transport: Option<Text>,
    pub(super) certificate: Option<Text>,
    pub(super) key: Option<Text>,
    pub(super) authority: Option<String>,
    #[serde(default)]
    pub(super) kind: Vec<Spanned<CalleeKindFile>>,
}

/// `[[callee.kind]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CalleeKindFile {
    pub(super) name: Option<Text>,
    pub(super) weight: Option<Spanned<u32>>,
    pub(super) ring_after: Option<Text>,
    pub(super) early_media: Option<bool>,
    pub(super) answer_after: Option<Text>,
    pub(super) refuse: Option<Spanned<u16>>,
    pub(super) never_answer: Option<bool>,
    pub(super) hang_up_after: Option<Text>,
    pub(super) cause: Option<Text>,
    pub(super) codecs: Option<Vec<Text>>,
    pub(super) ptime: Option<Spanned<u16>>,
    pub(super) every: Option<Text>,
    pub(super) media: Option<Text>,
    pub(super) suites: Option<Vec<Text>>,
    pub(super) say: Option<Vec<Text>>,
    pub(super) say_after: Option<Text>,
    pub(super) pause: Option<Text>,
    pub(super) once: Option<bool>,
}

/// `[[actor]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActorFile {
    pub(super) kind: Text,
    pub(super) name: Option<Text>,
    pub(super) start: Option<Text>,
    #[serde(rename = "for")]
    pub(super) time: Option<Text>,
    pub(super) rate: Option<Spanned<f64>>,
    pub(super) count: Option<Spanned<u32>>,
    pub(super) to: Option<Text>,
    pub(super) caller: Option<Text>,
    pub(super) from: Option<Text>,
    pub(super) before: Option<Text>,
    pub(super) allow: Option<Vec<Text>>,
}
