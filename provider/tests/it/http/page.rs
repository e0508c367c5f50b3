//! The owner's page: who gets in, what it shows, and what it refuses.

use serde_json::json;
use tussah_manifest::Receipt;

use super::*;

const JSON: &str = "Content-Type: application/json\r\n";

impl Server {
    /// With a password for the page.
    async fn with_page() -> (Self, String) {
        let server = Self::with_worker().await;
        let password = server.gateway.ledger().new_page_password().unwrap();
        (server, password.reveal().to_owned())
    }

    /// Without an API key: only the page's own cookie counts here.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        );
        self.raw(request.as_bytes()).await
    }

    async fn log_in(&self, password: &str, headers: &str) -> Answer {
        let body = json!({"password": password}).to_string();
        let headers = format!("{JSON}{headers}");
        self.ask("POST", "/page/login", &headers, &body).await
    }

    /// The header by which a browser that logged in is known.
    async fn cookie(&self, password: &str) -> String {
        let answer = self.log_in(password, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let cookie = answer.header("set-cookie").unwrap();
        format!("Cookie: other=1; {}\r\n", cookie.split(';').next().unwrap())
    }

    async fn see(&self, path: &str, cookie: &str) -> Answer {
        self.ask("GET", path, cookie, "").await
    }
}

/// What only the owner sees.
const OWNERS: [&str; 3] = ["/page/status", "/page/earnings", "/page/receipts/none"];

#[test]
fn the_page_is_three_files_under_a_policy_that_lets_nothing_else_in() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        let root = server.see("/", "").await;
        assert_eq!(
            (root.status, root.header("location")),
            (303, Some("/page")),
            "{root:?}"
        );
        for (path, kind) in [
            ("/page", "text/html; charset=utf-8"),
            ("/page/page.css", "text/css; charset=utf-8"),
            ("/page/page.js", "text/javascript; charset=utf-8"),
        ] {
            let file = server.see(path, "").await;
            assert_eq!(
                (file.status, file.header("content-type")),
                (200, Some(kind))
            );
            let policy = file.header("content-security-policy").unwrap();
            let directives: Vec<&str> = policy.split("; ").collect();
            for directive in [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "connect-src 'self'",
                "frame-ancestors 'none'",
                "form-action 'none'",
                "base-uri 'none'",
            ] {
                assert!(directives.contains(&directive), "{policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(file.header("x-frame-options"), Some("DENY"));
            // Nothing of it stands elsewhere, and nothing runs from within the page.
            let text = file.text().replace("http://www.w3.org/2000/svg", "");
            for elsewhere in [
                "http:", "https:", "@import", "url(", "<style", "style=", "<script>", "onclick",
            ] {
                assert!(!text.contains(elsewhere), "{path} has {elsewhere:?}");
            }
        }
        // Without a password nobody logs in, and the page can say so.
        let session = server.see("/page/session", "").await.json();
        assert_eq!(session, json!({"in": false, "has_password": false}));
        let refused = server.log_in("", "").await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "no_page_password")
        );
    });
}

#[test]
fn a_login_opens_what_is_the_owners_and_a_logout_closes_it() {
    wait(async {
        let (server, password) = Server::with_page().await;
        for path in OWNERS {
            // Neither without a cookie nor by an API key, nor by a cookie that nobody gave out.
            let key = format!("Authorization: Bearer {}\r\n", server.key);
            let invented = format!("Cookie: tussah_page={}\r\n", "0".repeat(64));
            for headers in ["", &key, &invented, "Cookie: tussah_page=\r\n"] {
                let answer = server.see(path, headers).await;
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (401, "login_needed")
                );
                assert!(answer.header("content-security-policy").is_some());
                assert_eq!(answer.header("cache-control"), Some("no-store"));
            }
        }
        let answer = server.log_in(&password, "").await;
        assert_eq!((answer.status, answer.json()), (200, json!({"in": true})));
        let cookie = answer.header("set-cookie").unwrap();
        let mut parts = cookie.split("; ");
        let (name, token) = parts.next().unwrap().split_once('=').unwrap();
        assert_eq!((name, token.len()), ("tussah_page", 64), "{cookie}");
        let flags: Vec<&str> = parts.collect();
        assert_eq!(
            flags,
            ["Path=/page", "Max-Age=43200", "HttpOnly", "SameSite=Strict"]
        );
        // A browser that came by https, through a proxy that speaks it, keeps it to that.
        let from = "Origin: https://localhost:1\r\n";
        let answer = server.log_in(&password, from).await;
        let secure = answer.header("set-cookie").unwrap();
        assert!(secure.ends_with("; Secure"), "{secure}");
        // As it is typed on a phone.
        let typed = password.replace('-', " ").to_uppercase();
        let cookie = server.cookie(&typed).await;
        let session = server.see("/page/session", &cookie).await.json();
        assert_eq!(session, json!({"in": true, "has_password": true}));
        let status = server.see("/page/status", &cookie).await;
        assert_eq!(status.status, 200, "{status:?}");
        let shown = status.json();
        assert_eq!(shown["object"], "status");
        assert_eq!(
            shown["provider_key"],
            provider_key().public_key().to_string()
        );

        let out = server.ask("POST", "/page/logout", &cookie, "").await;
        assert_eq!(out.status, 200);
        let forgets = out.header("set-cookie").unwrap();
        assert!(forgets.starts_with("tussah_page=; Path=/page; Max-Age=0; "));
        assert_eq!(server.see("/page/status", &cookie).await.status, 401);
    });
}

