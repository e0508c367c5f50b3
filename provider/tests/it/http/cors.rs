//! Which pages of other origins may use the API from a browser, and what they are told.

use super::*;

const ALLOWED: &str = "https://app.example.org";
const OTHERS: [&str; 5] = [
    "https://evil.example",
    "http://app.example.org",
    "https://app.example.org:8443",
    "https://app.example.org.evil.example",
    "null",
];

async fn ask(server: &Server, method: &str, path: &str, lines: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}");
    let request = format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
    server.raw(request.as_bytes()).await
}

/// What a browser asks first where a request carries a key or JSON.
fn preflight(origin: &str, method: &str) -> String {
    format!(
        "Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n\
         Access-Control-Request-Headers: authorization,content-type\r\n"
    )
}

#[test]
fn the_allowed_origin_reads_answers_and_refusals_and_no_other_does() {
    wait(async {
        let server = server(|_, http, _| http.cors_origin = Some(ALLOWED.to_owned())).await;
        let key = format!("Authorization: Bearer {}\r\n", server.key);
        let unknown = "Authorization: Bearer tsk_nobody\r\n";
        for (path, key, status) in [
            ("/v1/models", key.as_str(), 200),
            ("/v1/models/none", &key, 404),
            ("/v1/models", unknown, 401),
            ("/openapi.json", "", 200),
        ] {
            let lines = format!("{key}Origin: {ALLOWED}\r\n");
            let answer = ask(&server, "GET", path, &lines).await;
            assert_eq!(answer.status, status, "{path}");
            // One origin by its name, never the asterisk; caches keep the origins apart.
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(allowed, Some(ALLOWED), "{path}");
            assert_eq!(answer.header("vary"), Some("origin"), "{path}");
            let exposed = answer.header("access-control-expose-headers").unwrap();
            for name in ["location", "retry-after", "tussah-receipt", "x-request-id"] {
                assert!(exposed.contains(name), "{exposed}");
            }
            // The key goes by a header that the page itself sends: no cookie is of any use.
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
        for origin in OTHERS {
            let lines = format!("{key}Origin: {origin}\r\n");
            let answer = ask(&server, "GET", "/v1/models", &lines).await;
            let refused = (answer.status, answer.code());
            assert_eq!(refused, (403, "origin_refused".to_owned()), "{origin}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
            assert_eq!(answer.header("vary"), Some("origin"), "{origin}");
        }
        let both = format!("{key}Origin: {ALLOWED}\r\nOrigin: https://evil.example\r\n");
        let answer = ask(&server, "GET", "/v1/models", &both).await;
        assert_eq!(answer.status, 403);
        // A page of the daemon's own, and who is no page.
        for line in ["Origin: http://localhost\r\n", ""] {
            let lines = format!("{key}{line}");
            let answer = ask(&server, "GET", "/v1/models", &lines).await;
            assert_eq!(answer.status, 200, "{line}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    });
}

#[test]
fn a_browser_that_asks_first_is_told_for_the_allowed_origin_alone() {
    wait(async {
        let server = server(|_, http, _| http.cors_origin = Some(ALLOWED.to_owned())).await;
        for (path, method) in [
            ("/v1/models", "GET"),
            ("/v1/chat/completions", "POST"),
            ("/v1/blobs/none", "PUT"),
        ] {
            // Without a key, which browsers do not send with it.
            let answer = ask(&server, "OPTIONS", path, &preflight(ALLOWED, method)).await;
            assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(allowed, Some(ALLOWED), "{path}");
            let methods = answer.header("access-control-allow-methods").unwrap();
            assert!(methods.split(", ").any(|each| each == method), "{methods}");
            let headers = answer.header("access-control-allow-headers").unwrap();
            // The asterisk does not stand for the header with the key.
            assert_eq!(headers, "*, authorization");
            assert_eq!(answer.header("access-control-max-age"), Some("600"));
            assert_eq!(answer.header("vary"), Some("origin"));
        }
        for origin in OTHERS {
            let lines = preflight(origin, "POST");
            let answer = ask(&server, "OPTIONS", "/v1/chat/completions", &lines).await;
            assert_eq!(answer.status, 403, "{origin}");
            for name in ["origin", "methods", "headers"] {
                let name = format!("access-control-allow-{name}");
                assert_eq!(answer.header(&name), None, "{origin}");
            }
        }
    });
}

#[test]
fn without_a_setting_no_page_may() {
    wait(async {
        let server = server(|_, _, _| ()).await;
        for (method, lines) in [
            ("GET", format!("Origin: {ALLOWED}\r\n")),
            ("OPTIONS", preflight(ALLOWED, "GET")),
        ] {
            let answer = ask(&server, method, "/v1/models", &lines).await;
            assert_eq!(answer.status, 403, "{method}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    });
}
