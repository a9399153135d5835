//! Texts to policy. Reading ([`read`]) finds what is no policy file; compiling ([`trunk`],
//! [`route`]) finds what contradicts itself; linting ([`lint`]) finds what is allowed but odd.
//! Every error of every file is reported at once.

mod digest;
mod lint;
mod read;
mod report;
mod route;
mod tls;
mod trunk;
mod uri;
mod zone;

use base::{TrunkName, limit};

use crate::file::DefaultsFile;
use crate::policy::{Policy, Source, fnv};
use crate::words::RefusalManner;
use base::diagnostic::{Errors, Warning};
use report::Report;

/// Loads a policy from its files, given as names and texts. The order of the files counts (the
/// first match wins), so give them sorted by name. `known_agents` are the voice agents of this
/// edge, where they are known: a route to another one is warned of.
///
/// Warnings that depend on the date are [`Policy::check_dates`].
///
/// # Errors
/// Every error of every file, up to the limit `policy.findings`.
pub fn load(
    files: &[(&str, &str)],
    known_agents: Option<&[&str]>,
) -> Result<(Policy, Vec<Warning>), Errors> {
    let sources: Vec<Source> = files
        .iter()
        .map(|(name, text)| Source { name: (*name).to_owned(), text: (*text).to_owned() })
        .collect();
    let mut report = Report::new(&sources);
    let mut read = read::read(&mut report);
    let defaults = read.defaults.take().unwrap_or_default();
    let zones = zone::compile(&mut report, &read.zones);
    let zone_names: Vec<&str> = read.zones.iter().map(|item| item.name.as_str()).collect();
    let from = trunk::Surroundings { defaults: &defaults, zones: &zone_names, compiled: &zones };
    trunk::check_defaults(&mut report, &from);

    // Routes name trunks by their place in this list, so it also holds those with errors.
    let names: Vec<TrunkName> = read.trunks.iter().map(|it| TrunkName::new(&it.name)).collect();
    let trunks: Vec<_> =
        read.trunks.iter().map(|item| trunk::compile(&mut report, item, &from)).collect();
    let callees = names.iter().zip(&trunks).map(|(name, trunk)| route::Callee {
        name: name.as_str(),
        can_be_dialled: trunk.as_ref().is_none_or(|trunk| !trunk.send_to.is_empty()),
        is_browsers: trunk.as_ref().is_some_and(|trunk| trunk.is_browsers),
    });
    let mut callees: Vec<_> = callees.collect();
    trunk::check_browsers(&mut report, &read.trunks, &mut callees);
    let routes: Vec<_> =
        read.routes.iter().map(|item| route::compile(&mut report, item, &callees)).collect();
    drop(callees);

    let (Some(trunks), Some(routes)) = (trunks.into_iter().collect(), routes.into_iter().collect())
    else {
        return Err(report.into_errors());
    };
    let parts: Vec<&[u8]> =
        files.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]).collect();
    let policy = Policy {
        version: 0,
        fingerprint: fnv(&parts),
        trunks,
        routes,
        zones,
        strangers: defaults.refuse.unwrap_or(RefusalManner::Answer),
        sources: sources.clone().into(),
    };
    lint::lint(&mut report, &policy, &read, known_agents);
    report.finish().map(|warnings| (policy, warnings))
}

/// The `[defaults]` of all files, and where they stand.
#[derive(Debug, Default)]
pub(crate) struct Defaults {
    file: usize,
    values: DefaultsFile,
}

impl std::ops::Deref for Defaults {
    type Target = DefaultsFile;
    fn deref(&self) -> &DefaultsFile {
        &self.values
    }
}

/// Whether there are more than a limit allows.
fn is_over(count: usize, limit: &base::Limit) -> bool {
    count > limit.get()
}

/// What a load reports at most.
const FINDINGS: usize = limit::POLICY_FINDINGS.get();
