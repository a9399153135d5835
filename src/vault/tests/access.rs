//! Keys, accounts and tokens: what opens, what does not, and what is left of them on the disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Instant, Secret, WallTime, limit};

use super::{Place, WALL, personal, until, wait};
use crate::{AccessError, Hashes, KeyTerms, Reader, TokenScope, TokenTerms, TokenUse, Vault};

const NOW: WallTime = WallTime::from_unix_millis(WALL);

fn later(seconds: u64) -> WallTime {
    NOW + Duration::from_secs(seconds)
}

fn who() -> String {
    "operator:tester".to_owned()
}

/// The terms of a token for one callee.
fn calling() -> TokenTerms {
    TokenTerms { called: Some("reception".into()), ..TokenTerms::default() }
}

/// Kinds, actors and details of the audit log, without what is not about access.
fn audit(place: &Place) -> Vec<(String, String, String)> {
    let config = place.config();
    let views = wait(async { Reader::open(&config).await.unwrap().audit(0, 1_000).await }).unwrap();
    let said = views.into_iter().map(|view| {
        let details = view.details.map(|it| it.expose().clone()).unwrap_or_default();
        (view.kind, view.actor, details)
    });
    let areas = ["key.", "account.", "token."];
    said.filter(|it| areas.iter().any(|area| it.0.starts_with(area))).collect()
}

fn finish(vault: Vault) {
    wait(vault.handle().flush()).unwrap();
    vault.close();
}

/// All bytes below the data folder.
fn disk(place: &Place) -> Vec<u8> {
    fn read(folder: &std::path::Path, out: &mut Vec<u8>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { read(&path, out) } else { out.extend(std::fs::read(path).unwrap()) }
        }
    }
    let mut bytes = Vec::new();
    read(&place.config().data, &mut bytes);
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_first_start_makes_one_key_and_no_later_one_does() {
    let place = Place::new();
    let vault = place.open();
    let first = wait(vault.handle().keys().first_key()).unwrap().unwrap();
    assert!(wait(vault.handle().keys().first_key()).unwrap().is_none());
    assert!(first.secret.expose().starts_with("sk_call2me_"));
    assert!(first.secret.expose().len() > 11 + 42, "256 bits");
    finish(vault);
    let vault = place.open();
    let keys = vault.handle().keys();
    assert!(wait(keys.first_key()).unwrap().is_none());
    assert_eq!(keys.key(first.secret.expose(), NOW).unwrap().id, first.key.id);
    // Nor where it was revoked.
    wait(keys.revoke_key(first.key.id, who())).unwrap();
    assert!(wait(keys.first_key()).unwrap().is_none());
    finish(vault);
    assert!(wait(place.open().handle().keys().first_key()).unwrap().is_none());
}

#[test]
fn a_key_opens_until_it_is_revoked_or_expires_and_nothing_else_opens() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let one = wait(keys.create_key(KeyTerms::named("one"), who())).unwrap();
    let short = KeyTerms { expires: Some(later(60)), read_only: true, ..KeyTerms::named("short") };
    let short = wait(keys.create_key(short, who())).unwrap();
    let (secret, other) = (one.secret.expose(), short.secret.expose());
    assert_eq!(keys.key(secret, NOW).unwrap().name, "one");
    assert!(keys.key(other, later(59)).unwrap().read_only);
    assert!(keys.key(other, later(60)).is_none());
    for wrong in
        ["", "sk_call2me_", &secret[1..], &secret[..secret.len() - 1], &format!("{secret}x")]
    {
        assert!(keys.key(wrong, NOW).is_none(), "{wrong}");
    }
    wait(keys.revoke_key(one.key.id, who())).unwrap();
    assert!(keys.key(secret, NOW).is_none());
    assert!(matches!(wait(keys.delete_key(short.key.id, who())), Err(AccessError::InUse)));
    wait(keys.delete_key(one.key.id, who())).unwrap();
    assert!(matches!(wait(keys.revoke_key(one.key.id, who())), Err(AccessError::Unknown)));
    finish(vault);
    // As after a start.
    let keys = place.open().handle().keys();
    assert!(keys.key(secret, NOW).is_none());
    assert_eq!(keys.keys().len(), 1);
    assert!(keys.key(other, NOW).is_some());
}

