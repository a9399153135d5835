//! One load: places each call when it is due, within its bounds, and adds up what came of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::progress::Progress;
use crate::report::Report;
pub use crate::tls::TlsError;
