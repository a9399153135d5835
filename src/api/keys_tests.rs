use base::{Event, limit};
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request};
use tower::ServiceExt as _;

use super::*;
use crate::auth::VaultCredentials;
use crate::auth::tests::{NOW, Place, StoppedClock};

/// An API with one key that may do everything.
struct World {
    place: Place,
    router: Router,
    key: String,
}

struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

async fn world() -> World {
    let place = Place::new();
    let keys = place.keys();
    let credentials = Arc::new(VaultCredentials::new(keys.clone()));
    let guard = Guard::new(credentials, Arc::new(StoppedClock), Arc::new(|_: Event| {}));
    let router = routes(Arc::new(guard), keys.clone());
    let key = keys.first_key().await.unwrap().unwrap().secret.expose().clone();
    World { place, router, key }
}

impl World {
    async fn ask(&self, key: Option<&str>, method: Method, path: &str, body: &str) -> Told {
        let source = "192.0.2.7:5000".parse().unwrap();
        let peer = Peer { source, local: "192.0.2.1:8443".parse().unwrap() };
        let mut request = Request::builder().method(method).uri(path).extension(peer);
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let response = crate::problem::finish(response, "req_1");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Told { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Told {
        self.ask(Some(&self.key), Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: &str) -> Told {
        self.ask(Some(&self.key), Method::POST, path, body).await
    }

    async fn put(&self, path: &str, body: &str) -> Told {
        self.ask(Some(&self.key), Method::PUT, path, body).await
    }

    async fn delete(&self, path: &str) -> Told {
        self.ask(Some(&self.key), Method::DELETE, path, "").await
    }
}

fn text<'a>(body: &'a Value, field: &str) -> &'a str {
    body[field].as_str().unwrap_or_else(|| panic!("no text {field} in {body}"))
}

#[tokio::test]
async fn a_key_is_shown_once_and_opens_until_it_is_revoked() {
    let world = world().await;
    let made = world.post("/v1/api-keys", r#"{"name":"ci","expires_in_days":30}"#).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let (id, secret) = (text(&made.body, "key_id"), text(&made.body, "api_key"));
    assert_eq!(made.headers[LOCATION], format!("/v1/api-keys/{id}"));
    assert_eq!(made.headers[CACHE_CONTROL], "no-store");
    assert!(secret.starts_with(text(&made.body, "key_prefix")) && id.starts_with("key_"));
    let days = Duration::from_secs(30 * DAY);
    assert_eq!(text(&made.body, "expires_at"), (NOW + days).to_string());
    assert_eq!((&made.body["rate_limit"], &made.body["read_only"]), (&json!(1_000), &json!(false)));

    let listed = world.get("/v1/api-keys").await;
    assert_eq!(listed.body.as_array().unwrap().len(), 2, "a bare array");
    assert!(!listed.body.to_string().contains(secret));
    assert!(listed.body.as_array().unwrap().iter().all(|key| key["is_active"] == true));
    assert_eq!(
        world.ask(Some(secret), Method::GET, "/v1/api-keys", "").await.status,
        StatusCode::OK
    );

    let path = format!("/v1/api-keys/{id}");
    assert_eq!(world.delete(&format!("{path}/permanent")).await.status, StatusCode::CONFLICT);
    assert_eq!(world.delete(&path).await.status, StatusCode::NO_CONTENT);
    let refused = world.ask(Some(secret), Method::GET, "/v1/api-keys", "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get(&path).await.body["is_active"], false);
    assert_eq!(world.delete(&format!("{path}/permanent")).await.status, StatusCode::NO_CONTENT);
    let gone = world.get(&path).await;
    assert_eq!(
        (gone.status, text(&gone.body, "detail")),
        (StatusCode::NOT_FOUND, "API key not found")
    );
}

#[tokio::test]
async fn whoever_has_no_key_is_told_how_to_show_one() {
    let world = world().await;
    for wrong in [None, Some("sk_call2me_wrong"), Some("")] {
        let told = world.ask(wrong, Method::GET, "/v1/api-keys", "").await;
        assert_eq!(told.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
        assert!(told.headers[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
        assert!(told.body["detail"].is_string() && told.body["request_id"] == "req_1");
    }
}

#[tokio::test]
async fn a_read_only_key_looks_and_a_browser_token_does_not_even_that() {
    let world = world().await;
    let made = world.post("/v1/api-keys", r#"{"name":"eyes","read_only":true}"#).await;
    let key = text(&made.body, "api_key");
    for path in ["/v1/api-keys", "/v1/browser-tokens", "/v1/accounts"] {
        assert_eq!(world.ask(Some(key), Method::GET, path, "").await.status, StatusCode::OK);
    }
    let id = text(&made.body, "key_id");
    let writes = [
        (Method::POST, "/v1/api-keys".to_owned()),
        (Method::DELETE, format!("/v1/api-keys/{id}")),
        (Method::POST, "/v1/browser-tokens".to_owned()),
        (Method::PUT, "/v1/accounts/alice".to_owned()),
        (Method::DELETE, "/v1/accounts/alice".to_owned()),
    ];
    for (method, path) in writes {
        let told = world.ask(Some(key), method, &path, r#"{"name":"x"}"#).await;
        assert_eq!(
            (told.status, text(&told.body, "code")),
            (StatusCode::FORBIDDEN, "api.read_only")
        );
    }
    assert!(world.place.keys().accounts().is_empty());
    let token = world.post("/v1/browser-tokens", r#"{"agent":"reception"}"#).await;
    let told = world.ask(Some(text(&token.body, "token")), Method::GET, "/v1/api-keys", "").await;
    assert_eq!((told.status, text(&told.body, "code")), (StatusCode::FORBIDDEN, "api.forbidden"));
}

#[tokio::test]
async fn every_wrong_field_is_named_and_nothing_is_made() {
    let world = world().await;
    let body = r#"{"rate_limit":0,"read_only":"yes","permisions":[],"expires_in_days":-1}"#;
    let told = world.post("/v1/api-keys", body).await;
    assert_eq!(told.status, StatusCode::UNPROCESSABLE_ENTITY);
    let mut wrong: Vec<_> = told.body["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            assert!(it["loc"][0] == "body" && it["msg"].is_string());
            (it["loc"][1].as_str().unwrap(), it["type"].as_str().unwrap())
        })
        .collect();
    wrong.sort_unstable();
    let expected = [
        ("expires_in_days", "int_range"),
        ("name", "missing"),
        ("permisions", "extra_forbidden"),
        ("rate_limit", "int_range"),
        ("read_only", "bool_type"),
    ];
    assert_eq!(wrong, expected);
    for (body, kind) in [("[]", "dict_type"), ("{", "json_invalid"), ("\u{0}", "json_invalid")] {
        let told = world.post("/v1/api-keys", body).await;
        assert_eq!(told.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(told.body["detail"][0]["type"], kind, "{body}");
    }
    let told = world.post("/v1/api-keys", &format!("{{\"name\":\"{}\"}}", "x".repeat(101))).await;
    assert_eq!(told.body["detail"][0]["loc"], json!(["body", "name"]));
    assert_eq!(world.place.keys().keys().len(), 1);
    // What clients that know more fields send as null is as good as absent.
    let told =
        world.post("/v1/api-keys", r#"{"name":"sdk","whatever":null,"permissions":[]}"#).await;
    assert_eq!(told.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_read() {
    let world = world().await;
    let body = format!("{{\"name\":\"{}\"}}", "x".repeat(limit::API_JSON_BYTES.get()));
    let told = world.post("/v1/api-keys", &body).await;
    assert_eq!(told.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_browser_token_has_its_terms_and_its_end() {
    let world = world().await;
    let body =
        r#"{"agent":"reception","origin":"https://shop.example","name":"Ada","expires_in":60}"#;
    let made = world.post("/v1/browser-tokens", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let (id, secret) = (text(&made.body, "id"), text(&made.body, "token"));
    assert!(secret.starts_with(&format!("{id}.")));
    assert_eq!(text(&made.body, "called"), "reception");
    assert_eq!(text(&made.body, "expires_at"), (NOW + Duration::from_secs(60)).to_string());
    let credentials = VaultCredentials::new(world.place.keys());
    let found = crate::auth::Credentials::bearer(&credentials, secret, NOW);
    assert!(matches!(found, Some(Who::Token(token)) if token.id == id));
    let listed = world.get("/v1/browser-tokens").await.body;
    assert!(listed[0]["id"] == id && !listed.to_string().contains(secret));
    let path = format!("/v1/browser-tokens/{id}");
    assert_eq!(text(&world.get(&path).await.body, "name"), "Ada");
    assert_eq!(world.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.delete(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get(&path).await.status, StatusCode::NOT_FOUND);
    let wrong = [
        r#"{"called":"a","agent":"b"}"#,
        r#"{"expires_in":86401}"#,
        r#"{"origin":"http://shop.example"}"#,
        r#"{"scope":"all"}"#,
        r#"{"called":"a","scope":"call all"}"#,
        r#"{"called":"a","scope":""}"#,
        r#"{"called":"a","scopes":[]}"#,
        r#"{"called":"a","scopes":["call",1]}"#,
        r#"{"called":"a","scopes":"call"}"#,
        r#"{"called":"a","scopes":["call"],"scope":"call"}"#,
        "{}",
        "",
    ];
    for body in wrong {
        let told = world.post("/v1/browser-tokens", body).await;
        assert_eq!(told.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    let told = world.post("/v1/browser-tokens", r#"{"called":"a"}"#).await;
    assert_eq!((told.status, &told.body["expires_in"]), (StatusCode::CREATED, &json!(3_600)));
    assert_eq!(told.body["scopes"], json!(["call", "register"]), "for the one callee");
    for body in [r#"{"scopes":["register"]}"#, r#"{"scope":"register register"}"#] {
        let told = world.post("/v1/browser-tokens", body).await;
        assert_eq!((told.status, &told.body["called"]), (StatusCode::CREATED, &Value::Null));
        assert_eq!(told.body["scopes"], json!(["register"]));
        let path = format!("/v1/browser-tokens/{}", text(&told.body, "id"));
        assert_eq!(world.get(&path).await.body["scopes"], json!(["register"]));
    }
}

#[tokio::test]
async fn an_account_gets_a_password_that_is_shown_once_or_keeps_the_chosen_one() {
    let world = world().await;
    let made = world.put("/v1/accounts/alice", "").await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let password = text(&made.body, "password");
    let hashes = || world.place.keys().account("alice", REALM).unwrap().1;
    assert_eq!(hashes(), vault::Hashes::of("alice", REALM, password));
    let chosen = r#"{"password":"correct horse battery"}"#;
    let told = world.put("/v1/accounts/alice", chosen).await;
    assert_eq!((told.status, told.body.get("password")), (StatusCode::OK, None));
    assert_eq!(hashes(), vault::Hashes::of("alice", REALM, "correct horse battery"));
    assert_eq!(world.get("/v1/accounts").await.body[0]["name"], "alice");
    assert_eq!(world.get("/v1/accounts/alice").await.status, StatusCode::OK);
    for (path, body) in
        [("/v1/accounts/Alice", ""), ("/v1/accounts/bob", r#"{"password":"short"}"#)]
    {
        let told = world.put(path, body).await;
        assert_eq!(told.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(!told.body.to_string().contains("short\""));
    }
    let patch = async |body: &str| {
        world.ask(Some(&world.key), Method::PATCH, "/v1/accounts/alice", body).await
    };
    assert_eq!(world.get("/v1/accounts/alice").await.body["digest"], "md5");
    let told = patch(r#"{"digest":"md5"}"#).await;
    assert_eq!(told.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(patch(r#"{"digest":"sha-256"}"#).await.body["digest"], "sha-256");
    assert!(hashes().md5.is_none(), "nothing is kept of what is not taken");
    assert_eq!(world.delete("/v1/accounts/alice").await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.delete("/v1/accounts/alice").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_key_is_held_to_its_rate_and_told_how_much_is_left() {
    let world = world().await;
    let made = world.post("/v1/api-keys", r#"{"name":"slow","rate_limit":2}"#).await;
    let key = text(&made.body, "api_key");
    let ask = || world.ask(Some(key), Method::GET, "/v1/api-keys", "");
    assert_eq!(ask().await.headers["x-ratelimit-remaining"], "1");
    let told = ask().await;
    assert_eq!(
        (told.status, &told.headers["x-ratelimit-limit"]),
        (StatusCode::OK, &"2".parse().unwrap())
    );
    let told = ask().await;
    assert_eq!(told.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(told.headers.contains_key(RETRY_AFTER));
    assert_eq!(world.get("/v1/api-keys").await.status, StatusCode::OK, "others are not concerned");
}