#[test]
fn a_new_password_ends_what_the_last_one_opened() {
    wait(async {
        let (server, password) = Server::with_page().await;
        let cookie = server.cookie(&password).await;
        assert_eq!(server.see("/page/status", &cookie).await.status, 200);
        let ledger = server.gateway.ledger();
        let another = ledger.new_page_password().unwrap();
        assert_ne!(another.reveal(), password);
        assert_eq!(server.see("/page/status", &cookie).await.status, 401);
        assert_eq!(server.log_in(&password, "").await.status, 401);
        let cookie = server.cookie(another.reveal()).await;
        assert!(ledger.remove_page_password().unwrap());
        assert!(!ledger.remove_page_password().unwrap());
        assert_eq!(server.see("/page/status", &cookie).await.status, 401);
        assert_eq!(server.log_in(another.reveal(), "").await.status, 403);
    });
}

#[test]
fn wrong_passwords_are_refused_and_soon_not_even_looked_at() {
    wait(async {
        let (server, password) = Server::with_page().await;
        let wrong = "00000-00000-00000-00000";
        for typed in [wrong, "", "hunter2", &password[1..], "é"] {
            let answer = server.log_in(typed, "").await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, "wrong_password"),
                "{typed}"
            );
            assert_eq!(answer.header("set-cookie"), None);
        }
        // The sixth within a minute waits, be it the right one.
        let answer = server.log_in(&password, "").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (429, "too_many_tries")
        );
        let wait_s: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=13).contains(&wait_s), "{wait_s}");
        assert_eq!(answer.header("set-cookie"), None);
    });
}

#[test]
fn bodies_that_are_no_login_are_refused_before_the_password_is_looked_at() {
    wait(async {
        let (server, password) = Server::with_page().await;
        let right = json!({"password": password}).to_string();
        let large = json!({"password": "0".repeat(2000)}).to_string();
        for (headers, body, status, code) in [
            // What another site's form could send without asking.
            ("", right.as_str(), 415, "content_type"),
            (
                "Content-Type: text/plain\r\n",
                right.as_str(),
                415,
                "content_type",
            ),
            (JSON, "", 400, "invalid_json"),
            (JSON, "[]", 400, "invalid_json"),
            (JSON, "{}", 400, "missing_required_parameter"),
            (JSON, r#"{"password": 1}"#, 400, "invalid_value"),
            (
                JSON,
                r#"{"password": "", "user": ""}"#,
                400,
                "unknown_parameter",
            ),
            (JSON, large.as_str(), 400, "invalid_body"),
        ] {
            let answer = server.ask("POST", "/page/login", headers, body).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{body}"
            );
        }
        // None of them was a try.
        server.cookie(&password).await;
    });
}

#[test]
fn pages_of_other_origins_get_nothing_even_where_the_api_lets_them() {
    wait(async {
        let allowed = "https://app.example.org";
        let server = server(|_, http, _| http.cors_origin = Some(allowed.to_owned())).await;
        let password = server.gateway.ledger().new_page_password().unwrap();
        let cookie = server.cookie(password.reveal()).await;
        for from in [
            format!("Origin: {allowed}\r\n"),
            "Origin: http://localhost:2\r\n".to_owned(),
            "Origin: null\r\n".to_owned(),
            "Sec-Fetch-Site: cross-site\r\n".to_owned(),
            "Sec-Fetch-Site: same-site\r\n".to_owned(),
        ] {
            let headers = format!("{cookie}{from}");
            for path in ["/page/session", "/page/status", "/page/earnings"] {
                let answer = server.see(path, &headers).await;
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (403, "origin_refused"),
                    "{path} {from}"
                );
            }
            let answer = server.log_in(password.reveal(), &from).await;
            assert_eq!(answer.status, 403, "{from}");
            let answer = server.ask("POST", "/page/logout", &headers, "").await;
            assert_eq!(answer.status, 403, "{from}");
        }
        for from in [
            "Origin: http://localhost:1\r\n",
            "Sec-Fetch-Site: same-origin\r\n",
            "Sec-Fetch-Site: none\r\n",
        ] {
            let answer = server.see("/page/status", &format!("{cookie}{from}")).await;
            assert_eq!(answer.status, 200, "{from}");
        }
    });
}

