//! Stories about erasing a call, next to a running edge and without one.

use base::{Event, WallTime};
use vault::{AuditView, CallPersonal, CallRecord, Direction, Reader, Record};

use super::*;

struct Place {
    folder: tempfile::TempDir,
    config: Config,
}

impl Place {
    /// A vault's place, deeper than a socket's path may be long.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a-folder-of-some-length/".repeat(6));
        let text = format!(
            "[vault]\ndata = \"{0}/data\"\nkey = \"{0}/keys/vault.key\"\nheads = \"{0}/heads\"\n",
            deep.display()
        );
        Self { config: Config::load(Some(("test.toml", &text)), []).unwrap(), folder }
    }

    fn open(&self) -> Vault {
        Vault::open(vault_config(&self.config), OsClock, Box::new(|_: Event| {})).unwrap()
    }

    /// A vault with call 1, which ended, and call 2, which goes on.
    fn filled(&self) -> Vault {
        let vault = self.open();
        for (number, ended) in [(1, Some(WallTime::from_unix_millis(2_000))), (2, None)] {
            let record = CallRecord {
                id: call(number),
                direction: Direction::Incoming,
                trunk: None,
                voice_agent: None,
                started: WallTime::from_unix_millis(1_000),
                answered: None,
                ended,
                reason: None,
                setup: None,
                talked: None,
                transport: "tls",
                protection: "none",
                codec: "",
                keys_exposed: false,
                unrecorded: "",
                recording: false,
                transcript: false,
                personal: CallPersonal::default(),
            };
            vault.handle().submit(Record::Call(Box::new(record))).unwrap();
        }
        vault
    }

    async fn audited(&self) -> Vec<AuditView> {
        let reader = Reader::open(&vault_config(&self.config)).await.unwrap();
        let all = reader.audit(0, 1_000).await.unwrap();
        all.into_iter().filter(|record| record.kind == "call.erased").collect()
    }
}

fn call(number: u8) -> CallId {
    CallId::from_bytes([number; 12])
}

fn who() -> String {
    operator(rustix::process::getuid().as_raw(), Some("self".to_owned()))
}

#[tokio::test]
async fn the_running_edge_erases_and_names_the_operator() {
    let place = Place::new();
    let vault = place.filled();
    vault.handle().flush().await.unwrap();
    let listener = listen(&place.config.vault.data).unwrap();
    let served = tokio::spawn(serve(listener, vault.handle()));

    assert_eq!(erase(&place.config, call(1)).await.unwrap(), Erasure::Now);
    assert_eq!(erase(&place.config, call(1)).await.unwrap(), Erasure::Before);
    let unknown = erase(&place.config, call(9)).await;
    assert!(matches!(unknown, Err(EraseCallError::Unknown)), "{unknown:?}");
    let open = erase(&place.config, call(2)).await;
    assert!(matches!(open, Err(EraseCallError::InProgress)), "{open:?}");
    let [audited] = &place.audited().await[..] else { panic!("not one") };
    assert_eq!((audited.actor.clone(), audited.call), (who(), Some(call(1))));
    let socket = fs::metadata(place.config.vault.data.join(NAME)).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);

    // What is no request is answered, and the next one is served.
    let mut stream = connect(&place.config.vault.data).await.unwrap();
    stream.write_all(&[b'x'; 5_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(receive::<Answer>(&mut stream).await.unwrap(), Answer::BadRequest);
    assert_eq!(erase(&place.config, call(1)).await.unwrap(), Erasure::Before);
    served.abort();
    close(&place.config.vault.data);
    assert!(!place.config.vault.data.join(NAME).exists());
    vault.close();
}

#[tokio::test]
async fn a_reader_that_asks_the_running_edge_first_sees_what_has_just_happened() {
    let place = Place::new();
    let vault = place.filled();
    let listener = listen(&place.config.vault.data).unwrap();
    let served = tokio::spawn(serve(listener, vault.handle()));
    settle(&place.config).await;
    let reader = Reader::open(&vault_config(&place.config)).await.unwrap();
    assert!(reader.call(call(1)).await.is_ok());
    served.abort();
    vault.close();
    settle(&place.config).await;
}

#[tokio::test]
async fn without_an_edge_the_vault_is_opened_and_what_a_crash_left_open_is_erased() {
    let place = Place::new();
    let missing = erase(&place.config, call(1)).await;
    assert!(matches!(missing, Err(EraseCallError::NoVault(_))), "{missing:?}");
    assert!(!place.config.vault.data.exists(), "nothing is made");

    let vault = place.filled();
    vault.handle().flush().await.unwrap();
    // A socket that an edge left behind, which nobody listens to any more.
    drop(listen(&place.config.vault.data).unwrap());
    let held = erase(&place.config, call(1)).await;
    assert!(matches!(held, Err(EraseCallError::Open(OpenError::InUse(_)))), "{held:?}");
    vault.close();
    assert_eq!(erase(&place.config, call(1)).await.unwrap(), Erasure::Now);
    assert_eq!(erase(&place.config, call(2)).await.unwrap(), Erasure::Now);
    let actors: Vec<String> = place.audited().await.into_iter().map(|it| it.actor).collect();
    assert_eq!(actors, [who(), who()]);
    drop(place.folder);
}

#[test]
fn users_are_named_by_the_system() {
    let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/:/bin/sh\n";
    assert_eq!(user_name(users, 1_000), Some("ada"));
    assert_eq!(user_name(users, 0), Some("root"));
    assert_eq!(user_name(users, 7), None);
    assert_eq!(operator(4_000_000_000, None), "operator:uid-4000000000");
}
