//! `tussah build`: source to module and manifest.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tussah_manifest::Label;

use crate::{
    build::{self, Built, Image},
    exit_code::Exit,
    failure::Failure,
    home::Home,
    interrupt::Interrupt,
    ui::{self, Ui},
};

const EXAMPLES: &str = "\
Examples:
  tussah build                 Build the job of this folder
  tussah build jobs/summarize  Build another one
  tussah build --verifiable    From the commit alone, for `tussah verify` of others
  tussah build --json | jq -r .module.digest

Writes module.wasm and manifest.toml to tussah/<name>/ in cargo's target folder. The same
source, Cargo.lock and toolchain give the same bytes in every folder and for every user;
flags and profiles of your own environment do not go in.";

/// Build a job: its module, and its manifest with the module's digest.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The job's folder, with Cargo.toml and tussah.toml.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Build a clean export of the commit, and record the source's SHA-256. Refuses uncommitted
    /// changes, packages outside the tree, a missing lock file, and another toolchain than a
    /// committed manifest.toml records.
    #[arg(long)]
    verifiable: bool,
    /// Where others can get the source; recorded in the module.
    #[arg(long, value_name = "URI", requires = "verifiable")]
    source_uri: Option<Label>,
    /// Build in a container of this image, by podman or docker; recorded in the module.
    #[arg(long, value_name = "NAME@sha256:DIGEST", requires = "verifiable")]
    image: Option<Image>,
    /// Compilers at a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    module: ModuleView<'a>,
    manifest: ManifestView<'a>,
    toolchain: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a str>,
    build_ms: u128,
}

#[derive(Serialize)]
struct ModuleView<'a> {
    digest: String,
    size_bytes: u64,
    path: &'a std::path::Path,
}

#[derive(Serialize)]
struct ManifestView<'a> {
    digest: String,
    path: &'a std::path::Path,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let interrupt = Interrupt::install()?;
        let home = Home::open()?;
        let (built, commit) = match self.verifiable {
            true => {
                let uri = self.source_uri;
                let image = self.image.as_ref();
                let (built, commit) = build::build_verifiable(
                    &home,
                    &self.folder,
                    uri,
                    image,
                    self.jobs,
                    ui,
                    &interrupt,
                )?;
                (built, Some(commit))
            }
            false => (
                build::build(&home, &self.folder, self.jobs, ui, &interrupt)?,
                None,
            ),
        };
        if ui.json() {
            ui.document(&view(&built, commit.as_deref()))?;
            return Ok(Exit::DONE);
        }
        let shown = |path: &std::path::Path| {
            // Short where the user stands above it.
            let here = std::env::current_dir().unwrap_or_default();
            path.strip_prefix(here)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        ui.line(&format!(
            "module    {}  {}",
            built.module,
            ui::size(built.size_bytes)
        ))?;
        ui.line(&format!("          {}", shown(&built.module_path)))?;
        ui.line(&format!("manifest  {}", built.manifest.digest()))?;
        ui.line(&format!("          {}", shown(&built.manifest_path)))?;
        if let Some(commit) = commit {
            let road = match &self.image {
                Some(image) => format!("in a container of {image}"),
                None => "without a container".to_owned(),
            };
            ui.note(&format!(
                "built from a clean export of commit {commit}, {road}"
            ));
        }
        ui.note(&format!(
            "built in {} with {}",
            ui::duration(built.took),
            built.rustc
        ));
        Ok(Exit::DONE)
    }
}

fn view<'a>(built: &'a Built, commit: Option<&'a str>) -> View<'a> {
    View {
        name: built.manifest.job.name.as_str(),
        module: ModuleView {
            digest: built.module.to_string(),
            size_bytes: built.size_bytes,
            path: &built.module_path,
        },
        manifest: ManifestView {
            digest: built.manifest.digest().to_string(),
            path: &built.manifest_path,
        },
        toolchain: &built.rustc,
        commit,
        build_ms: built.took.as_millis(),
    }
}
