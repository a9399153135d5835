//! What a route asks of a call, and which of it the call failed.

use crate::words::Transport;

/// The conditions of a route; all that are given must hold. `trunk` is an index into the policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct When {
    pub(crate) trunk: Option<usize>,
    pub(crate) transport: Option<Transport>,
    pub(crate) called: Vec<Pattern>,
    pub(crate) caller: Vec<Pattern>,
}

/// One condition on a number or user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// The normalised form is this.
    Exact(String),
    /// The normalised form begins with this.
    Prefix(String),
    /// The form before normalisation is this.
    User(String),
    /// The normalised form fits this: `*` stands for any run, `?` for any one character.
    Glob(String),
}

/// A number or user in both forms.
#[derive(Clone, Debug)]
pub(crate) struct Party<'a> {
    pub(crate) dialled: &'a str,
    pub(crate) normalised: String,
}

/// A call as routes see it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) trunk: usize,
    pub(crate) transport: Transport,
    pub(crate) called: Party<'a>,
    pub(crate) caller: Party<'a>,
}

/// The first condition of a route that a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteMismatch<'p> {
    Trunk(usize),
    Transport(Transport),
    Called(&'p Pattern),
    Caller(&'p Pattern),
}

impl When {
    /// Whether the call fulfils every condition.
    pub(crate) fn check(&self, call: &Candidate<'_>) -> Result<(), RouteMismatch<'_>> {
        if let Some(trunk) = self.trunk.filter(|trunk| *trunk != call.trunk) {
            return Err(RouteMismatch::Trunk(trunk));
        }
        if let Some(transport) = self.transport.filter(|it| *it != call.transport) {
            return Err(RouteMismatch::Transport(transport));
        }
        if let Some(failed) = self.called.iter().find(|pattern| !pattern.fits(&call.called)) {
            return Err(RouteMismatch::Called(failed));
        }
        if let Some(failed) = self.caller.iter().find(|pattern| !pattern.fits(&call.caller)) {
            return Err(RouteMismatch::Caller(failed));
        }
        Ok(())
    }

    /// How many conditions there are.
    pub(crate) fn count(&self) -> usize {
        let patterns = self.called.len() + self.caller.len();
        usize::from(self.trunk.is_some()) + usize::from(self.transport.is_some()) + patterns
    }

    /// How many conditions the call fails.
    pub(crate) fn misses(&self, call: &Candidate<'_>) -> usize {
        let failed = |patterns: &[Pattern], party: &Party<'_>| {
            patterns.iter().filter(|pattern| !pattern.fits(party)).count()
        };
        usize::from(self.trunk.is_some_and(|trunk| trunk != call.trunk))
            + usize::from(self.transport.is_some_and(|it| it != call.transport))
            + failed(&self.called, &call.called)
            + failed(&self.caller, &call.caller)
    }

    /// Whether every call that fulfils `other` surely fulfils this one too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let within = |mine: &[Pattern], theirs: &[Pattern]| {
            mine.iter().all(|mine| theirs.iter().any(|theirs| mine.covers(theirs)))
        };
        (self.trunk.is_none() || self.trunk == other.trunk)
            && (self.transport.is_none() || self.transport == other.transport)
            && within(&self.called, &other.called)
            && within(&self.caller, &other.caller)
    }
}

impl Pattern {
    pub(crate) fn fits(&self, party: &Party<'_>) -> bool {
        match self {
            Self::Exact(wanted) => party.normalised == *wanted,
            Self::Prefix(wanted) => party.normalised.starts_with(wanted.as_str()),
            Self::User(wanted) => party.dialled == wanted,
            Self::Glob(wanted) => glob(wanted, &party.normalised),
        }
    }

    /// Whether everything that fits `other` surely fits this. A `User` is seen before
    /// normalisation, so nothing else follows from it.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(mine), Self::Exact(theirs)) | (Self::User(mine), Self::User(theirs)) => {
                mine == theirs
            }
            (Self::Prefix(mine), Self::Exact(theirs) | Self::Prefix(theirs)) => {
                theirs.starts_with(mine.as_str())
            }
            (Self::Glob(mine), Self::Exact(theirs)) => glob(mine, theirs),
            (Self::Glob(mine), _) if mine == "*" => true,
            (Self::Glob(mine), Self::Glob(theirs)) => mine == theirs,
            _ => false,
        }
    }

    /// The key of the file.
    pub(crate) const fn key(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::User(_) => "user",
            Self::Glob(_) => "pattern",
        }
    }

    /// The value in the file.
    pub(crate) fn value(&self) -> &str {
        match self {
            Self::Exact(it) | Self::Prefix(it) | Self::User(it) | Self::Glob(it) => it,
        }
    }
}

/// Matches with one point to go back to, so that the time is at most the product of the lengths,
/// both of which are bounded (`sip.uri_bytes`, `policy.pattern_bytes`).
fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                seen = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_runs_and_single_characters() {
        for (pattern, text) in
            [("*", ""), ("+1800*", "+18005550100"), ("?00", "100"), ("a*b*c", "axxbxbc"), ("", "")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("+1800*", "+1900"), ("?00", "00"), ("a*b", "acd"), ("", "a")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_wider_route_covers_a_narrower_one_and_not_the_reverse() {
        let wide = When { called: vec![Pattern::Prefix("+1".into())], ..When::default() };
        let narrow = When {
            trunk: Some(0),
            called: vec![Pattern::Exact("+15550100".into())],
            ..When::default()
        };
        assert!(wide.covers(&narrow) && When::default().covers(&wide));
        assert!(!narrow.covers(&wide) && !wide.covers(&When::default()));
        let user = When { called: vec![Pattern::User("+15550100".into())], ..When::default() };
        assert!(!wide.covers(&user), "before normalisation the number may be another one");
    }
}
