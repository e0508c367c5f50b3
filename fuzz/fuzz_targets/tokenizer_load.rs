//! Any vocabulary, merges, scores, types and special ids as a tokenizer, then any text through it: no
//! panic, no memory beyond the stated factors, and text that comes back as it went in.
//!
//! An input has parts, with an empty line between them; `fuzz/seeds/tokenizer_load` has examples.
//! First come the kind (`gpt2`, `llama`, or `wordpiece` for a `vocab.txt`), the cut of `gpt2`, and words
//! of [`Head`]; then the tokens, one a line, each behind the letter of its type and that of its score;
//! then the merges, one a line; the rest is the text.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use libfuzzer_sys::fuzz_target;
use tussah_inference::{
    AddBos, Casing, EncodeOptions, Gguf, TOKENIZER_ALLOCATION_FACTOR, Tokenizer, WordPieceSpecials,
};

/// What the tables of a fixed size take, whatever the file.
const FIXED_BYTES: usize = 64 << 10;
/// What encoding may hold at once, for each byte of text: parts, candidates, tokens, their growth.
const ENCODE_FACTOR: usize = 512;

/// Counts the bytes that are held, and the most that were.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the system's too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the block came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `body`, which may hold `most` bytes more than are held now.
fn within<T>(most: usize, what: &str, body: impl FnOnce() -> T) -> T {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = body();
    let took = PEAK.load(Ordering::Relaxed) - before;
    assert!(
        took <= most,
        "{what} took {took} bytes, at most {most} are allowed"
    );
    result
}

/// The words of an input's first line.
struct Head<'a> {
    kind: &'a str,
    cut: &'a str,
    /// Flags `bytes`: a token for each byte goes before the others; `untyped`: no types; `unscored`: no
    /// scores; `unmerged`: no merges; `cased`, `accents`, `joined`: a `vocab.txt`'s casing. All else that
    /// has a `=` is a key of the metadata: `bos_token_id=1`, `add_space_prefix=false`.
    rest: Vec<&'a str>,
}

impl Head<'_> {
    fn has(&self, flag: &str) -> bool {
        self.rest.contains(&flag)
    }
}

/// The file's bytes, key by key.
#[derive(Default)]
struct Writer {
    keys: u64,
    body: Vec<u8>,
}

impl Writer {
    fn text(&mut self, text: &[u8]) {
        self.body.extend((text.len() as u64).to_le_bytes());
        self.body.extend(text);
    }

    fn key(&mut self, key: &str, code: u32) {
        self.keys += 1;
        self.text(format!("tokenizer.ggml.{key}").as_bytes());
        self.body.extend(code.to_le_bytes());
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        self.text(value.as_bytes());
    }

    fn array(&mut self, key: &str, code: u32, count: usize) {
        self.key(key, 9);
        self.body.extend(code.to_le_bytes());
        self.body.extend((count as u64).to_le_bytes());
    }

    fn file(self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        out.extend(self.keys.to_le_bytes());
        out.extend(self.body);
        out
    }
}

/// A token as the file has it.
struct Token {
    kind: i32,
    score: f32,
    text: Vec<u8>,
}

/// GPT-2's characters for the bytes: themselves where they print, else those from 256 on.
fn gpt2_letter(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|it| !prints(*it)).count() as u32;
    char::from_u32(256 + before).expect("far below the surrogates")
}

fn byte_token(kind: &str, byte: u8) -> Token {
    let (kind, text) = match kind {
        "llama" => (6, format!("<0x{byte:02X}>")),
        _ => (1, gpt2_letter(byte).to_string()),
    };
    Token {
        kind,
        score: 0.0,
        text: text.into_bytes(),
    }
}

/// A line: the type's digit, a letter for the score, the text.
fn token(line: &[u8]) -> Token {
    let letter = line.get(1).copied().unwrap_or(b'A');
    Token {
        kind: i32::from(line.first().copied().unwrap_or(b'1')) - i32::from(b'0'),
        score: match letter {
            b'!' => f32::NAN,
            b'^' => f32::INFINITY,
            _ => f32::from(b'A') - f32::from(letter),
        },
        text: line.get(2..).unwrap_or_default().to_vec(),
    }
}

