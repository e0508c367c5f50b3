//! The requests: why each should not be sent, its bytes, and the status that it gets.

use super::{
    Daemon, Expected, Row, Then,
    Then::{HalfClose, Read, Trickle},
};

/// Rows, as they are written down.
struct Table<'a> {
    daemon: &'a Daemon,
    rows: Vec<Row>,
}

impl Table<'_> {
    fn raw(
        &mut self,
        why: &'static str,
        bytes: impl Into<Vec<u8>>,
        then: Then,
        expected: Expected,
    ) {
        self.rows.push(Row {
            why,
            bytes: bytes.into(),
            then,
            expected,
        });
    }

    /// A head that is good but for these lines; the connection is to be closed after it.
    fn head(&self, line: &str, more: &str) -> String {
        let Daemon { address, key, .. } = self.daemon;
        format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
             Connection: close\r\n{more}\r\n"
        )
    }

    fn send(&mut self, why: &'static str, line: &str, more: &str, body: &[u8], expected: Expected) {
        let mut bytes = self.head(line, more).into_bytes();
        bytes.extend_from_slice(body);
        self.raw(why, bytes, Read, expected);
    }

    fn get(&mut self, why: &'static str, path: &str, expected: Expected) {
        self.send(why, &format!("GET {path}"), "", b"", expected);
    }

    fn post(&mut self, why: &'static str, body: &[u8], expected: Expected) {
        let more = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        self.send(why, "POST /v1/jobs", &more, body, expected);
    }

    fn put(&mut self, why: &'static str, digest: &str, more: &str, expected: Expected) {
        let line = format!("PUT /v1/blobs/{digest}");
        let more = format!("Content-Length: 1\r\n{more}");
        self.send(why, &line, &more, b"x", expected);
    }
}

pub(super) fn table(daemon: &Daemon) -> Vec<Row> {
    let mut table = Table {
        daemon,
        rows: Vec::new(),
    };
    slow(&mut table);
    no_http(&mut table);
    hosts(&mut table);
    lengths(&mut table);
    heads(&mut table);
    paths(&mut table);
    json(&mut table);
    uploads(&mut table);
    strangers(&mut table);
    table.rows
}

fn slow(table: &mut Table<'_>) {
    let json = "Content-Type: application/json\r\nContent-Length: 100\r\n";
    let body = table.head("POST /v1/jobs", json);
    let digest = "0".repeat(64);
    let upload = format!("PUT /v1/blobs/{digest}");
    let upload = table.head(&upload, "Content-Length: 100\r\n");
    let alive = table.head("GET /v1/models", "");
    let alive = alive.replace("Connection: close\r\n", "");
    table.raw("not a byte", "", Read, &[0, 408]);
    table.raw("half a head", "GET /v1/mod", Read, &[0, 408]);
    table.raw(
        "a head byte by byte",
        "GET / HTTP/1.1\r\nX: ",
        Trickle(b'a'),
        &[0, 408],
    );
    table.raw(
        "half a head, and its end",
        "GET /v1/mod",
        HalfClose,
        &[0, 400],
    );
    table.raw("a connection kept for good", alive, Read, &[200]);
    table.raw("a body that never comes", body.clone(), Read, &[408]);
    table.raw("a body byte by byte", body.clone(), Trickle(b' '), &[408]);
    table.raw("an upload byte by byte", upload, Trickle(b'x'), &[408]);
    table.raw("a body's end before its length", body, HalfClose, &[0, 400]);
}

