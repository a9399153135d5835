//! Sentences for `callgate load --say`, spoken by the same helper that the voice agents use.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use agent::provider::{ProviderEvent, ProviderSink, Speaker as _, SpeechId};
use anyhow::{Context as _, bail};
use base::CallId;
use providers::{EmbeddedSpeech, EmbeddedSpeechConfig};

/// How long one sentence may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pieces of speech that may wait.
const PIECES: usize = 1_024;

struct ToChannel(SyncSender<ProviderEvent>);

impl ProviderSink for ToChannel {
    fn deliver(&self, _: CallId, event: ProviderEvent) {
        // A sentence that takes longer than its patience is not waited for any more.
        let _ = self.0.try_send(event);
    }
}

/// Each sentence as 16 kHz PCM.
pub(crate) fn all<'a>(
    sentences: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<Vec<Arc<[i16]>>> {
    let config = EmbeddedSpeechConfig { helper: None, processes: 1 };
    let speech = EmbeddedSpeech::start(config, Box::new(|_| {}))
        .context("the speech helper (callgate-speech) does not start")?;
    sentences.into_iter().map(|sentence| one(&speech, sentence)).collect()
}

fn one(speech: &EmbeddedSpeech, sentence: &str) -> anyhow::Result<Arc<[i16]>> {
    let (sender, pieces) = sync_channel(PIECES);
    let call = CallId::from_bytes([0; 12]);
    speech.speak(call, SpeechId(1), sentence, "", Arc::new(ToChannel(sender)))?;
    collect(&pieces).with_context(|| format!("\"{sentence}\" cannot be spoken"))
}

fn collect(pieces: &Receiver<ProviderEvent>) -> anyhow::Result<Arc<[i16]>> {
    let mut samples = Vec::new();
    loop {
        match pieces.recv_timeout(PATIENCE)? {
            ProviderEvent::Speech { samples: piece, last, .. } => {
                samples.extend_from_slice(&piece);
                if last {
                    return Ok(samples.into());
                }
            }
            ProviderEvent::Failed { .. } => bail!("the speech helper failed"),
            _ => {}
        }
    }
}
