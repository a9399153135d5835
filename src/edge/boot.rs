//! Boot and shutdown: the order in which the members start, reload and stop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent::provider::ProviderSink;
use arc_swap::ArcSwap;
use base::{Clock, Date, Event, Random, Reason, WallTime, WorkspaceId, limit};
use call::{Calls, Setup};
use policy::{Policy, Transport};
use providers::{EmbeddedReasoner, EmbeddedSpeech, EmbeddedSpeechConfig};
use relay::driver::{DriverChoice, Refusal};
use relay::path::counters::{DropReason, Meter};
use relay::{Relay, RelayConfig, SharedPortConfig};
use telemetry::{Gauge, Health, Telemetry};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use transport::{Ingress, NameServers, TlsFiles, TransportConfig, TransportHandle};
use vault::{AuditDetails, AuditEntry, Vault, VaultConfig, VaultHandle};

use crate::acme::{self, Challenges};
use crate::archive::Archive;
use crate::browsers::{Browsers, BrowsersError, Ground};
use crate::certificates::CertificateWatch;
use crate::clock::{OsClock, OsRandom};
use crate::config::{Config, Listen, SocketDriver};
use crate::control;
use crate::dials::Dials;
use crate::ear::Ear;
use crate::front::{Front, Shards};
use crate::host::{self, Host, Providers, ToShard, ToShards};
use crate::ledger::SharedLedger;
use crate::policies::{self, LoadError, Loaded};
use crate::refusals::Refusals;
use crate::shard::{Input, Shard};