#[test]
fn a_key_lists_what_it_is_and_when_it_was_used() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let new = wait(keys.create_key(KeyTerms::named("ci"), who())).unwrap();
    assert_eq!(keys.keys(), std::slice::from_ref(&new.key));
    assert_eq!(new.key.prefix, new.secret.expose()[..15]);
    assert!(keys.key(new.secret.expose(), later(10)).is_some());
    assert!(keys.key(new.secret.expose(), later(20)).is_some());
    assert_eq!(keys.keys()[0].last_used, Some(later(10)), "to the hour");
    assert!(keys.key(new.secret.expose(), later(4_000)).is_some());
    finish(vault);
    let config = place.config();
    let (listed, accounts) =
        wait(async { Reader::open(&config).await.unwrap().access().await }).unwrap();
    assert_eq!(listed[0].last_used, Some(later(4_000)));
    assert!(accounts.is_empty());
    let kinds: Vec<_> = audit(&place).into_iter().map(|it| (it.0, it.1)).collect();
    let said = |kind: &str, actor: &str| (kind.to_owned(), actor.to_owned());
    assert_eq!(kinds, [said("key.created", "operator:tester"), said("key.used", "edge")]);
}

#[test]
fn a_token_is_its_id_and_a_hash_and_holds_for_its_time() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let terms = TokenTerms {
        called: Some("reception".into()),
        scopes: None,
        origin: Some("https://shop.example".into()),
        name: Some(personal("Ada")),
        caller: Some(personal("+498912345678")),
        lasts: Some(Duration::from_secs(120)),
    };
    let new = wait(keys.create_token(terms, who())).unwrap();
    let secret = new.secret.expose();
    assert!(secret.starts_with(&format!("{}.", new.token.id)));
    assert_eq!(keys.token(secret, later(119)), Some(new.token.clone()));
    assert!(keys.token(secret, later(120)).is_none());
    let (by_id, password) = keys.token_by_id(new.token.id, NOW).unwrap();
    assert_eq!((by_id, password.expose()), (new.token.clone(), secret));
    let forged = format!("{}.{}", new.token.id, "A".repeat(43));
    assert!(keys.token(&forged, NOW).is_none());
    assert!(keys.token(&new.token.id.to_string(), NOW).is_none());
    assert!(keys.token(&secret.to_uppercase(), NOW).is_none());
    finish(vault);
    let vault = place.open();
    let keys = vault.handle().keys();
    assert_eq!(keys.token(secret, NOW), Some(new.token.clone()));
    wait(keys.revoke_token(new.token.id, who())).unwrap();
    assert!(keys.token(secret, NOW).is_none() && keys.token_by_id(new.token.id, NOW).is_none());
    finish(vault);
    let kinds: Vec<_> = audit(&place).into_iter().map(|it| it.0).collect();
    assert_eq!(kinds, ["token.created", "token.used", "token.revoked"]);
}

#[test]
fn a_token_may_do_what_it_was_made_for() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let made = |terms| wait(keys.create_token(terms, who())).unwrap();
    let usual = made(calling());
    assert_eq!(usual.token.scopes, TokenScope::ALL.into());
    let only = |scope: TokenScope, terms| TokenTerms { scopes: Some([scope].into()), ..terms };
    let caller = made(only(TokenScope::Call, TokenTerms::default()));
    assert_eq!((caller.token.called, caller.token.scopes), (None, [TokenScope::Call].into()));
    let called = made(only(TokenScope::Register, calling()));
    finish(vault);
    let keys = place.open().handle().keys();
    let kept = keys.token(called.secret.expose(), NOW).unwrap();
    assert_eq!(kept.scopes, [TokenScope::Register].into());
}

