//! `verify` without `--source`: the source is fetched from where the module says, and is built only if
//! it is the one that the module was built of.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    fixture::Ended,
    server::{Reply, Server},
    verify::Tiny,
};

/// Gives the files of a folder away, as any web server does.
fn serve(root: PathBuf) -> Server {
    Server::new(move |request| {
        let path = request.path.split('?').next().unwrap_or_default();
        match fs::read(root.join(path.trim_start_matches('/'))) {
            Ok(bytes) => Reply::new("200 OK").body(&bytes),
            Err(_) => Reply::new("404 Not Found").body(b""),
        }
    })
}

fn git(tiny: &Tiny, folder: &str, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    let mut command = Command::new("git");
    command.args(identity).args(arguments);
    let output = command.current_dir(tiny.at(folder)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Builds the commit for others, with this place in it, and puts the module beside.
fn build(tiny: &Tiny, uri: &str) {
    let arguments = [
        "build",
        "tiny",
        "--verifiable",
        "--source-uri",
        uri,
        "--json",
    ];
    Ended::from(tiny.command(&arguments).output().unwrap()).expect(0);
    let module = tiny.at("tiny/target/tussah/tiny/module.wasm");
    fs::copy(module, tiny.at("published.wasm")).unwrap();
}

fn verify(tiny: &Tiny, code: i32) -> Value {
    // The folder that it runs in is no source.
    let given = tiny.at("published.wasm");
    let mut command = tiny.command(&["verify", given.to_str().unwrap(), "--json"]);
    command.current_dir(tiny.at("out"));
    Ended::from(command.output().unwrap()).expect(code).json()
}

#[test]
fn a_source_is_fetched_and_built_only_if_it_is_the_recorded_one() {
    let Some(tiny) = Tiny::new() else {
        return;
    };
    fs::create_dir(tiny.at("web")).unwrap();
    let server = serve(tiny.at("web"));
    fs::write(tiny.at("tiny/.gitignore"), "target\n").unwrap();
    git(&tiny, "tiny", &["init", "--quiet"]);
    git(&tiny, "tiny", &["add", "."]);
    git(&tiny, "tiny", &["commit", "--quiet", "-m", "tiny"]);
    let archive = || {
        let output = "--output=../web/tiny.tar.gz";
        git(
            &tiny,
            "tiny",
            &["archive", "--format=tar.gz", output, "HEAD"],
        );
    };
    archive();
    build(&tiny, &server.url("/tiny.tar.gz"));
    let report = verify(&tiny, 0);
    assert_eq!(report["verdict"], "match", "{report:#}");
    assert_eq!(server.requests()[0].path, "/tiny.tar.gz");

    // By commit, from a server of plain files.
    let commit = git(&tiny, "tiny", &["rev-parse", "HEAD"]);
    git(
        &tiny,
        "web",
        &["clone", "--quiet", "--bare", "../tiny", "tiny.git"],
    );
    git(&tiny, "web/tiny.git", &["update-server-info"]);
    build(&tiny, &format!("git+{}@{commit}", server.url("/tiny.git")));
    assert_eq!(verify(&tiny, 0)["verdict"], "match");
    let missing = "1".repeat(40);
    build(&tiny, &format!("git+{}@{missing}", server.url("/tiny.git")));
    let report = verify(&tiny, 7);
    let causes = report["causes"].to_string();
    assert!(causes.contains("git cannot fetch 1111"), "{report:#}");

    // Another source at the same place: its build script leaves no trace, since it never ran.
    build(&tiny, &server.url("/tiny.tar.gz"));
    let script = format!(
        "fn main() {{ std::fs::write({:?}, \"x\").unwrap(); }}",
        tiny.at("ran")
    );
    fs::write(tiny.at("tiny/dep/build.rs"), script).unwrap();
    git(&tiny, "tiny", &["commit", "--quiet", "-a", "-m", "another"]);
    archive();
    let report = verify(&tiny, 7);
    let causes = report["causes"].to_string();
    assert!(
        causes.contains("is another source than the module was built of"),
        "{report:#}"
    );
    assert!(causes.contains("nothing of it was run"), "{report:#}");
    assert_eq!(report["ran"], serde_json::json!([]));

    fs::remove_file(tiny.at("web/tiny.tar.gz")).unwrap();
    let report = verify(&tiny, 7);
    assert!(report["causes"].to_string().contains("404"), "{report:#}");
    build(&tiny, "ftp://example.org/tiny.tar.gz");
    let report = verify(&tiny, 7);
    let causes = report["causes"].to_string();
    assert!(
        causes.contains("no archive over https and no commit"),
        "{report:#}"
    );
}