/// Why the edge did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BootError {
    /// Policy or voice agents do not load.
    #[error("{0}")]
    Files(#[from] LoadError),
    /// Development certificates cannot be made.
    #[error("development certificates: {0}")]
    Certificates(#[from] transport::certificates::DevelopmentError),
    /// A listener or a certificate.
    #[error("signalling: {0}")]
    Transport(#[from] transport::StartError),
    /// HTTPS.
    #[error("browsers: {0}")]
    Browsers(#[from] BrowsersError),
    /// The store.
    #[error("the store: {0}")]
    Vault(#[from] vault::OpenError),
    /// The speech helper.
    #[error("speech: {0}")]
    Speech(#[from] providers::StartError),
    /// The metrics port.
    #[error("the metrics port {address}: {source}")]
    Metrics {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread or a poll.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// The metrics recorder.
    #[error("metrics: {0}")]
    Telemetry(String),
}

/// A running edge.
pub struct Edge {
    config: Config,
    setup: Arc<ArcSwap<Setup>>,
    shards: Shards,
    /// Listeners that could not be opened, so that each is told of once.
    closed: BTreeSet<(Transport, SocketAddr)>,
    /// Whether there are any, for the health page.
    is_deaf: Arc<AtomicBool>,
    transport: TransportHandle,
    browsers: Browsers,
    relay: Option<Relay>,
    ear: Option<Ear>,
    vault: Option<Vault>,
    refusals: Refusals,
    certificates: CertificateWatch,
    ledger: SharedLedger,
    telemetry: Arc<Telemetry>,
    metrics: SocketAddr,
    shard_tasks: Vec<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    version: u64,
    seen: Vec<(PathBuf, Option<(std::time::SystemTime, u64)>)>,
    /// The day on which exemptions that end were last told of.
    told: Option<Date>,
    /// Answers to an authority's challenges.
    challenges: Challenges,
    /// Told of certificates that came by ACME.
    renewed: Option<mpsc::Receiver<()>>,
}

/// How often files and exemptions are looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How long the last BYEs and their answers may take.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long before its end an exemption is warned of (DESIGN 4.1).
const WARN_DAYS: u32 = 30;

impl Edge {
    /// Starts everything, in this order; what was started before a failure stops again.
    ///
    /// # Errors
    /// The first step that fails, with its cause.
    pub async fn start(mut config: Config) -> Result<Self, BootError> {
        let telemetry =
            Telemetry::new(OsClock).map_err(|error| BootError::Telemetry(error.to_string()))?;
        let telemetry = Arc::new(telemetry);
        acme::prepare(&mut config, OsClock.wall())?;
        let certificates = CertificateWatch::start(&config, OsClock.wall(), &telemetry)?;
        let mut loaded = policies::load(&config, 1, OsClock.wall())?;
        let vault = open_vault(&config, &telemetry)?;
        let refusals = Refusals::new(vault.handle(), Arc::clone(&telemetry));
        let providers = start_providers(&config, &telemetry)?;
        let (shards, inputs) = shard_queues(&config);
        let relay = start_relay(&config, &shards, &telemetry)?;
        let ear = Ear::start()?;
        let ledger = SharedLedger::of(config.limits.call_concurrent);
        let setup = Arc::new(ArcSwap::from(Arc::clone(&loaded.setup)));
        let front = Arc::new(Front::new(
            Arc::clone(&setup),
            Arc::clone(&shards),
            Arc::clone(&telemetry),
            refusals.clone(),
        ));
        let transport = start_transport(&config, &front).await?;
        front.connect(transport.clone());
        let challenges = Challenges::default();
        let ground = Ground {
            config: &config,
            transport: &transport,
            vault: &vault.handle(),
            telemetry: &telemetry,
            shards: &shards,
            challenges: &challenges,
        };
        let browsers = Browsers::prepare(ground).await?;
        let mut edge = Self {
            seen: policies::stamp(&config),
            config,
            setup,
            shards,
            closed: BTreeSet::new(),
            is_deaf: Arc::default(),
            transport,
            browsers,
            relay: Some(relay),
            ear: Some(ear),
            vault: Some(vault),
            refusals,
            certificates,
            ledger,
            telemetry,
            metrics: SocketAddr::from(([127, 0, 0, 1], 0)),
            shard_tasks: Vec::new(),
            tasks: Vec::new(),
            version: 1,
            told: None,
            challenges,
            renewed: None,
        };
        edge.ledger.watch(edge.transport.health());
        edge.transport.set_lines(std::mem::take(&mut loaded.lines));
        edge.start_shards(&loaded, &providers, inputs);
        edge.start_metrics().await?;
        edge.start_control()?;
        edge.listen();
        edge.browsers.listen(&edge.config)?;
        edge.start_acme();
        edge.tell_loaded(&loaded);
        Ok(edge)
    }

    /// Where SIP is listened for, and over what.
    #[must_use]
    pub fn listeners(&self) -> Vec<(Transport, SocketAddr)> {
        let listeners = self.transport.local_addresses();
        listeners.iter().map(|it| (crate::front::word(it.transport), it.address)).collect()
    }

    /// What browsers reach.
    #[must_use]
    pub const fn browsers(&self) -> &Browsers {
        &self.browsers
    }

    /// Where metrics are.
    #[must_use]
    pub const fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Calls in progress.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.ledger.calls()
    }

    /// Serves until `stop` resolves; `reload` is asked for reloads meanwhile.
    pub async fn serve(&mut self, stop: impl Future<Output = ()>, reload: &mut mpsc::Receiver<()>) {
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(WATCH);
        loop {
            tokio::select! {
                () = &mut stop => return,
                Some(()) = reload.recv() => self.reload(),
                _ = tick.tick() => self.watch(),
            }
        }
    }

    /// Reads certificates, policy and voice agents again.
    pub fn reload(&mut self) {
        // The transport says itself whether its certificates were taken.
        let _ = self.transport.reload_certificates();
        self.certificates.forget();
        self.transport.reload_names();
        self.seen = policies::stamp(&self.config);
        match policies::load(&self.config, self.version + 1, OsClock.wall()) {
            Ok(mut loaded) => {
                self.version += 1;
                self.transport.set_lines(std::mem::take(&mut loaded.lines));
                self.setup.store(Arc::clone(&loaded.setup));
                for shard in self.shards.iter() {
                    let setup = call::Input::Reload(Arc::clone(&loaded.setup));
                    let agents = Input::Agents(Arc::clone(&loaded.agents));
                    let inputs = [agents, Input::Call(setup)];
                    if inputs.into_iter().any(|input| shard.try_send(input).is_err()) {
                        self.telemetry.emit(&Event::QueueFull { queue: "shard" });
                        // Tried again at the next look at the files.
                        self.seen.clear();
                    }
                }
                self.listen();
                self.told = None;
                self.tell_loaded(&loaded);
            }
            Err(error) => {
                let errors = u32::try_from(error.count).unwrap_or(u32::MAX);
                self.telemetry.emit(&Event::PolicyRejected { errors });
                self.audit("policy.rejected", format!("errors={errors}"));
                tracing::error!(target: "callgate", "the old policy stays in force:\n{error}");
            }
        }
    }

    /// Takes no new calls, waits for those in progress, for `patience` at most or until `hurry`
    /// resolves, says BYE on the rest and stops everything.
    pub async fn stop(mut self, patience: Duration, hurry: impl Future<Output = ()>) {
        self.ledger.drain();
        let ended = async {
            while self.ledger.calls() > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(patience) => {}
            () = hurry => {}
        }
        self.cut().await;
        self.audit("edge.stopped", String::new());
        self.browsers.drain(Duration::from_secs(1)).await;
        self.transport.drain(Duration::from_secs(1)).await;
        self.refusals.close();
        self.tasks.iter().for_each(JoinHandle::abort);
        control::close(&self.config.vault.data);
        let shards = core::mem::replace(&mut self.shards, Vec::new().into());
        if let Some(relay) = self.relay.take() {
            // Blocks for as long as it takes to say goodbye on the last sessions.
            let _ = tokio::task::spawn_blocking(move || relay.drain(Duration::from_secs(1))).await;
        }
        // The last sessions' figures are of calls that were said goodbye to above.
        let _ = tokio::time::timeout(GOODBYE, handled(&shards)).await;
        self.shard_tasks.iter().for_each(JoinHandle::abort);
        for task in self.shard_tasks.drain(..) {
            let _ = task.await; // aborted, or done
        }
        let (ear, vault) = (self.ear.take(), self.vault.take());
        let _ = tokio::task::spawn_blocking(move || {
            if let Some(ear) = ear {
                ear.close();
            }
            if let Some(vault) = vault {
                vault.close();
            }
        })
        .await;
    }

    /// Says BYE on whatever is left, so that no peer waits for a call that is gone.
    async fn cut(&self) {
        if self.ledger.calls() == 0 {
            return;
        }
        for shard in self.shards.iter() {
            let input = call::Input::HangUpAll { reason: Reason::OperatorHungUp };
            // A shard that is overrun for so long cannot be reached any more.
            let _ = tokio::time::timeout(GOODBYE, shard.send(Input::Call(input))).await;
        }
        tokio::time::sleep(GOODBYE).await;
    }

    fn start_shards(
        &mut self,
        loaded: &Loaded,
        providers: &Providers,
        inputs: Vec<mpsc::Receiver<Input>>,
    ) {
        let count = u8::try_from(self.shards.len()).unwrap_or(u8::MAX);
        let vault = self.vault.as_ref().map(Vault::handle);
        let (Some(vault), Some(relay), Some(ear)) = (vault, &self.relay, &self.ear) else { return };
        for (number, (queue, inputs)) in (0..count).zip(self.shards.iter().zip(inputs)) {
            let calls = Calls::new(
                number,
                Arc::clone(&loaded.setup),
                Box::new(self.ledger.clone()),
                Box::new(OsRandom),
            );
            let shard = Shard::new(number, count, calls, Arc::clone(&loaded.agents));
            let accounts = self.browsers.accounts();
            let dials = Dials::new(queue.clone(), Arc::clone(&self.telemetry), accounts);
            let (queue, telemetry) = (queue.clone(), Arc::clone(&self.telemetry));
            let sink: Arc<dyn ProviderSink> = Arc::new(ToShard { shard: queue, telemetry });
            let host = Host {
                transport: self.transport.clone(),
                relay: relay.handle(),
                ear: ear.handle(),
                providers: providers.clone(),
                sink,
                vault: vault.clone(),
                archive: Archive::new(
                    vault.clone(),
                    Arc::clone(&self.telemetry),
                    self.refusals.clone(),
                    self.browsers.onlookers().curves(),
                ),
                telemetry: Arc::clone(&self.telemetry),
                dials,
                shards: Arc::clone(&self.shards),
                onlookers: self.browsers.onlookers(),
                number: usize::from(number),
            };
            self.shard_tasks.push(tokio::spawn(host::run(shard, host, inputs)));
        }
    }

    async fn start_metrics(&mut self) -> Result<(), BootError> {
        let address = self.config.listen.metrics;
        let failed = |source| BootError::Metrics { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        self.metrics = listener.local_addr().map_err(failed)?;
        let (ledger, transport) = (self.ledger.clone(), self.transport.clone());
        let accounts = self.browsers.accounts();
        let relay = self.relay.as_ref().map(Relay::handle);
        self.telemetry.register(move |gauges| {
            let mut gauge = |name, labels, value| gauges.push(Gauge { name, labels, value });
            gauge("calls", vec![], f64::from(ledger.calls()));
            gauge("connections", vec![], transport.connection_count() as f64);
            gauge("registrations", vec![], accounts.count() as f64);
            let Some(relay) = relay.as_ref() else { return };
            let counters = relay.counters();
            gauge("relay_sessions", vec![], counters.sessions() as f64);
            for reason in DropReason::ALL {
                let labels = vec![("stage", reason.stage().word()), ("reason", reason.word())];
                gauge("relay_stage_drop_total", labels, counters.dropped(*reason) as f64);
            }
            for meter in Meter::ALL {
                let labels = vec![("stage", meter.stage().word()), ("what", meter.word())];
                gauge("relay_stage_count_total", labels, counters.total(*meter) as f64);
            }
            let dtls = relay.dtls_counters();
            let tcp = relay.ice_tcp_counters();
            for (name, what, count) in [
                ("dtls_handshake_total", "begun", dtls.begun),
                ("dtls_handshake_total", "completed", dtls.completed),
                ("dtls_handshake_total", "completed_13", dtls.completed_13),
                ("dtls_handshake_total", "failed", dtls.failed),
                ("dtls_handshake_total", "lost", dtls.lost),
                ("dtls_handshake_total", "unsent", dtls.unsent),
                ("ice_tcp_total", "accepted", tcp.accepted),
                ("ice_tcp_total", "refused", tcp.refused),
                ("ice_tcp_total", "unproved", tcp.unproved),
                ("ice_tcp_total", "lost", tcp.lost),
            ] {
                gauge(name, vec![("what", what)], count as f64);
            }
            for (what, count) in relay.shared_port_counters().all() {
                gauge("browser_port_total", vec![("what", what)], count as f64);
            }
        });
        let (ledger, vault) = (self.ledger.clone(), self.vault.as_ref().map(Vault::handle));
        let is_deaf = Arc::clone(&self.is_deaf);
        let health = Arc::new(move || {
            if ledger.is_draining() {
                Health::Unhealthy { what: "draining" }
            } else if vault.as_ref().is_some_and(|vault| !vault.healthy()) {
                Health::Degraded { what: "vault" }
            } else if is_deaf.load(Ordering::Relaxed) {
                Health::Degraded { what: "listener" }
            } else {
                Health::Healthy
            }
        });
        let served = telemetry::serve(listener, Arc::clone(&self.telemetry), health);
        self.tasks.push(tokio::spawn(served));
        Ok(())
    }

    fn start_control(&mut self) -> Result<(), BootError> {
        let Some(vault) = self.vault.as_ref().map(Vault::handle) else { return Ok(()) };
        let listener = control::listen(&self.config.vault.data)?;
        self.tasks.push(tokio::spawn(control::serve(listener, vault)));
        Ok(())
    }

    fn start_acme(&mut self) {
        if acme::is_wanted(&self.config) {
            let (tell, renewed) = mpsc::channel(1);
            let (config, challenges) = (self.config.clone(), self.challenges.clone());
            let telemetry = Arc::clone(&self.telemetry);
            self.tasks.push(tokio::spawn(acme::keep(config, challenges, telemetry, tell)));
            self.renewed = Some(renewed);
        }
    }

    fn watch(&mut self) {
        if self.renewed.as_mut().is_some_and(|renewed| renewed.try_recv().is_ok()) {
            // The transport says itself whether it took the new one.
            let _ = self.transport.reload_certificates();
            self.certificates.forget();
        }
        if policies::stamp(&self.config) != self.seen {
            self.reload();
        }
        // An exemption ends at the end of its day, with or without a reload; an address may come
        // to this machine later.
        self.listen();
        self.refusals.tick(OsClock.now());
        self.telemetry.tick();
        if self.certificates.look(&self.config, OsClock.wall(), &self.telemetry) {
            let _ = self.transport.reload_certificates();
        }
        self.tell_ending();
    }

    /// Opens and closes listeners as the policy says: those of its zones, and the plaintext ones
    /// while some exemption runs; with no exempted trunk those ports are not even open (DESIGN
    /// 4.1). What stays open keeps its connections.
    fn listen(&mut self) {
        let wanted = wanted_listeners(&self.config, &self.setup.load().policy, OsClock.wall());
        for ingress in self.transport.listeners() {
            let word = crate::front::word(ingress.transport);
            if !wanted.contains(&(word, ingress.address)) {
                self.transport.close_listener(ingress.transport, ingress.address);
            }
        }
        self.closed.retain(|closed| wanted.contains(closed));
        for (word, address) in wanted {
            let Some(kind) = kind(word) else { continue };
            match self.transport.open(kind, address) {
                Ok(_) => {
                    self.closed.remove(&(word, address));
                }
                Err(error) => {
                    if self.closed.insert((word, address)) {
                        self.telemetry.emit(&Event::ListenerFailed { transport: word.word() });
                        tracing::error!(target: "callgate", "{word} {address}: {error}");
                    }
                }
            }
        }
        self.is_deaf.store(!self.closed.is_empty(), Ordering::Relaxed);
    }

    fn tell_loaded(&self, loaded: &Loaded) {
        self.browsers.offer(&loaded.agents);
        let policy = &loaded.setup.policy;
        let trunks = u32::try_from(policy.trunks().count()).unwrap_or(u32::MAX);
        let routes = u32::try_from(policy.routes()).unwrap_or(u32::MAX);
        let version = policy.version();
        self.telemetry.emit(&Event::PolicyLoaded { version, trunks, routes });
        for warning in &loaded.warnings {
            tracing::warn!(target: "callgate", "{warning}");
        }
        let fingerprint = policy.fingerprint();
        self.audit("policy.loaded", format!("version={version} fingerprint={fingerprint}"));
    }

    /// Warns of exemptions that end soon, once a day and after each load (DESIGN 4.1).
    fn tell_ending(&mut self) {
        let wall = OsClock.wall();
        if self.told == Some(wall.date()) {
            return;
        }
        self.told = Some(wall.date());
        for ending in self.setup.load().policy.expiring(wall, WARN_DAYS) {
            let (trunk, days) = (ending.trunk, ending.days_left);
            self.telemetry.emit(&Event::ExemptionEnding { trunk, days });
        }
    }

    fn audit(&self, kind: &'static str, details: String) {
        let Some(vault) = &self.vault else { return };
        let details = AuditDetails::Plain(details);
        let entry = AuditEntry { kind, actor: "edge".to_owned(), call: None, details };
        if vault.handle().submit(vault::Record::Audit(entry)).is_err() {
            self.telemetry.emit(&Event::VaultFailed { what: "audit" });
        }
    }

    /// The vault, for tests and for what reads beside the edge.
    #[must_use]
    pub fn vault(&self) -> Option<VaultHandle> {
        self.vault.as_ref().map(Vault::handle)
    }
}

/// Where the vault of a configuration is.
#[must_use]
pub fn vault_config(config: &Config) -> VaultConfig {
    VaultConfig {
        data: config.vault.data.clone(),
        key_file: config.vault.key.clone(),
        audit_heads: config.vault.heads.clone(),
        workspace: WorkspaceId::new(&config.vault.workspace),
        retention: config.retention.ages(),
    }
}

/// Waits until the shards have handled all that they were told.
async fn handled(shards: &[mpsc::Sender<Input>]) {
    while shards.iter().any(|shard| shard.capacity() < shard.max_capacity()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn open_vault(config: &Config, telemetry: &Arc<Telemetry>) -> Result<Vault, BootError> {
    let telemetry = Arc::clone(telemetry);
    let on_event = Box::new(move |event: Event| telemetry.emit(&event));
    Ok(Vault::open(vault_config(config), OsClock, on_event)?)
}

fn start_providers(config: &Config, telemetry: &Arc<Telemetry>) -> Result<Providers, BootError> {
    let helper = Some(config.agents.speech.clone()).filter(|path| !path.as_os_str().is_empty());
    let telemetry = Arc::clone(telemetry);
    let speech = Arc::new(EmbeddedSpeech::start(
        EmbeddedSpeechConfig { helper, processes: config.agents.processes.max(1) },
        Box::new(move |event: Event| telemetry.emit(&event)),
    )?);
    Ok(Providers {
        transcriber: speech.clone(),
        reasoner: Arc::new(EmbeddedReasoner::default()),
        speaker: speech,
    })
}

fn shard_queues(config: &Config) -> (Shards, Vec<mpsc::Receiver<Input>>) {
    let queues = (0..config.shards()).map(|_| mpsc::channel(limit::SHARD_INPUTS.get()));
    let (senders, receivers): (Vec<_>, Vec<_>) = queues.unzip();
    (senders.into(), receivers)
}

fn start_relay(
    config: &Config,
    shards: &Shards,
    telemetry: &Arc<Telemetry>,
) -> Result<Relay, BootError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = if config.media.workers == 0 { cores / 2 } else { config.media.workers };
    let [first, last] = config.media.ports;
    let relay_config = RelayConfig {
        workers: workers.max(1),
        ports: first..=last,
        seed: OsRandom.u64(),
        driver: match config.media.driver {
            SocketDriver::Auto => DriverChoice::Auto,
            SocketDriver::IoUring => DriverChoice::IoUring,
            SocketDriver::Epoll => DriverChoice::Epoll,
        },
        ice_tcp: config.browsers.ice_tcp.0.clone(),
        browser_port: browser_port(config),
    };
    let relay = Relay::start(&relay_config, |_| {
        let (shards, telemetry) = (Arc::clone(shards), Arc::clone(telemetry));
        Box::new(ToShards { shards, telemetry })
    })?;
    let refusal = relay.refusal();
    telemetry.emit(&Event::RelayDriver {
        driver: if refusal.is_none() { "io_uring" } else { "epoll" },
        refused: refusal.map_or("none", Refusal::word),
    });
    Ok(relay)
}

/// The shared port, opened at once where browsers' media is: it is then known to be free there.
fn browser_port(config: &Config) -> Option<SharedPortConfig> {
    let port = config.browsers.media_port;
    (port != 0).then(|| SharedPortConfig { port, addresses: config.browser_media() })
}

async fn start_transport(
    config: &Config,
    front: &Arc<Front>,
) -> Result<TransportHandle, BootError> {
    let tls = TlsFiles {
        certificate: config.tls.certificate.clone(),
        key: config.tls.key.clone(),
        authorities: Some(config.tls.client_ca.clone()).filter(|it| !it.as_os_str().is_empty()),
        system: true,
        untrusted: transport::Untrusted::Refuse,
    };
    let names = NameServers {
        servers: config.dns.servers.clone(),
        hosts: config.dns.hosts.clone(),
        ..NameServers::default()
    };
    let listeners = config
        .listen
        .tls
        .iter()
        .map(|address| Ingress { transport: transport::Transport::Tls, address: *address });
    let transport_config = TransportConfig {
        listeners: listeners.collect(),
        tls: Some(tls),
        names,
        bounds: config.limits.bounds(),
    };
    Ok(transport::start(transport_config, Arc::clone(front) as Arc<dyn transport::Inlet>).await?)
}

/// What is to be listened on now.
fn wanted_listeners(
    config: &Config,
    policy: &Policy,
    wall: WallTime,
) -> BTreeSet<(Transport, SocketAddr)> {
    let plaintext = policy.plaintext_transports(wall);
    own_listeners(config)
        .into_iter()
        .filter(|(word, _)| !word.is_plaintext() || plaintext.contains(word))
        .chain(policy.listeners(wall))
        .collect()
}

/// The listeners of the edge's own side, those of plaintext included.
pub(crate) fn own_listeners(config: &Config) -> Vec<(Transport, SocketAddr)> {
    let Listen { tls, tcp, udp, .. } = &config.listen;
    let each = [(Transport::Tls, tls), (Transport::Tcp, tcp), (Transport::Udp, udp)];
    let of = |(word, addresses): (Transport, &Vec<SocketAddr>)| {
        addresses.iter().map(|address| (word, *address)).collect::<Vec<_>>()
    };
    each.into_iter().flat_map(of).collect()
}

/// A policy's transport in the transport's words; the others come by HTTPS.
pub(crate) const fn kind(word: Transport) -> Option<transport::Transport> {
    match word {
        Transport::Udp => Some(transport::Transport::Udp),
        Transport::Tcp => Some(transport::Transport::Tcp),
        Transport::Tls => Some(transport::Transport::Tls),
        Transport::Ws | Transport::Wss | Transport::Whip => None,
    }
}

/// The date on the wall, for whoever prints it.
#[must_use]
pub fn today() -> WallTime {
    OsClock.wall()
}