#[test]
fn terms_that_are_not_allowed_are_refused_by_name() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let field = |error: AccessError| match error {
        AccessError::Invalid { field, .. } => field,
        other => panic!("{other}"),
    };
    let token = |terms| field(wait(keys.create_token(terms, who())).unwrap_err());
    let day = limit::VAULT_TOKEN_MS.millis();
    let lasts = |lasts| TokenTerms { lasts: Some(lasts), ..calling() };
    assert_eq!(token(lasts(day + Duration::from_secs(1))), "expires_in");
    assert_eq!(token(lasts(Duration::ZERO)), "expires_in");
    for origin in
        ["shop.example", "https://", "https://a/path", "http://shop.example", "https://a:443"]
    {
        let terms = TokenTerms { origin: Some(origin.into()), ..calling() };
        assert_eq!(token(terms), "origin", "{origin}");
    }
    let terms = TokenTerms { called: Some(String::new()), ..TokenTerms::default() };
    assert_eq!(token(terms), "called");
    assert_eq!(token(TokenTerms::default()), "scopes", "nothing is said of it");
    let terms = TokenTerms { scopes: Some(BTreeSet::new()), ..calling() };
    assert_eq!(token(terms), "scopes", "it would open nothing");
    for caller in ["", "+49 89", "+1", "+4912345678901234", "a@b", "a b", "\u{e9}", &"x".repeat(65)]
    {
        let terms = TokenTerms { caller: Some(personal(caller)), ..calling() };
        assert_eq!(token(terms), "caller", "{caller}");
    }
    for name in ["", "a\nb", &"x".repeat(101)] {
        assert_eq!(field(wait(keys.create_key(KeyTerms::named(name), who())).unwrap_err()), "name");
    }
    let past = KeyTerms { expires: Some(NOW), ..KeyTerms::named("x") };
    assert_eq!(field(wait(keys.create_key(past, who())).unwrap_err()), "expires_in_days");
    let account = |name: &str, password: &str| {
        let password = Some(Secret::new(password.to_owned()));
        field(wait(keys.set_account(name, "callgate", password, who())).unwrap_err())
    };
    assert_eq!(account("Alice", "long enough, this"), "name");
    assert_eq!(account("bt_0123456789abcdef", "long enough, this"), "name");
    assert_eq!(account("alice", "short"), "password");
    assert_eq!(account("alice", &"x".repeat(257)), "password");
    assert!(keys.keys().is_empty() && keys.tokens(NOW).is_empty() && keys.accounts().is_empty());
}

#[test]
fn how_a_person_is_shown_is_said_apart_from_the_password_and_outlives_both() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let present = |display: Option<&str>, caller: Option<&str>| {
        let (display, caller) = (display.map(str::to_owned), caller.map(str::to_owned));
        wait(keys.present_account("alice", display, caller, who()))
    };
    assert!(matches!(present(Some("Alice"), None), Err(AccessError::Unknown)));
    wait(keys.set_account("alice", "callgate", None, who())).unwrap();
    let hashes = keys.account("alice", "callgate").unwrap().1;
    present(Some("Alice A."), Some("+498912345678")).unwrap();
    assert!(matches!(
        present(None, Some("a b")),
        Err(AccessError::Invalid { field: "caller", .. })
    ));
    let (account, after) = keys.account("alice", "callgate").unwrap();
    let shown = (Some(personal("Alice A.")), Some(personal("+498912345678")));
    assert_eq!(((account.display, account.caller), after), (shown, hashes));
    wait(keys.set_account("alice", "callgate", None, who())).unwrap();
    present(Some(""), None).unwrap();
    finish(vault);
    let vault = place.open();
    let (account, _) = vault.handle().keys().account("alice", "callgate").unwrap();
    assert_eq!((account.display, account.caller), (None, Some(personal("+498912345678"))));
    finish(vault);
}

