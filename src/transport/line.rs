//! How trunks are dialled: which side of ours, who proves what to whom. Files are read when a
//! policy is loaded, so that a bad one is an error of the policy and not of a call.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;
use base::TrunkName;
use rustls::client::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, version};
use rustls_pki_types::CertificateDer;
use sip::{Host, Uri};

use crate::config::Ingress;
use crate::flow::Transport;
use crate::proof::{Judge, Trust, Wanted, may_be_client};
use crate::resolve::Family;
use crate::tls::{CertificatesError, Tls, read_authorities, read_certificates, read_key};

/// How a trunk is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The trunk.
    pub trunk: TrunkName,
    /// The URIs that lead to it: while all of them fail, the trunk is down.
    pub send_to: Vec<String>,
    /// Our listeners at the trunk's side of the network. Connections to it come from the address
    /// of one of them, where that is one, and name its port as ours.
    pub listeners: Vec<Ingress>,
    /// PEM bundle of the only authorities that vouch for it; without it, those of the system and
    /// of [`crate::TlsFiles::authorities`].
    pub authorities: Option<PathBuf>,
    /// SHA-256 fingerprints of its certificates: one of them must be shown, and neither authority
    /// nor name is asked for.
    pub pins: Vec<[u8; 32]>,
    /// Our certificate towards it and its key, both PEM files; without it, the listeners' own.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A line whose files were read.
#[derive(Clone, Debug)]
pub struct LoadedLine {
    line: Line,
    /// `None` for the authorities of all.
    trust: Option<Trust>,
    /// `None` for the listeners' own.
    identity: Option<Arc<CertifiedKey>>,
}

impl Line {
    /// Reads its files.
    ///
    /// # Errors
    /// Where one of them cannot be used.
    pub fn load(self) -> Result<LoadedLine, CertificatesError> {
        let trust = match &self.authorities {
            _ if !self.pins.is_empty() => Some(Trust::Pinned(self.pins.as_slice().into())),
            Some(file) => Some(Trust::Authorities(read_authorities(file)?)),
            None => None,
        };
        let identity = self.identity.as_ref().map(|(certificate, key)| {
            let chain = read_certificates(certificate)?;
            let unusable = |cause| CertificatesError::Unusable { file: certificate.clone(), cause };
            CertifiedKey::from_der(chain, read_key(key)?, &provider::default_provider())
                .map_err(unusable)
        });
        let identity = identity.transpose()?.map(Arc::new);
        Ok(LoadedLine { line: self, trust, identity })
    }
}

/// A line as it is used.
#[derive(Debug)]
pub(crate) struct OpenLine {
    pub(crate) trunk: TrunkName,
    pub(crate) send_to: Vec<String>,
    listeners: Vec<Ingress>,
    pub(crate) client: Option<Client>,
    /// Whether those who proved themselves to our listeners may be believed here too.
    pub(crate) takes_aliases: bool,
}

impl OpenLine {
    /// The domains of the URIs that lead to the trunk.
    pub(crate) fn domains(&self) -> impl Iterator<Item = String> {
        self.send_to.iter().filter_map(|uri| match Uri::parse(uri).ok()?.host()? {
            Host::Name(name) => Some(name.to_string()),
            Host::V4(_) | Host::V6(_) => None,
        })
    }

    /// The listener of ours that a connection to `target` belongs to.
    pub(crate) fn listener(&self, transport: Transport, target: IpAddr) -> Option<SocketAddr> {
        let fits =
            |it: &&Ingress| it.transport == transport && it.address.is_ipv4() == target.is_ipv4();
        // Loopback reaches loopback only.
        let is_far = |it: &&Ingress| it.address.ip().is_loopback() && !target.is_loopback();
        let mut fitting = self.listeners.iter().filter(fits);
        fitting.find(|it| !is_far(it)).map(|it| it.address)
    }

    /// The only family that can be reached, where our listeners have one alone.
    pub(crate) fn only(&self, transports: &[Transport]) -> Option<Family> {
        let ours = self.listeners.iter().filter(|it| transports.contains(&it.transport));
        let mut ours = ours.map(|it| it.address.is_ipv4());
        let first = ours.next()?;
        let family = if first { Family::V4 } else { Family::V6 };
        ours.all(|it| it == first).then_some(family)
    }
}

/// The TLS of connections that we open; what it proves is in `fingerprint`, so that connections
/// opened under another proof are told apart.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    trust: Trust,
    pub(crate) fingerprint: [u8; 32],
    /// Whether it has a certificate for servers that ask for one.
    pub(crate) shows: bool,
}