fn no_http(table: &mut Table<'_>) {
    let garbage = table
        .head("GET /v1/models", "")
        .replace("Connection: close\r\n", "");
    table.raw(
        "TLS to a port without",
        *b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        HalfClose,
        &[0, 400],
    );
    table.raw(
        "HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        Read,
        &[0, 400, 505],
    );
    table.raw("HTTP/0.9", "GET /v1/models\r\n\r\n", Read, &[400]);
    table.raw("HTTP/9.9", "GET / HTTP/9.9\r\n\r\n", Read, &[400, 505]);
    table.raw("a shell", "rm -rf /\r\n\r\n", Read, &[400]);
    table.raw("zeros", vec![0; 70_000], Read, &[400, 431]);
    table.raw(
        "a request, then no request",
        garbage + "\x01\x02\r\n\r\n",
        Read,
        &[200],
    );
}

fn hosts(table: &mut Table<'_>) {
    let good = table.head("GET /v1/models", "");
    let line = format!("Host: {}\r\n", table.daemon.address);
    let with = |lines: &str| good.replace(&line, lines);
    let absolute = good.replace("GET /", "GET http://evil.example/");
    let (port, user) = (
        with("Host: localhost:80:80\r\n"),
        with("Host: a@localhost\r\n"),
    );
    table.raw("no Host", with(""), Read, &[400]);
    table.raw("two Hosts", with(&format!("{line}{line}")), Read, &[400]);
    table.raw("another Host", with("Host: evil.example\r\n"), Read, &[421]);
    table.raw(
        "a Host that begins as ours",
        with("Host: localhost.evil.example\r\n"),
        Read,
        &[421],
    );
    table.raw("two ports", port, Read, &[421]);
    table.raw("a Host with a user", user, Read, &[421]);
    table.raw("another host in the URI", absolute, Read, &[421]);
    table.send(
        "another origin",
        "GET /v1/models",
        "Origin: https://evil.example\r\n",
        b"",
        &[403],
    );
    table.send(
        "no origin at all",
        "GET /v1/models",
        "Origin: null\r\n",
        b"",
        &[403],
    );
    let asks = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    table.send(
        "a page that asks first",
        "OPTIONS /v1/jobs",
        asks,
        b"",
        &[403],
    );
}

fn lengths(table: &mut Table<'_>) {
    const LINE: &str = "POST /v1/jobs";
    let kind = "Content-Type: application/json\r\n";
    let mut post = |why, lines: &str, body: &[u8], expected| {
        table.send(why, LINE, &format!("{kind}{lines}"), body, expected);
    };
    post(
        "a length below nothing",
        "Content-Length: -1\r\n",
        b"",
        &[400],
    );
    post(
        "a length that is none",
        "Content-Length: ten\r\n",
        b"",
        &[400],
    );
    post(
        "a length past all numbers",
        "Content-Length: 99999999999999999999999\r\n",
        b"",
        &[400],
    );
    post(
        "two lengths",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        b"{} ",
        &[400],
    );
    post(
        "a length that hides a request",
        "Content-Length: 2\r\n",
        b"{}GET / HTTP/1.1\r\n\r\n",
        &[400],
    );
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    // The chunks count, and nothing after them is another request.
    let smuggled = b"2\r\n{}\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n";
    post("a length and chunks", both, smuggled, &[400]);
    post(
        "an encoding that does not end in chunks",
        "Transfer-Encoding: chunked, gzip\r\n",
        b"",
        &[400],
    );
    let chunked = "Transfer-Encoding: chunked\r\n";
    post(
        "a chunk's size that is none",
        chunked,
        b"zz\r\n{}\r\n",
        &[400],
    );
    post(
        "a chunk's size past all numbers",
        chunked,
        b"FFFFFFFFFFFFFFFFF\r\n{}\r\n",
        &[400],
    );
    let extension = [b"1;".to_vec(), vec![b'a'; 40_000]].concat();
    post("a chunk's endless extension", chunked, &extension, &[400]);
    let trailers = [b"0\r\nX: ".to_vec(), vec![b'a'; 70_000]].concat();
    post("an endless trailer", chunked, &trailers, &[400]);
    post(
        "a size that is too much",
        "Content-Length: 100000000\r\n",
        b"",
        &[413],
    );
    let declared = "Content-Length: 100000000\r\nExpect: 100-continue\r\n";
    post("too much, and a question first", declared, b"", &[413]);
    let streamed = [b"1900000\r\n".to_vec(), vec![b' '; 0x190_0000]].concat();
    post(
        "too much, without a word before",
        chunked,
        &streamed,
        &[413],
    );
}

