//! Other processes that keep CPUs busy while figures are measured.
//! In: how many. Out: that many copies of this program, each of which computes without end on one thread.
//! They end when what started them does, however that ends.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The first word of a copy's command line.
pub(crate) const SWITCH: &str = "--spin";

/// The processes; dropped, they end.
pub(crate) struct Contenders(Vec<Child>);

impl Contenders {
    pub(crate) fn start(count: u32) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut all = Self(Vec::new());
        for _ in 0..count {
            let mut command = Command::new(&program);
            all.0
                .push(command.arg(SWITCH).stdin(Stdio::piped()).spawn()?);
        }
        Ok(all)
    }
}

impl Drop for Contenders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that ended by itself has nothing left to end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a copy does, until `input` ends.
pub(crate) fn spin(mut input: impl Read) -> io::Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 1u32;
            while !over.load(Ordering::Relaxed) {
                for _ in 0..1 << 16 {
                    state = std::hint::black_box(state.wrapping_mul(747_796_405).wrapping_add(1));
                }
            }
        });
        let read = io::copy(&mut input, &mut io::sink());
        over.store(true, Ordering::Relaxed);
        read.map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_ends_when_nobody_holds_its_input() {
        let (input, held) = io::pipe().unwrap();
        let copy = thread::spawn(move || spin(input));
        assert!(!copy.is_finished());
        drop(held);
        copy.join().unwrap().unwrap();
    }
}
