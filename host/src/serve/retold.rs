//! What the daemon's children say on standard error, told again line by line.
//!
//! In: the bytes of a process that may have been taken over. Out: lines of plain text with the
//! process's name in front, so many a minute at most. No child has the terminal itself, so none
//! can move its cursor, colour it, type into it, or fill a disk with what it says.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt as _, net::unix::pipe, task::JoinHandle};

use crate::ui::Ui;

/// The most bytes of a line that are told.
const LINE_BYTES_MAX: usize = 1024;
/// The most lines in a window of time.
const LINES_MAX: u32 = 120;
const WINDOW: Duration = Duration::from_secs(60);

/// Tells what comes out of this pipe until it is closed. To be called within a runtime.
///
/// # Errors
/// The system's, if it is no pipe.
pub(super) fn retell(
    name: &'static str,
    stderr: OwnedFd,
    ui: Ui,
) -> std::io::Result<JoinHandle<()>> {
    let mut pipe = pipe::Receiver::from_owned_fd(stderr)?;
    Ok(tokio::spawn(async move {
        let mut lines = Lines::default();
        let mut budget = Budget::new(Instant::now());
        let mut bytes = vec![0; 4096];
        let tell = |line: String| ui.note(&format!("{name}: {line}"));
        while let Ok(count @ 1..) = pipe.read(&mut bytes).await {
            for line in lines.add(&bytes[..count]) {
                budget.tell(line, Instant::now(), &tell);
            }
        }
        if let Some(line) = lines.end() {
            budget.tell(line, Instant::now(), &tell);
        }
        budget.over(&tell);
    }))
}

/// Bytes to lines of plain text.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => lines.extend(self.end()),
                _ if self.line.len() < LINE_BYTES_MAX => self.line.push(*byte),
                _ => self.is_cut = true,
            }
        }
        lines
    }

    /// The line so far, if there is anything in it.
    fn end(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.line);
        let mut text: String = text.chars().filter(|c| is_plain(*c)).collect();
        if std::mem::take(&mut self.is_cut) {
            text.push_str(" …");
        }
        self.line.clear();
        (!text.trim().is_empty()).then_some(text)
    }
}

/// Neither a control character nor one that changes the direction of text or is not seen.
fn is_plain(c: char) -> bool {
    let is_unseen = matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    !c.is_control() && !is_unseen
}

/// So many lines a window, and a word on how many there were more.
struct Budget {
    since: Instant,
    told: u32,
    left_out: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            told: 0,
            left_out: 0,
        }
    }

    fn tell(&mut self, line: String, now: Instant, tell: &impl Fn(String)) {
        if now.duration_since(self.since) >= WINDOW {
            self.over(tell);
            *self = Self::new(now);
        }
        if self.told < LINES_MAX {
            self.told += 1;
            tell(line);
        } else {
            self.left_out += 1;
        }
    }

    fn over(&self, tell: &impl Fn(String)) {
        if self.left_out > 0 {
            tell(format!("… and {} more lines", self.left_out));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn lines_are_plain_and_bounded_however_they_come() {
        let long = "x".repeat(LINE_BYTES_MAX + 5);
        for (said, expected) in [
            ("one\ntwo\n", vec!["one", "two"]),
            // The last one without an end.
            ("one\ntwo", vec!["one", "two"]),
            ("\n \n\t\n", vec![]),
            // Clears a terminal, sets its title, rings: what is left is harmless text.
            ("\x1b[2J\x1b]0;title\x07bell\r\n", vec!["[2J]0;titlebell"]),
            // Text that would be shown backwards.
            ("a\u{202e}b\u{200b}c\n", vec!["abc"]),
            (&long, vec![&*format!("{} …", &long[..LINE_BYTES_MAX])]),
        ] {
            for step in [1, 7, said.len()] {
                let mut lines = Lines::default();
                let mut found = Vec::new();
                for piece in said.as_bytes().chunks(step) {
                    found.extend(lines.add(piece));
                }
                found.extend(lines.end());
                assert_eq!(found, expected, "{said:?} by {step}");
            }
        }
        let mut lines = Lines::default();
        assert_eq!(lines.add(&[0xff, b'a', 0xc3, b'\n']), ["\u{fffd}a\u{fffd}"]);
    }

    #[test]
    fn a_flood_is_counted_and_not_told() {
        let start = Instant::now();
        let told = RefCell::new(Vec::new());
        let tell = |line| told.borrow_mut().push(line);
        let mut budget = Budget::new(start);
        for number in 0..LINES_MAX + 1000 {
            budget.tell(number.to_string(), start, &tell);
        }
        assert_eq!(told.borrow().len(), LINES_MAX as usize);
        budget.tell("later".to_owned(), start + WINDOW, &tell);
        let told = told.borrow();
        assert_eq!(told[told.len() - 2..], ["… and 1000 more lines", "later"]);
    }
}