fn heads(table: &mut Table<'_>) {
    let mut get = |why, lines: &str, expected| {
        table.send(why, "GET /v1/models", lines, b"", expected);
    };
    get(
        "a field of 40,000 bytes",
        &format!("X: {}\r\n", "a".repeat(40_000)),
        &[431],
    );
    get("200 fields", &"X: a\r\n".repeat(200), &[431]);
    get("a zero in a field", "X: a\0b\r\n", &[400]);
    get("a field in two lines", "X: a\r\n b\r\n", &[400]);
    get("a space before the colon", "X : a\r\n", &[400]);
    get("a name with a space", "X Y: a\r\n", &[400]);
    table.get(
        "a URI of 70,000 bytes",
        &format!("/{}", "a".repeat(70_000)),
        &[414, 431],
    );
    for (why, line, expected) in [
        ("a method nobody knows", "BREW /v1/jobs", &[405][..]),
        ("a method in small letters", "get /v1/models", &[405]),
        ("a tunnel", "CONNECT localhost:1", &[400, 404, 405, 421]),
        ("an echo", "TRACE /v1/jobs", &[405]),
        ("a deletion", "DELETE /v1/jobs", &[405]),
        ("all paths", "OPTIONS *", &[400, 404, 405]),
    ] {
        table.send(why, line, "", b"", expected);
    }
}

fn paths(table: &mut Table<'_>) {
    let digest = "ab".repeat(32);
    let up = digest.to_uppercase();
    for (why, name, expected) in [
        ("the folder above", "..", &[400, 404][..]),
        ("the folder above, hidden", "%2e%2e", &[400]),
        ("the ledger", "..%2f..%2fserve%2fledger.sqlite", &[400]),
        ("an absolute path", "%2fetc%2fpasswd", &[400]),
        ("a zero in a name", &format!("{digest}%00"), &[400]),
        ("a digest in capitals", &up, &[400]),
        (
            "a digest twice as long",
            &format!("{digest}{digest}"),
            &[400],
        ),
        ("5,000 bytes of digest", &"a".repeat(5000), &[400]),
        ("a smile", "%F0%9F%98%80", &[400]),
        ("a smile of 64 bytes", &"%F0%9F%98%80".repeat(16), &[400]),
        ("no UTF-8", "%ff%fe", &[400]),
        ("half a sign", "%f", &[400]),
    ] {
        table.put(why, name, "", expected);
        table.get(why, &format!("/v1/jobs/{name}"), expected);
    }
    table.get("a raw byte that is no text", "/v1/jobs/\u{80}", &[400]);
    table.get(
        "a way around",
        "/v1/models/../jobs/../../etc/passwd",
        &[404],
    );
    table.get("two slashes", "//v1/models", &[404]);
}

