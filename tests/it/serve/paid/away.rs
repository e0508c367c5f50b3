//! A daemon whose chain does not answer for some time.

use std::{
    fs, io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::json;

use super::{Client, open, post, refused, wait_until_seen};
use crate::{bank::Bank, fixture::Sandbox, serve::Daemon, worker::ECHO};

/// A door in front of a server: shut, it hangs up on everybody.
struct Door {
    place: SocketAddr,
    is_open: Arc<AtomicBool>,
}

impl Door {
    /// Shut, in front of the server of this URL.
    fn before(url: &str) -> Self {
        let server = url.split('/').nth(2).unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let is_open = Arc::new(AtomicBool::new(false));
        let opened = Arc::clone(&is_open);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !opened.load(Ordering::Acquire) {
                    continue;
                }
                let server = TcpStream::connect(&server).unwrap();
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server, client),
                ] {
                    thread::spawn(move || {
                        // Whoever hangs up hangs up on both sides.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { place, is_open }
    }
}

#[test]
fn a_daemon_whose_chain_is_away_starts_and_takes_channel_jobs_once_it_answers() {
    let (ours, theirs) = (Sandbox::new(), Sandbox::new());
    let bank = Bank::localnet(&theirs);
    let our_bank = bank.for_home(&ours);
    let module = ours.file("echo.wasm", crate::worker::component(ECHO));
    let module = module.to_str().unwrap();
    let deploy = ["deploy", module, "--as", "echo", "--shape", "raw", "--json"];
    let echo = ours.run(&deploy).expect(0).json();
    let opened = open(&bank, &our_bank);
    let add = ["serve", "channel", "add", &opened.terms];
    our_bank.json(&[&add[..], &["--owner", &opened.owner]].concat());

    // What is no chain ends the start; one that does not answer does not.
    let listen = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let wrong = [&["serve", "--chain", "tesnet"][..], &listen].concat();
    ours.run(&wrong).expect(2).says("`tesnet` is no chain");
    let door = Door::before(&bank.chain);
    let chain = format!("http://{}/api/v2", door.place);
    let daemon = Daemon::start_with(&ours, "one", &["--chain", &chain]);
    let job = daemon.submit(&json!({"model": "echo", "input": "on credit"}));
    assert_eq!(daemon.wait_for(&job)["status"], "done");
    let health = daemon.health();
    assert_eq!(health["ready"], true, "{health}");
    assert_eq!(health["channels"], json!({"watched": 1, "unseen": 1}));
    let client = Client::new(&theirs, &opened.provider, &opened.address, &daemon);
    let paid = client.body(&echo, 0, "through the channel");
    let words = "has not compared its book";
    refused(
        post(&daemon, "/v1/jobs", &paid),
        503,
        "channel_unchecked",
        words,
    );

    door.is_open.store(true, Ordering::Release);
    wait_until_seen(&daemon, &opened.address);
    let job = daemon.submit(&paid);
    assert_eq!(daemon.wait_for(&job)["status"], "done");
    assert_eq!(
        daemon.health()["channels"],
        json!({"watched": 1, "unseen": 0})
    );
    // Nothing is to be earned in a channel whose close is signed.
    let close = opened.address.replace(':', "_") + ".close";
    fs::write(ours.home().join("channels").join(close), "").unwrap();
    let next = client.body(&echo, 1, "after the close");
    let words = "both sides have signed the close";
    refused(
        post(&daemon, "/v1/jobs", &next),
        402,
        "channel_refused",
        words,
    );
    daemon.terminate().expect(0);
}
