//! Speech that was made before: greetings and menus are the same for every caller. In memory
//! only, at most `provider.cache_bytes`; what was not used for longest goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::limit;
use speech::protocol::Voice;

/// The cache. Its keys and values are what agents say, so it has no `Debug`.
#[derive(Default)]
pub(crate) struct SpeechCache {
    kept: BTreeMap<(Voice, String), Kept>,
    bytes: usize,
    uses: u64,
}

struct Kept {
    samples: Arc<[i16]>,
    /// Counts up with each use of any entry.
    used: u64,
}

impl SpeechCache {
    /// What was kept of `text` in `voice`.
    pub(crate) fn find(&mut self, voice: Voice, text: &str) -> Option<Arc<[i16]>> {
        self.uses += 1;
        let kept = self.kept.get_mut(&(voice, text.to_owned()))?;
        kept.used = self.uses;
        Some(Arc::clone(&kept.samples))
    }

    /// Keeps `samples`, unless they are too long to be worth it ([`longest`]).
    pub(crate) fn keep(&mut self, voice: Voice, text: String, samples: Arc<[i16]>) {
        if samples.len() > longest() {
            return;
        }
        self.uses += 1;
        let added = size(&text, &samples);
        let kept = Kept { samples, used: self.uses };
        if let Some(old) = self.kept.insert((voice, text.clone()), kept) {
            self.bytes -= size(&text, &old.samples);
        }
        self.bytes += added;
        while self.bytes > limit::PROVIDER_CACHE_BYTES.get() {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            if let Some(kept) = self.kept.remove(&key) {
                self.bytes -= size(&key.1, &kept.samples);
            }
        }
    }
}

/// The most samples of one entry: an eighth of the cache.
pub(crate) const fn longest() -> usize {
    limit::PROVIDER_CACHE_BYTES.get() / size_of::<i16>() / 8
}

fn size(text: &str, samples: &[i16]) -> usize {
    text.len() + size_of_val(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(value: i16) -> Arc<[i16]> {
        vec![value; 16_000].into()
    }

    #[test]
    fn a_text_is_found_in_its_voice_only() {
        let mut cache = SpeechCache::default();
        cache.keep(Voice::Slt, "hello".into(), second(1));
        assert_eq!(cache.find(Voice::Slt, "hello"), Some(second(1)));
        assert_eq!(cache.find(Voice::Kal, "hello"), None);
        assert_eq!(cache.find(Voice::Slt, "goodbye"), None);
    }

    #[test]
    fn the_longest_unused_goes_when_room_runs_out() {
        let mut cache = SpeechCache::default();
        cache.keep(Voice::Slt, "greeting".into(), second(1));
        for i in 0..5_000 {
            cache.keep(Voice::Slt, i.to_string(), second(2));
            assert!(cache.find(Voice::Slt, "greeting").is_some(), "{i}");
            assert!(cache.bytes <= limit::PROVIDER_CACHE_BYTES.get());
        }
        assert_eq!(cache.find(Voice::Slt, "0"), None);
        let bytes: usize = cache.kept.iter().map(|(key, it)| size(&key.1, &it.samples)).sum();
        assert_eq!(bytes, cache.bytes);
    }

    #[test]
    fn a_text_that_is_kept_twice_counts_once_and_a_very_long_one_not_at_all() {
        let mut cache = SpeechCache::default();
        cache.keep(Voice::Slt, "hello".into(), second(1));
        cache.keep(Voice::Slt, "hello".into(), second(2));
        cache.keep(Voice::Slt, "long".into(), vec![0; longest() + 1].into());
        assert_eq!(cache.find(Voice::Slt, "hello"), Some(second(2)));
        assert_eq!((cache.kept.len(), cache.bytes), (1, 32_005));
    }
}
