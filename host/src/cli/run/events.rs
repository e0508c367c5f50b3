//! What a run shows while it goes on: output at once, the rest as progress.

use std::sync::{Mutex, PoisonError};

use tussah_runtime::{Event, Events};

use crate::{
    failure::Failure,
    ui::{Bar, Ui},
};

/// Streams output to standard output, and progress to the terminal.
#[derive(Debug)]
pub(in crate::cli) struct Shown {
    ui: Ui,
    /// Output is held back: it comes in a document at the end, or nobody wants it.
    silent: bool,
    /// Written by the run's threads, one event at a time.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bar: Option<(Stage, Bar)>,
    /// The first failure to write output; what comes after it is lost anyway.
    failure: Option<Failure>,
    ends_with_newline: bool,
    wrote: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Compiling,
    Loading,
    Generating,
}

impl Shown {
    pub(in crate::cli) fn new(ui: Ui, silent: bool) -> Self {
        Self {
            ui,
            silent,
            state: Mutex::default(),
        }
    }

    /// Ends the display.
    ///
    /// # Errors
    /// The first failure to write output.
    pub(in crate::cli) fn finish(&self) -> Result<(), Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bar = None;
        if state.wrote && !state.ends_with_newline && self.ui.stdout_is_terminal() {
            self.ui.out(b"\n")?;
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    fn output(&self, state: &mut State, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        if self.silent || state.failure.is_some() {
            return;
        }
        if self.ui.stdout_is_terminal() {
            state.bar = None; // It would run into the text.
        }
        state.ends_with_newline = *last == b'\n';
        state.wrote = true;
        state.failure = self.ui.out(bytes).err();
    }
}

impl State {
    fn bar(&mut self, stage: Stage, make: impl FnOnce() -> Bar) -> &Bar {
        if self
            .bar
            .as_ref()
            .is_none_or(|(current, _)| *current != stage)
        {
            self.bar = None; // Cleared before the next one is drawn.
        }
        &self.bar.get_or_insert_with(|| (stage, make())).1
    }
}

impl Events for Shown {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Compiling => {
                state.bar(Stage::Compiling, || self.ui.spinner("compiling the module"));
            }
            Event::Compiled { .. } => state.bar = None,
            Event::ModelLoading {
                done_bytes,
                total_bytes,
            } => {
                let make = || self.ui.bytes_bar("loading", total_bytes);
                state.bar(Stage::Loading, make).set(done_bytes);
                if done_bytes == total_bytes {
                    state.bar = None;
                }
            }
            Event::Tokens { generated, prompt } => {
                let bar = state.bar(Stage::Generating, || self.ui.tokens_bar("generating"));
                bar.add(generated);
                if prompt > 0 {
                    bar.say("reading");
                } else if generated > 0 {
                    bar.say("generating");
                }
            }
            Event::Output(bytes) => self.output(&mut state, bytes),
            Event::Log(bytes) => self.ui.log(bytes),
            Event::Progress { note, done, total } => {
                let total = total.map_or_else(String::new, |total| format!("/{total}"));
                let bar = state.bar(Stage::Generating, || self.ui.tokens_bar("generating"));
                bar.say(format!("{} {done}{total}", printable(note)));
            }
            Event::Warning(text) => self.ui.warn(text),
            _ => {}
        }
    }
}

/// A guest's words on a terminal: without what could move the cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