#[test]
fn an_account_answers_with_the_hashes_of_its_password_for_its_realm_only() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let made_up = wait(keys.set_account("alice", "callgate", None, who())).unwrap();
    assert_eq!(made_up.expose().len(), 24);
    let (account, hashes) = keys.account("alice", "callgate").unwrap();
    assert_eq!(account.name, personal("alice"));
    assert_eq!(hashes, Hashes::of("alice", "callgate", made_up.expose()));
    assert!(
        keys.account("alice", "elsewhere").is_none() && keys.account("bob", "callgate").is_none()
    );
    let chosen = Secret::new("Circle of Life".to_owned());
    wait(keys.set_account("alice", "callgate", Some(chosen), who())).unwrap();
    let now = keys.account("alice", "callgate").unwrap().1;
    assert_ne!(now, hashes);
    keys.account_used("alice", NOW);
    finish(vault);
    let vault = place.open();
    let keys = vault.handle().keys();
    assert_eq!(keys.account("alice", "callgate").unwrap().1, now);
    assert_eq!(keys.accounts()[0].last_used, Some(NOW));
    wait(keys.remove_account("alice", who())).unwrap();
    assert!(keys.account("alice", "callgate").is_none());
    assert!(matches!(wait(keys.remove_account("alice", who())), Err(AccessError::Unknown)));
    finish(vault);
    let said: Vec<_> = audit(&place).into_iter().map(|it| (it.0, it.2)).collect();
    let about = |kind: &str| (kind.to_owned(), "alice".to_owned());
    let kinds = ["account.set", "account.set", "account.used", "account.removed"];
    assert_eq!(said, kinds.map(about));
}

#[test]
fn an_account_without_md5_has_no_hash_of_it_and_gets_none_with_another_password() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let unknown = wait(keys.forget_md5("alice", who()));
    assert!(matches!(unknown, Err(AccessError::Unknown)));
    let first = wait(keys.set_account("alice", "callgate", None, who())).unwrap();
    assert!(keys.account("alice", "callgate").unwrap().0.takes_md5);
    wait(keys.forget_md5("alice", who())).unwrap();
    let strong = |keys: &crate::Keys, password: &Secret<String>| {
        let (account, hashes) = keys.account("alice", "callgate").unwrap();
        let sha256 = Hashes::of("alice", "callgate", password.expose()).sha256;
        !account.takes_md5 && hashes == Hashes { md5: None, sha256 }
    };
    assert!(strong(&keys, &first));
    let next = wait(keys.set_account("alice", "callgate", None, who())).unwrap();
    finish(vault);
    let vault = place.open();
    assert!(strong(&vault.handle().keys(), &next));
    assert!(audit(&place).iter().any(|it| it.0 == "account.strengthened"));
}

/// The example of RFC 7616 section 3.9.1.
#[test]
fn hashes_are_those_of_the_rfc() {
    let hashes = Hashes::of("Mufasa", "http-auth@example.org", "Circle of Life");
    assert_eq!(hashes.md5.unwrap().expose(), "3d78807defe7de2157e2b0b6573a855f");
    assert_eq!(
        hashes.sha256.expose(),
        "7987c64c30e25f1b74be53f966b49b90f2808aa92faf9a00262392d7b4794232"
    );
}

#[test]
fn nothing_on_the_disk_is_a_key_a_token_a_password_or_a_persons_name() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let key = wait(keys.create_key(KeyTerms::named("laptop of Grace"), who())).unwrap();
    let terms = TokenTerms { name: Some(personal("Ada Lovelace")), ..calling() };
    let token = wait(keys.create_token(terms, who())).unwrap();
    let password = wait(keys.set_account("edsger.w", "callgate", None, who())).unwrap();
    finish(vault);
    let bytes = disk(&place);
    let md5 = Hashes::of("edsger.w", "callgate", password.expose()).md5.unwrap();
    let token = token.secret.expose().split_once('.').unwrap().1;
    let key = key.secret.expose().strip_prefix("sk_call2me_").unwrap();
    for text in [key, token, password.expose(), md5.expose(), "Ada Love", "edsger", "Grace"] {
        assert!(!holds(&bytes, text), "{text}");
    }
    assert!(holds(&bytes, "key.created"), "the search works");
}

