//! Where this member's tests keep their vault.

use std::path::Path;

use base::WorkspaceId;
use vault::{Retention, VaultConfig};

/// A vault within a folder of the test.
pub(crate) fn config(folder: &Path) -> VaultConfig {
    VaultConfig {
        data: folder.join("data"),
        key_file: folder.join("keys/vault.key"),
        audit_heads: folder.join("heads"),
        workspace: WorkspaceId::new("default"),
        retention: Retention::default(),
    }
}
