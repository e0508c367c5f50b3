//! `tussah serve page`: the password of the owner's page, beside a daemon that runs.

use serde_json::json;

use super::Daemon;
use crate::fixture::Sandbox;

#[test]
fn the_newest_password_opens_the_page_at_once_and_no_other_does() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "alice");
    let log_in = |password: &str| {
        let body = json!({"password": password}).to_string();
        daemon.ask("POST", "/page/login", &body, "*/*")
    };
    daemon.get("/page").expect(200);
    log_in("").expect(403);
    let new = || {
        let made = sandbox.run(&["serve", "page", "--json"]).expect(0).json();
        made["password"].as_str().unwrap().to_owned()
    };
    let (first, second) = (new(), new());
    log_in(&first).expect(401);
    log_in(&second).expect(200);
    // The API's key is none of the page's.
    daemon.get("/page/status").expect(401);
    // People get the password alone on standard output.
    let shown = sandbox.run(&["serve", "page"]).expect(0).stdout;
    assert_eq!(shown.trim_end().len(), 23, "{shown}");
    log_in(shown.trim_end()).expect(200);
    let off = sandbox.run(&["serve", "page", "--off", "--json"]);
    assert_eq!(off.expect(0).json(), json!({"password": null}));
    log_in(shown.trim_end()).expect(403);
}