#[test]
fn a_row_that_was_moved_or_changed_opens_nothing_and_the_others_do() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let one = wait(keys.create_key(KeyTerms::named("one"), who())).unwrap();
    let two = wait(keys.create_key(KeyTerms::named("two"), who())).unwrap();
    wait(keys.revoke_key(one.key.id, who())).unwrap();
    finish(vault);
    // Somebody writes the good key's row over the revoked one's.
    let path = crate::database_path(&place.config().data);
    wait(async {
        let mut connection = crate::store::open(&path).await.unwrap();
        let statement = "UPDATE access SET content = (SELECT content FROM access WHERE id = ?) \
            WHERE id = ?";
        let query = sqlx::query(statement).bind(two.key.id.0.to_vec()).bind(one.key.id.0.to_vec());
        assert_eq!(query.execute(&mut connection).await.unwrap().rows_affected(), 1);
    });
    let (vault, events) = place.open_telling();
    let keys = vault.handle().keys();
    assert!(keys.key(one.secret.expose(), NOW).is_none());
    assert_eq!(keys.key(two.secret.expose(), NOW).unwrap().id, two.key.id);
    assert_eq!(keys.keys().len(), 1);
    let told = until(|| events.try_recv().ok());
    assert!(matches!(told, base::Event::VaultFailed { what: "access" }), "{told:?}");
    assert!(wait(keys.first_key()).unwrap().is_none());
}

#[test]
fn what_a_token_has_opened_is_known_at_once_and_at_the_next_start() {
    let place = Place::new();
    let vault = place.open();
    let keys = vault.handle().keys();
    let made = wait(keys.create_token(calling(), who())).unwrap();
    let (id, secret) = (made.token.id, made.secret.expose());
    assert_eq!(keys.token(secret, NOW).unwrap().used, None);
    assert!(keys.token_opened(id, TokenUse::Whip, NOW));
    assert_eq!(keys.token(secret, NOW).unwrap().used, Some(TokenUse::Whip));
    // The row that notes its first use was on its way to the disk meanwhile.
    wait(vault.handle().flush()).unwrap();
    assert_eq!(keys.token(secret, NOW).unwrap().used, Some(TokenUse::Whip));
    assert!(!keys.token_opened("bt_0000000000000000".parse().unwrap(), TokenUse::Sip, NOW));
    finish(vault);
    let vault = place.open();
    assert_eq!(vault.handle().keys().token(secret, NOW).unwrap().used, Some(TokenUse::Whip));
}

/// A clock whose seconds are set.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl Clock for SetClock {
    fn now(&self) -> Instant {
        Instant::ZERO
    }
    fn wall(&self) -> WallTime {
        later(self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn expired_tokens_are_swept_by_new_ones() {
    let (place, clock) = (Place::new(), SetClock::default());
    let vault = Vault::open(place.config(), clock.clone(), Box::new(|_| {})).unwrap();
    let keys = vault.handle().keys();
    let terms = |seconds| TokenTerms { lasts: Some(Duration::from_secs(seconds)), ..calling() };
    for seconds in [1, 1, 1, 60] {
        wait(keys.create_token(terms(seconds), who())).unwrap();
    }
    assert!(format!("{keys:?}").contains("tokens: 4"), "{keys:?}");
    clock.0.store(1, Ordering::SeqCst);
    wait(keys.create_token(terms(60), who())).unwrap();
    assert!(format!("{keys:?}").contains("tokens: 2"), "{keys:?}");
    finish(vault);
    assert!(format!("{:?}", place.open().handle().keys()).contains("tokens: 2"));
}