fn gguf(head: &Head, tokens: &[Token], merges: &[&[u8]]) -> Vec<u8> {
    let mut out = Writer::default();
    out.string("model", head.kind);
    out.string("pre", head.cut);
    out.array("tokens", 8, tokens.len());
    tokens.iter().for_each(|token| out.text(&token.text));
    if !head.has("untyped") {
        out.array("token_type", 5, tokens.len());
        let types = tokens.iter().flat_map(|token| token.kind.to_le_bytes());
        out.body.extend(types);
    }
    if !head.has("unscored") {
        out.array("scores", 6, tokens.len());
        let scores = tokens.iter().flat_map(|token| token.score.to_le_bytes());
        out.body.extend(scores);
    }
    if !head.has("unmerged") {
        out.array("merges", 8, merges.len());
        merges.iter().for_each(|merge| out.text(merge));
    }
    for (key, value) in head.rest.iter().filter_map(|word| word.split_once('=')) {
        match (value.parse::<u32>(), value.parse::<bool>()) {
            (Ok(id), _) => {
                out.key(key, 4);
                out.body.extend(id.to_le_bytes());
            }
            (_, Ok(flag)) => {
                out.key(key, 7);
                out.body.push(u8::from(flag));
            }
            _ => out.string(key, value),
        }
    }
    out.file()
}

/// Splits at the first empty line.
fn part(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[]),
    }
}

fn lines(part: &[u8]) -> Vec<&[u8]> {
    let lines = part.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty()).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let (head, rest) = part(bytes);
    let (vocabulary, rest) = part(rest);
    let Ok(head) = std::str::from_utf8(head) else {
        return;
    };
    let mut words = head.split_whitespace();
    let head = Head {
        kind: words.next().unwrap_or_default(),
        cut: words.next().unwrap_or_default(),
        rest: words.collect(),
    };
    if head.kind == "wordpiece" {
        let special = WordPieceSpecials::default();
        let casing = Casing {
            lower_case: !head.has("cased"),
            strip_accents: !head.has("accents"),
            split_ideographs: !head.has("joined"),
        };
        let most = TOKENIZER_ALLOCATION_FACTOR * vocabulary.len() + FIXED_BYTES;
        let tokenizer = within(most, "the vocabulary", || {
            Tokenizer::from_vocab_txt(vocabulary, casing, &special)
        });
        if let Ok(tokenizer) = tokenizer {
            encode(
                &tokenizer,
                &String::from_utf8_lossy(rest),
                AddBos::ByMetadata,
            );
        }
        return;
    }
    let (merges, text) = part(rest);
    let mut tokens = Vec::new();
    if head.has("bytes") {
        tokens.extend((0..=255).map(|byte| byte_token(head.kind, byte)));
    }
    tokens.extend(lines(vocabulary).into_iter().map(token));
    let file = gguf(&head, &tokens, &lines(merges));
    let most = TOKENIZER_ALLOCATION_FACTOR * file.len() + FIXED_BYTES;
    // A key that is there twice.
    let Ok(gguf) = Gguf::from_bytes(file) else {
        return;
    };
    let Ok(tokenizer) = within(most, "the tokenizer", || Tokenizer::from_gguf(&gguf)) else {
        return;
    };
    assert_eq!(tokenizer.len(), tokens.len());
    let text = String::from_utf8_lossy(text);
    encode(&tokenizer, &text, AddBos::ByMetadata);
    let is_split = tokens.iter().any(|token| {
        let is_found = token.kind == 4 && !head.has("untyped") && !token.text.is_empty();
        is_found
            && text
                .as_bytes()
                .windows(token.text.len())
                .any(|it| it == token.text)
    });
    let Some(read) = encode(&tokenizer, &text, AddBos::Never) else {
        return;
    };
    // SentencePiece puts its space after every token that is found first, and knows one space alone;
    // Qwen's text is composed.
    match head.kind {
        "llama" if is_split => {}
        "llama" => assert_eq!(read, text.replace('\u{2581}', " ").as_bytes()),
        _ if !text.is_ascii() && matches!(head.cut, "qwen2") => {}
        _ => assert_eq!(read, text.as_bytes()),
    }
});

/// Encodes both ways; what comes back where control tokens are text.
fn encode(tokenizer: &Tokenizer, text: &str, add_bos: AddBos) -> Option<Vec<u8>> {
    let [_, plain] = [true, false].map(|parse_special| {
        let options = EncodeOptions {
            add_bos,
            parse_special,
        };
        let most = ENCODE_FACTOR * text.len() + FIXED_BYTES;
        let encoded = within(most, "encoding", || tokenizer.encode(text, options));
        let tokens = encoded.ok()?;
        for token in &tokens {
            assert!((token.0 as usize) < tokenizer.len(), "token {token}");
        }
        Some(tokenizer.decode(&tokens))
    });
    plain
}