impl Client {
    /// `None` where nobody would be believed.
    pub(crate) fn new(
        provider: &Arc<CryptoProvider>,
        trust: Trust,
        identity: Option<&CertifiedKey>,
    ) -> Result<Option<Self>, rustls::Error> {
        if trust.is_empty() {
            return Ok(None);
        }
        let judge = judge(provider, &trust, &nobody());
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .dangerous() // rustls calls its own verification safe; ours is stricter about names
            .with_custom_certificate_verifier(judge);
        let shown = identity.filter(|it| it.cert.first().is_some_and(may_be_client));
        let mut config = builder.with_no_client_auth();
        if let Some(identity) = shown {
            let single = rustls::sign::SingleCertAndKey::from(identity.clone());
            config.client_auth_cert_resolver = Arc::new(single);
        }
        let (fingerprint, shows) = (summary(&trust, shown), shown.is_some());
        Ok(Some(Self { config: Arc::new(config), trust, fingerprint, shows }))
    }

    /// The configuration for one dial, and who judges afterwards.
    pub(crate) fn judging(&self, wanted: &Wanted) -> (Arc<ClientConfig>, Arc<Judge>) {
        let mut config = (*self.config).clone();
        let judge = judge(config.crypto_provider(), &self.trust, wanted);
        config.dangerous().set_certificate_verifier(Arc::<Judge>::clone(&judge));
        (Arc::new(config), judge)
    }
}

fn judge(provider: &Arc<CryptoProvider>, trust: &Trust, wanted: &Wanted) -> Arc<Judge> {
    let algorithms = provider.signature_verification_algorithms;
    Arc::new(Judge { trust: trust.clone(), wanted: wanted.clone(), algorithms })
}

/// Whom no certificate proves.
fn nobody() -> Wanted {
    Wanted { host: Host::Name("".into()), proved: Arc::default() }
}

fn summary(trust: &Trust, identity: Option<&CertifiedKey>) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    match trust {
        Trust::Pinned(pins) => pins.iter().for_each(|pin| hash.update(pin)),
        Trust::Authorities(roots) => {
            for root in &roots.roots {
                hash.update(&root.subject);
                hash.update(&root.subject_public_key_info);
            }
        }
    }
    let chain: &[CertificateDer<'_>] = identity.map(|it| &*it.cert).unwrap_or_default();
    chain.iter().for_each(|certificate| hash.update(certificate));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}

/// Every line, ready for use.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    loaded: Vec<LoadedLine>,
    open: HashMap<TrunkName, Arc<OpenLine>>,
}

impl Lines {
    /// Makes the lines ready under the TLS material of our listeners.
    pub(crate) fn open(loaded: Vec<LoadedLine>, tls: Option<&Tls>) -> Self {
        let provider = Arc::new(provider::default_provider());
        let mut open = HashMap::new();
        for it in &loaded {
            let client = if it.trust.is_none() && it.identity.is_none() {
                tls.and_then(|tls| tls.client.clone())
            } else {
                let common = || tls.map_or_else(no_authorities, |tls| tls.trust.clone());
                let trust = it.trust.clone().unwrap_or_else(common);
                let own = tls.map(|tls| &*tls.identity);
                let identity = it.identity.as_deref().or(own);
                // The same provider and versions served before: this cannot fail for one line.
                Client::new(&provider, trust, identity).ok().flatten()
            };
            let line = OpenLine {
                trunk: it.line.trunk.clone(),
                send_to: it.line.send_to.clone(),
                listeners: it.line.listeners.clone(),
                client,
                takes_aliases: it.trust.is_none(),
            };
            open.insert(it.line.trunk.clone(), Arc::new(line));
        }
        Self { loaded, open }
    }

    /// The same lines under other TLS material.
    pub(crate) fn reopen(&self, tls: Option<&Tls>) -> Self {
        Self::open(self.loaded.clone(), tls)
    }

    pub(crate) fn find(&self, trunk: &TrunkName) -> Option<&Arc<OpenLine>> {
        self.open.get(trunk)
    }

    /// Which URIs lead to which trunk.
    pub(crate) fn routes(&self) -> BTreeMap<TrunkName, Vec<String>> {
        let routes = self.open.iter().filter(|(_, line)| !line.send_to.is_empty());
        routes.map(|(trunk, line)| (trunk.clone(), line.send_to.clone())).collect()
    }
}

fn no_authorities() -> Trust {
    Trust::Authorities(Arc::new(RootCertStore::empty()))
}