#[test]
fn jobs_of_every_account_show_their_receipts_and_no_content() {
    wait(async {
        let (server, password) = Server::with_page().await;
        let cookie = server.cookie(&password).await;
        let before = server.see("/page/earnings", &cookie).await;
        assert_eq!(before.json()["days"], json!([]), "{before:?}");

        let other = server.gateway.ledger().new_api_key("other", "other", NOW);
        let wait_for_end = "Prefer: wait=60\r\n";
        let mut ids = Vec::new();
        for key in [server.key.clone(), other.unwrap().reveal().to_owned()] {
            let headers = format!("{JSON}{wait_for_end}Authorization: Bearer {key}\r\n");
            let body = json!({"model": "null", "input": "secret words"}).to_string();
            let answer = server.ask("POST", "/v1/jobs", &headers, &body).await;
            let job = answer.json();
            assert_eq!(job["status"], "done", "{job}");
            ids.push(job["id"].as_str().unwrap().to_owned());
        }
        let shown = server.see("/page/status", &cookie).await;
        assert!(!shown.text().to_lowercase().contains("secret"), "{shown:?}");
        assert!(!shown.text().contains("other"), "{shown:?}");
        let shown = shown.json();
        assert_eq!(shown["since_start"]["done"], 2);
        let recent = shown["recent_jobs"].as_array().unwrap();
        // Newest first.
        let recent: Vec<&str> = recent
            .iter()
            .map(|job| job["id"].as_str().unwrap())
            .collect();
        assert_eq!(recent, [&ids[1], &ids[0]]);

        for id in &ids {
            let answer = server.see(&format!("/page/receipts/{id}"), &cookie).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let receipt = Receipt::from_verified_bytes(&answer.body).unwrap();
            assert_eq!(receipt.consensus.job.to_string(), *id);
            let hex = receipt.consensus.job.to_hex();
            let attached = format!("attachment; filename=\"receipt-{}.cbor\"", &hex[..12]);
            assert_eq!(answer.header("content-disposition"), Some(&*attached));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            // For the owner's eyes alone.
            let unknown = server.see(&format!("/page/receipts/{id}"), "").await;
            assert_eq!(unknown.status, 401);
        }
        let none = tussah_manifest::Digest::of(b"none");
        for (path, status) in [
            (format!("/page/receipts/{none}"), 404),
            ("/page/receipts/..".to_owned(), 400),
            ("/page/receipts/%2e%2e%2fledger.sqlite".to_owned(), 400),
            ("/page/receipts/%ff".to_owned(), 400),
            ("/page/nothing".to_owned(), 404),
        ] {
            let answer = server.see(&path, &cookie).await;
            assert_eq!(answer.status, status, "{path}");
        }
    });
}

#[test]
fn earnings_are_what_the_ledger_says_of_each_day() {
    wait(async {
        let price = |config: &mut GatewayConfig| config.prices.base = nano(7);
        let server = server(|config, _, _| price(config)).await;
        drop(peer::attach(&server.gateway));
        let password = server.gateway.ledger().new_page_password().unwrap();
        let cookie = server.cookie(password.reveal()).await;
        for number in 0..3 {
            let submit = json!({"model": "null", "input": format!("{number}")}).to_string();
            let headers = format!("{JSON}Prefer: wait=60\r\n");
            let answer = server.send("POST", "/v1/jobs", &headers, submit.as_bytes());
            assert_eq!(answer.await.json()["price_nanograms"], "7");
        }
        let answer = server.see("/page/earnings", &cookie).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let earnings = answer.json();
        let days = earnings["days"].as_array().unwrap();
        // Midnight may have passed in between.
        let sum = |field: &str| -> u64 {
            let values = days.iter().map(|day| match &day[field] {
                Value::String(text) => text.parse::<u64>().unwrap(),
                value => value.as_u64().unwrap(),
            });
            values.sum()
        };
        assert_eq!(
            (
                sum("jobs"),
                sum("credit_nanograms"),
                sum("channel_nanograms")
            ),
            (3, 21, 0),
            "{earnings}"
        );
        assert_eq!(sum("failed") + sum("not_run"), 0);
    });
}