fn json(table: &mut Table<'_>) {
    let null = |input: &str| format!(r#"{{"model":"null","input":"","seed":{input}}}"#);
    table.post("100,000 brackets", "[".repeat(100_000).as_bytes(), &[400]);
    table.post(
        "100,000 objects",
        "{\"a\":".repeat(100_000).as_bytes(),
        &[400],
    );
    table.post(
        "a million digits",
        null(&"1".repeat(1_000_000)).as_bytes(),
        &[400],
    );
    table.post(
        "a number past all numbers",
        null("1e999999999").as_bytes(),
        &[400],
    );
    table.post(
        "half a million values",
        format!("[{}0]", "0,".repeat(500_000)).as_bytes(),
        &[400],
    );
    table.post(
        "one name twice",
        br#"{"model":"echo","model":"none","input":""}"#,
        &[400],
    );
    table.post("no UTF-8", b"{\"model\":\"\xff\xfe\"}", &[400]);
    table.post("half a pair", br#"{"model":"\ud800","input":""}"#, &[400]);
    table.post("UTF-16", b"\xff\xfe{\0}\0", &[400]);
    table.post("a zero in a text", b"{\"model\":\"a\0\"}", &[400]);
    table.post("comments", b"{/* */}", &[400]);
    table.post("two documents", b"{}{}", &[400]);
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n";
    table.send("a form", "POST /v1/jobs", form, b"{}", &[415]);
    table.send(
        "no type",
        "POST /v1/jobs",
        "Content-Length: 2\r\n",
        b"{}",
        &[415],
    );
}

fn uploads(table: &mut Table<'_>) {
    let digest = "cd".repeat(32);
    table.put("bytes of another digest", &digest, "", &[400]);
    for (why, range) in [
        ("a range that goes back", "bytes 5-1/9"),
        ("a range without an end", "bytes 0-"),
        ("a range without a size", "bytes 0-0/*"),
        ("a range past its size", "bytes 0-9/9"),
        ("a range of something else", "octets 0-0/1"),
        (
            "a range past all numbers",
            "bytes 0-0/99999999999999999999999",
        ),
        ("a range below nothing", "bytes -1-0/1"),
    ] {
        table.put(why, &digest, &format!("Content-Range: {range}\r\n"), &[416]);
    }
    let digest = "ce".repeat(32);
    table.put(
        "a piece from the middle",
        &digest,
        "Content-Range: bytes 7-7/9\r\n",
        &[409],
    );
    table.put(
        "a blob of an exabyte",
        &digest,
        "Content-Range: bytes 0-0/1000000000000000000\r\n",
        &[413],
    );
    let line = format!("PUT /v1/blobs/{digest}");
    let chunks = "Transfer-Encoding: chunked\r\n";
    table.send(
        "an upload of any size",
        &line,
        chunks,
        b"1\r\nx\r\n0\r\n\r\n",
        &[411],
    );
    // A blob of its own: one that is being uploaded is no other's.
    let line = line.replace("ce", "cf");
    let more = format!("{chunks}Content-Range: bytes 0-0/1\r\n");
    table.send(
        "more than was said",
        &line,
        &more,
        b"2\r\nxx\r\n0\r\n\r\n",
        &[400],
    );
}

fn strangers(table: &mut Table<'_>) {
    let key = format!("Authorization: Bearer {}\r\n", table.daemon.key);
    let digest = "ef".repeat(32);
    for line in [
        "POST /v1/jobs",
        "POST /v1/quote",
        "GET /v1/models",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/embeddings",
        &format!("GET /v1/jobs/{digest}"),
        &format!("GET /v1/jobs/{digest}/events"),
        &format!("GET /v1/jobs/{digest}/output"),
        &format!("GET /v1/jobs/{digest}/receipt"),
        &format!("POST /v1/jobs/{digest}/cancel"),
        &format!("HEAD /v1/blobs/{digest}"),
        &format!("PUT /v1/blobs/{digest}"),
    ] {
        let head = table.head(line, "Content-Length: 0\r\n");
        table.raw("no key", head.replace(&key, ""), Read, &[401]);
    }
    let head = table.head("GET /v1/models", "");
    for (why, lines) in [
        ("another key", "Authorization: Bearer tsk_00\r\n".to_owned()),
        (
            "a key without end",
            format!("Authorization: Bearer {}\r\n", "a".repeat(20_000)),
        ),
        ("another scheme", "Authorization: Basic dTpw\r\n".to_owned()),
        ("a key twice", format!("{key}{key}")),
        ("SQL", "Authorization: Bearer ' OR 1=1 --\r\n".to_owned()),
    ] {
        table.raw(why, head.replace(&key, &lines), Read, &[401]);
    }
}
