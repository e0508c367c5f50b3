//! `tussah model`: models by name, and the engine alone.

mod add;
mod generate;
mod intake;
mod list;
mod pull;
mod random;
mod remove;
mod show;
mod tokenize;

pub(super) use intake::{format_of, import};

use clap::Subcommand;
use tussah_manifest::ModelName;

use crate::{blobs::Blobs, exit_code::Exit, failure::Failure, home::Home, models::Models, ui::Ui};

/// Add, look at and try models.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pull(pull::Arguments),
    Add(add::Arguments),
    List(list::Arguments),
    Show(show::Arguments),
    Remove(remove::Arguments),
    Random(random::Arguments),
    Generate(generate::Arguments),
    Tokenize(tokenize::Arguments),
}

impl Command {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Pull(arguments) => arguments.json,
            Self::Add(arguments) => arguments.json,
            Self::List(arguments) => arguments.json,
            Self::Show(arguments) => arguments.json,
            Self::Remove(arguments) => arguments.json,
            Self::Random(arguments) => arguments.json,
            Self::Generate(arguments) => arguments.json,
            Self::Tokenize(arguments) => arguments.json,
        }
    }

    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let store = Store::open()?;
        match self {
            Self::Pull(arguments) => arguments.run(&store, ui),
            Self::Add(arguments) => arguments.run(&store, ui),
            Self::List(arguments) => arguments.run(&store, ui),
            Self::Show(arguments) => arguments.run(&store, ui),
            Self::Remove(arguments) => arguments.run(&store, ui),
            Self::Random(arguments) => arguments.run(&store, ui),
            Self::Generate(arguments) => arguments.run(&store, ui),
            Self::Tokenize(arguments) => arguments.run(&store, ui),
        }
    }
}

/// What all of these commands need.
#[derive(Debug)]
pub(super) struct Store {
    home: Home,
    blobs: Blobs,
    models: Models,
}

impl Store {
    fn open() -> Result<Self, Failure> {
        let home = Home::open()?;
        Ok(Self {
            blobs: Blobs::open(&home)?,
            models: Models::open(&home)?,
            home,
        })
    }
}

/// For clap: a name, or what is wrong with it.
pub(super) fn model_name(text: &str) -> Result<ModelName, String> {
    text.parse::<ModelName>().map_err(|error| error.to_string())
}
