//! The JSON Schema of a policy file, for editors: `policies/schema.json`.

use crate::file::PolicyFile;

/// The schema of a policy file, as pretty JSON with a newline at its end.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::schema_for!(PolicyFile);
    // A schema is a tree of JSON values already, so that writing it cannot fail.
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text + "\n"
}
