//! The voice agents' files: `NAME.toml` in one directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use agent::Flow;
use base::Diagnostic;
use call::AgentCard;
use media::BargeIn;

/// The voice agents by name.
pub type Agents = BTreeMap<String, Arc<Flow>>;

/// Reads every `*.toml` in `directory`.
///
/// # Errors
/// Everything wrong with any of them; a directory that cannot be read is one finding.
pub fn load(directory: &Path) -> Result<Agents, Vec<Diagnostic>> {
    let mut agents = Agents::new();
    let mut found = Vec::new();
    let unreadable = |path: &Path, error: &std::io::Error| {
        let text = path.display().to_string();
        Diagnostic::new(&text, &text, &(0..text.len()), format!("cannot be read: {error}"), None)
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return Err(vec![unreadable(directory, &error)]),
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let (Some(name), true) = (stem, path.extension().is_some_and(|it| it == "toml")) else {
            continue;
        };
        let compiled = std::fs::read_to_string(&path)
            .map_err(|error| vec![unreadable(&path, &error)])
            .and_then(|text| agent::file::compile(&path.display().to_string(), &text));
        match compiled {
            Ok(flow) => {
                agents.insert(name.to_owned(), Arc::new(flow));
            }
            Err(diagnostics) => found.extend(diagnostics),
        }
    }
    if found.is_empty() { Ok(agents) } else { Err(found) }
}

/// What calls need to know of them.
#[must_use]
pub fn cards(agents: &Agents) -> BTreeMap<String, AgentCard> {
    agents
        .iter()
        .map(|(name, flow)| {
            let card = AgentCard {
                recording: flow.recording,
                transcript: flow.transcript,
                barge_in: flow.barge_in.then(BargeIn::default),
            };
            (name.clone(), card)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_voice_agents_compile() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/agents");
        let agents = load(&directory).unwrap_or_else(|errors| panic!("{}", errors[0]));
        assert!(cards(&agents)["reception"].barge_in.is_some());
    }

    #[test]
    fn a_directory_that_is_not_there_is_one_finding() {
        assert_eq!(load(Path::new("/nonexistent")).unwrap_err().len(), 1);
    }
}
