//! One `[[route]]`.

use std::ops::Range;

use base::{VoiceAgentName, limit};

use super::read::Item;
use super::report::Report;
use crate::decision::Forbids;
use crate::file::{At, PatternFile, RefuseFile, RouteFile, SendToFile};
use crate::matching::{Pattern, When};
use crate::policy::{Action, Route, Share};
use crate::statuses::Statuses;
use base::diagnostic::suggest;

/// The statuses that a route may refuse with: those that tell a caller something about the number,
/// not about this edge.
const STATUSES: &[u16] = &[403, 404, 410, 480, 484, 486, 488, 600, 603, 604, 607, 608];

/// The largest weight: parts of a thousand are finer than anybody balances calls.
const WEIGHT: u32 = 1000;

/// A trunk as routes see it.
pub(super) struct Callee<'a> {
    pub(super) name: &'a str,
    pub(super) can_be_dialled: bool,
    pub(super) is_browsers: bool,
}

/// Makes a pattern of the value of a key.
type Make = fn(String) -> Pattern;

struct Compile<'r, 'a> {
    report: &'r mut Report<'a>,
    file: usize,
    trunks: &'r [Callee<'r>],
}

/// Compiles one route; `None` where something in it was reported as an error.
pub(super) fn compile(
    report: &mut Report<'_>,
    item: &Item<RouteFile>,
    trunks: &[Callee<'_>],
) -> Option<Route> {
    let file = item.value.as_ref()?;
    let errors_before = report.errors();
    let place = report.place(item);
    let mut compile = Compile { report, file: item.file, trunks };
    let when = compile.when(file);
    let action = compile.action(item, file);
    let failover = compile.failover(file);
    let record = compile.record(file, action.as_ref());
    let forbids = compile.forbids(file, action.as_ref());
    let route = Route {
        name: file.name.as_ref().map(|name| (**name).clone()),
        when,
        action: action?,
        failover,
        record,
        forbids,
        place,
    };
    (report.errors() == errors_before).then_some(route)
}

impl Compile<'_, '_> {
    fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.report.error(self.file, span, message, help);
    }

    fn record(&mut self, file: &RouteFile, action: Option<&Action>) -> bool {
        let Some(record) = file.record.as_ref().filter(|record| ***record) else { return false };
        if !matches!(action, Some(Action::Trunks(_) | Action::Account { .. }) | None) {
            let help = "with a voice agent, its own `recording` decides";
            self.error(record.span(), "only calls to trunks are recorded by a route", help);
        }
        true
    }

    fn forbids(&mut self, file: &RouteFile, action: Option<&Action>) -> Forbids {
        let forbids = |key: &Option<At<bool>>| key.as_ref().is_some_and(|key| !**key);
        if let Some(transcript) = &file.transcript {
            if !matches!(action, Some(Action::Agent(_)) | None) {
                let help = "remove `transcript`";
                let message = "only calls to voice agents have a transcript";
                self.error(transcript.span(), message, help);
            } else if **transcript {
                let help = "remove it: trunk and voice agent decide; `false` forbids";
                self.error(transcript.span(), "a route can only forbid a transcript", help);
            }
        }
        Forbids { recording: forbids(&file.record), transcript: forbids(&file.transcript) }
    }

    fn when(&mut self, file: &RouteFile) -> When {
        let Some(when) = &file.when else { return When::default() };
        When {
            trunk: when.trunk.as_ref().and_then(|name| self.trunk(name)),
            transport: when.transport,
            called: self.patterns(when.called.as_ref()),
            caller: self.patterns(when.caller.as_ref()),
        }
    }

    fn patterns(&mut self, file: Option<&At<PatternFile>>) -> Vec<Pattern> {
        let Some(file) = file else { return Vec::new() };
        let keys: [(&Option<At<String>>, Make); 4] = [
            (&file.exact, Pattern::Exact),
            (&file.prefix, Pattern::Prefix),
            (&file.user, Pattern::User),
            (&file.pattern, Pattern::Glob),
        ];
        let mut patterns = Vec::new();
        for (value, pattern) in keys {
            let Some(value) = value else { continue };
            if value.is_empty() || value.len() > limit::POLICY_PATTERN_BYTES.get() {
                let most = limit::POLICY_PATTERN_BYTES.value;
                let help = format!("1 to {most} bytes (limit policy.pattern_bytes)");
                self.error(value.span(), "this matches nothing sensible", &help);
            }
            patterns.push(pattern((**value).clone()));
        }
        if patterns.is_empty() {
            let help = "add `exact`, `prefix`, `user` or `pattern`, or remove the condition";
            self.error(file.span(), "the condition is empty", help);
        }
        patterns
    }

    fn action(&mut self, item: &Item<RouteFile>, file: &RouteFile) -> Option<Action> {
        match (&file.send_to, &file.refuse) {
            (Some(send_to), None) => self.send_to(send_to),
            (None, Some(refuse)) => self.refuse(refuse),
            (None, None) => {
                let help = "add `send_to = { agent = \"...\" }` or `refuse = { status = 603 }`";
                self.error(item.name_span.clone(), "the route does nothing", help);
                None
            }
            (Some(_), Some(refuse)) => {
                let message = "a route either sends or refuses";
                self.error(refuse.span(), message, "remove `refuse` or `send_to`");
                None
            }
        }
    }

    /// After what the next trunk is tried.
    fn failover(&mut self, file: &RouteFile) -> Vec<Statuses> {
        let Some(list) = &file.failover else { return Statuses::USUAL.to_vec() };
        let to = file.send_to.as_deref();
        if to.is_none_or(|to| to.trunk.is_none() && to.trunks.is_none()) {
            let help = "remove it, or send the calls to trunks";
            self.error(list.span(), "there is no trunk to go on from", help);
        }
        for statuses in list.iter() {
            if let Some(why) = statuses.why_never() {
                let message = format!("no other trunk is tried after {}", **statuses);
                self.error(statuses.span(), message, &format!("remove it: {why}"));
            }
        }
        list.iter().map(|statuses| **statuses).collect()
    }

    fn refuse(&mut self, refuse: &At<RefuseFile>) -> Option<Action> {
        let Some(status) = &refuse.status else { return Some(Action::Refuse(603)) };
        if !STATUSES.contains(status) {
            let known: Vec<String> = STATUSES.iter().map(u16::to_string).collect();
            let help = format!("use one of {}", known.join(", "));
            let message = format!("a route cannot refuse with {}", **status);
            self.error(status.span(), message, &help);
            return None;
        }
        Some(Action::Refuse(**status))
    }

    fn send_to(&mut self, file: &At<SendToFile>) -> Option<Action> {
        match (&file.agent, &file.trunk, &file.trunks, &file.account, &file.accounts) {
            (Some(agent), None, None, None, None) if agent.is_empty() => {
                self.error(agent.span(), "the voice agent has no name", "");
                None
            }
            (Some(agent), None, None, None, None) => {
                Some(Action::Agent(VoiceAgentName::new(agent)))
            }
            (None, Some(trunk), None, None, None) => {
                Some(Action::Trunks(vec![Share { trunk: self.callee(trunk)?, weight: 0 }]))
            }
            (None, None, None, Some(account), None) => self.account(account),
            (None, None, None, None, Some(accounts)) => self.accounts(accounts),
            (None, None, Some(list), None, None) => {
                if list.is_empty() {
                    self.error(list.span(), "the list is empty", "name at least one trunk");
                }
                let mut shares: Vec<Share> = Vec::new();
                for share in list.iter() {
                    let trunk = self.callee(&share.name)?;
                    if shares.iter().any(|other| other.trunk == trunk) {
                        let message = format!("trunk `{}` is listed twice", *share.name);
                        self.error(share.name.span(), message, "");
                    }
                    let weight = share.weight.as_ref().map_or(0, |weight| **weight);
                    if let Some(given) = &share.weight
                        && !(1..=WEIGHT).contains(&weight)
                    {
                        let help = format!("1 to {WEIGHT}; leave it out for failover only");
                        self.error(given.span(), "the weight is out of range", &help);
                    }
                    shares.push(Share { trunk, weight });
                }
                Some(Action::Trunks(shares))
            }
            _ => {
                let help = "give exactly one of `agent`, `trunk`, `trunks`, `account` and \
                            `accounts`";
                self.error(file.span(), "where does the call go?", help);
                None
            }
        }
    }

    fn account(&mut self, name: &At<String>) -> Option<Action> {
        let is_odd = |it: char| it.is_control() || it.is_whitespace();
        if name.is_empty()
            || name.len() > limit::POLICY_PATTERN_BYTES.get()
            || name.contains(is_odd)
        {
            self.error(name.span(), "this names no account", "write it as it was made");
            return None;
        }
        let trunk = self.browsers(name.span())?;
        Some(Action::Account { trunk, name: Some((**name).clone()) })
    }

    fn accounts(&mut self, wanted: &At<bool>) -> Option<Action> {
        if !**wanted {
            let help = "write `accounts = true`, or name another place";
            self.error(wanted.span(), "where does the call go?", help);
            return None;
        }
        let trunk = self.browsers(wanted.span())?;
        Some(Action::Account { trunk, name: None })
    }

    /// The trunk whose terms calls to accounts have.
    fn browsers(&mut self, span: Range<usize>) -> Option<usize> {
        let found = self.trunks.iter().position(|trunk| trunk.is_browsers);
        if found.is_none() {
            let help = "add a trunk with `from = { browsers = true }`, whose terms they get";
            self.error(span, "no trunk is for accounts", help);
        }
        found
    }

    /// A trunk that calls can go to.
    fn callee(&mut self, name: &At<String>) -> Option<usize> {
        let index = self.trunk(name)?;
        if self.trunks.get(index).is_some_and(|trunk| !trunk.can_be_dialled) {
            let message = format!("trunk `{}` has no `send_to`", **name);
            self.error(name.span(), message, "say at the trunk where it is dialled");
        }
        Some(index)
    }

    fn trunk(&mut self, name: &At<String>) -> Option<usize> {
        let found = self.trunks.iter().position(|trunk| trunk.name == name.as_str());
        if found.is_none() {
            let names: Vec<&str> = self.trunks.iter().map(|trunk| trunk.name).collect();
            let help = suggest(name, &names);
            let message = format!("there is no trunk `{}`", **name);
            self.report.error(self.file, name.span(), message, help);
        }
        found
    }
}
