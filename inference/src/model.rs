//! A model file → a model that sessions run on.
//! In: a GGUF file, untrusted, and which engine to load it into. Out: [`Model`], shared by all sessions.
//! It never runs a model whose plan it does not fully understand.

pub(crate) mod bert;
mod decoder;
pub(crate) mod plan;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use crate::archive::{Archive, ArchiveError};
use crate::backend::{Backend, BackendError, TextEncoder};
use crate::chat::{ChatError, ChatMessage, ChatTemplate};
use crate::cpu::exact::{self, ExactEncoder, PackedCache, Precision};
use crate::cpu::oracle::{Oracle, OracleEncoder};
use crate::cpu::simd::{SimdLevel, SimdUnavailable};
use crate::gguf::{Gguf, GgufError};
use crate::gpu::{self, Gpu, GpuInfo};
use crate::quant::QuantType;
use crate::safetensors::SafetensorsError;
use crate::scheduler::ContextMemory;
use crate::tokenizer::{AddBos, EncodeOptions, TokenId, Tokenizer, TokenizerError};
use bert::EncoderPlan;
use plan::Plan;

/// The most threads a model may use.
pub const THREADS_MAX: usize = 256;

/// Which arithmetic runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// The exact profile: the same bits on every device, at every width and thread count.
    #[default]
    Exact,
    /// f32 on a GPU, 8-bit activations on a CPU: the device's own bits, the same each time. To weigh the exact
    /// profile against; jobs do not run on it.
    Fast,
    /// Scalar f32, slow and obvious; for tests to compare with.
    Oracle,
}

/// Where a model runs. There is no falling back from one to the other.
#[derive(Debug, Clone, Default)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// A GPU, for decoders.
    Gpu(Arc<Gpu>),
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu, Self::Cpu) => true,
            (Self::Gpu(gpu), Self::Gpu(other)) => Arc::ptr_eq(gpu, other),
            _ => false,
        }
    }
}

impl Eq for Device {}

/// How to load a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// The arithmetic.
    pub engine: Engine,
    /// Threads of one step; 0 takes one for each CPU that this process may use.
    pub threads: usize,
    /// Kernels of the exact engine on CPUs; the bits do not depend on it.
    pub simd: SimdLevel,
    /// Where it runs; the exact engine's bits do not depend on it.
    pub device: Device,
    /// Where packed weights of decoders on CPUs are kept; `None` packs them at each load.
    pub packed: Option<PackedCache>,
    /// What sessions on the CPU have for keys and values, with those of other models that have the same.
    pub context_memory: ContextMemory,
}

impl LoadOptions {
    /// How many threads that is.
    fn threads(&self) -> Result<usize, ModelError> {
        match self.threads {
            0 => Ok(std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(THREADS_MAX)),
            threads if threads > THREADS_MAX => Err(ModelError::Threads { threads }),
            threads => Ok(threads),
        }
    }
}

/// How far a load has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of the file's tensors that are ready.
    pub done_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`, or the empty text.
    pub name: String,
    /// The storage type of most weights, such as `Q4_1`.
    pub quantization: String,
    /// The longest sequence.
    pub context_tokens_max: u32,
    /// Tokens in the vocabulary.
    pub vocabulary_size: u32,
    /// Number of weights.
    pub parameters: u64,
    /// Number of transformer layers.
    pub layers: u32,
    /// Length of a token's vector.
    pub embedding_length: u32,
    /// Length of the vectors that [`Model::embed`] gives, for an encoder; a decoder gives none.
    pub embeddings: Option<u32>,
    /// Size of the file.
    pub file_bytes: u64,
    /// The engine that runs it, such as `exact/0 avx512-vnni 2 threads`; evidence, not part of any result.
    pub engine: String,
    /// The GPU that it runs on, if it does; evidence too.
    pub gpu: Option<GpuInfo>,
    /// Whether the file carries a chat template.
    pub has_chat_template: bool,
}

/// Why a file did not become a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file is not well-formed.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file is no archive of a model folder.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Its weights are no safetensors file.
    #[error("model.safetensors")]
    Safetensors(#[from] SafetensorsError),
    /// A file of the folder says what we cannot do, or what the others contradict.
    #[error("{file}: {reason}")]
    Config {
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Its vocabulary is not usable.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its chat template is not usable.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// An architecture that we do not have.
    #[error("architecture `{architecture}` is not supported, only {}", supported())]
    UnsupportedArchitecture {
        /// `general.architecture` of the file.
        architecture: String,
    },
    /// A metadata value out of range.
    #[error("metadata key `{key}` is {value}, wanted {wanted}")]
    Metadata {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        wanted: String,
    },
    /// A tensor's shape does not fit the metadata.
    #[error("tensor `{tensor}` has the shape {found:?}, wanted {wanted:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its dimensions, the fastest-moving first.
        found: Vec<u64>,
        /// What the metadata calls for.
        wanted: Vec<u64>,
    },
    /// A tensor that the architecture does not have; ignoring it would give wrong answers.
    #[error("tensor `{tensor}` is no part of the architecture's plan")]
    UnknownTensor {
        /// The tensor.
        tensor: String,
    },
    /// A weight or a scale is NaN or infinite.
    #[error("tensor `{tensor}` has a value that is not finite in row {row}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The row.
        row: usize,
    },
    /// A storage type that the engine cannot use there.
    #[error("tensor `{tensor}` is {}, which is not supported for {what}", quant.name())]
    UnsupportedQuant {
        /// The tensor.
        tensor: String,
        /// Its type.
        quant: QuantType,
        /// What it would be used for.
        what: &'static str,
    },
    /// A size the exact engine has no kernels for.
    #[error("{what} is {value}, the exact engine wants {wanted}")]
    UnsupportedSize {
        /// Which size.
        what: String,
        /// What it is.
        value: usize,
        /// What it may be.
        wanted: &'static str,
    },
    /// Kernels that this CPU cannot run were asked for.
    #[error(transparent)]
    Simd(#[from] SimdUnavailable),
    /// What was asked for runs on CPUs alone.
    #[error("{what} runs on the CPU only: ask for the device `cpu`")]
    CpuOnly {
        /// What it is.
        what: &'static str,
    },
    /// The fast profile was asked for an encoder.
    #[error("the fast profile runs decoders only")]
    DecodersOnly,
    /// Too many threads.
    #[error("{threads} threads, at most {THREADS_MAX} are allowed")]
    Threads {
        /// How many were asked for.
        threads: usize,
    },
    /// A thread could not be started.
    #[error("could not start a worker thread")]
    Spawn(#[source] std::io::Error),
    /// Memory ran out while loading.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A loaded model; share it by `Arc`.
#[derive(Debug)]
pub struct Model {
    info: ModelInfo,
    tokenizer: Tokenizer,
    chat: ChatTemplate,
    runner: Runner,
}

/// What runs a model.
#[derive(Debug)]
enum Runner {
    Decoder(Arc<Decoder>),
    Encoder(Encoder),
}

/// What embeds texts.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) plan: Arc<EncoderPlan>,
    pub(crate) backend: Box<dyn TextEncoder>,
}

/// What sessions run on.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) plan: Arc<Plan>,
    pub(crate) backend: Box<dyn Backend>,
}

impl Model {
    /// Opens, checks and loads a model file: a GGUF file, or the archive of a model folder
    /// ([`crate::archive`]); its first bytes say which.
    ///
    /// `progress` is called on this thread, about a hundred times at most.
    ///
    /// # Errors
    /// [`ModelError`]: the file is not a well-formed model that this build can run, or memory ran out.
    pub fn open(
        path: &Path,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        if is_archive(path) {
            Self::from_archive(Archive::open(path)?, options, progress)
        } else {
            Self::from_gguf(Gguf::open(path)?, options, progress)
        }
    }

    /// Loads an encoder from an archive that was opened before.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_archive(
        archive: Archive,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        if options.device != Device::Cpu {
            return Err(ModelError::CpuOnly { what: "an encoder" });
        }
        let threads = options.threads()?;
        let file_bytes = archive.size_bytes();
        let (plan, tokenizer) = bert::plan(&Arc::new(archive))?;
        let plan = Arc::new(plan);
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let (engine, backend): (String, Box<dyn TextEncoder>) = match options.engine {
            Engine::Fast => return Err(ModelError::DecodersOnly),
            Engine::Oracle => (
                "oracle".to_owned(),
                Box::new(OracleEncoder::new(Arc::clone(&plan))),
            ),
            Engine::Exact => {
                let simd = options.simd.resolve()?;
                let encoder = ExactEncoder::load(Arc::clone(&plan), threads, simd, progress)?;
                (exact_name(simd, threads), Box::new(encoder))
            }
        };
        Ok(Self {
            info: ModelInfo {
                architecture: "bert".to_owned(),
                name: String::new(),
                quantization: plan.quant().name().to_owned(),
                context_tokens_max: number(plan.tokens_max),
                vocabulary_size: number(tokenizer.len()),
                parameters: plan.parameters,
                layers: number(plan.layers.len()),
                embedding_length: number(plan.length),
                embeddings: Some(number(plan.length)),
                file_bytes,
                engine,
                gpu: None,
                has_chat_template: false,
            },
            tokenizer,
            chat: ChatTemplate::new(None, BTreeMap::new())?,
            runner: Runner::Encoder(Encoder { plan, backend }),
        })
    }

    /// Loads a model from a file that was opened before.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_gguf(
        gguf: Gguf,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        let threads = options.threads()?;
        let architecture = gguf.string_needed("general.architecture")?.to_owned();
        let Some(kind) = decoder::Architecture::from_name(&architecture) else {
            return Err(ModelError::UnsupportedArchitecture { architecture });
        };
        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let chat = chat_template(&gguf, &tokenizer)?;
        let plan = Arc::new(decoder::plan(&gguf, kind, tokenizer.len())?);
        let mut info = info(&gguf, &plan, architecture)?;
        let gguf = Arc::new(gguf);
        let backend: Box<dyn Backend> = match (options.engine, &options.device) {
            (Engine::Oracle, Device::Gpu(_)) => {
                return Err(ModelError::CpuOnly { what: "the oracle" });
            }
            (Engine::Exact, Device::Gpu(gpu)) => {
                info.engine = format!("{} {}", crate::exact_profile(), gpu.info());
                info.gpu = Some(gpu.info().clone());
                let plan = Arc::clone(&plan);
                Box::new(gpu::load(gpu, true, gguf, plan, progress)?)
            }
            (Engine::Fast, Device::Gpu(gpu)) => {
                info.engine = format!("fast {}", gpu.info());
                info.gpu = Some(gpu.info().clone());
                let plan = Arc::clone(&plan);
                Box::new(gpu::load(gpu, false, gguf, plan, progress)?)
            }
            (Engine::Oracle, Device::Cpu) => {
                info.engine = format!("oracle {threads} threads");
                let total_bytes = gguf.size_bytes();
                progress(LoadProgress {
                    done_bytes: total_bytes,
                    total_bytes,
                });
                Box::new(Oracle::new(gguf, Arc::clone(&plan), threads))
            }
            (engine, Device::Cpu) => {
                let simd = options.simd.resolve()?;
                let precision = match engine {
                    Engine::Fast => Precision::Fast,
                    Engine::Exact | Engine::Oracle => Precision::Exact,
                };
                info.engine = match precision {
                    Precision::Fast => format!("fast {} {threads} threads", simd.name()),
                    Precision::Exact => exact_name(simd, threads),
                };
                let (plan, kernels) = (Arc::clone(&plan), (simd, precision));
                Box::new(exact::load(
                    gguf,
                    plan,
                    threads,
                    kernels,
                    options.packed.as_ref(),
                    &options.context_memory,
                    progress,
                )?)
            }
        };
        Ok(Self {
            info,
            tokenizer,
            chat,
            runner: Runner::Decoder(Arc::new(Decoder { plan, backend })),
        })
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Bytes of the matrices that a step reads, each once, as the file stores them: without the embeddings
    /// that are only looked up, and without what sessions hold. `None` of an encoder.
    pub fn weight_bytes(&self) -> Option<u64> {
        let matrices = self.decoder()?.plan.matrices();
        Some(matrices.map(|it| (it.rows * it.row_bytes()) as u64).sum())
    }

    /// How many dispatches a GPU takes for a generated token; `None` where none runs it.
    pub fn dispatches_per_token(&self) -> Option<usize> {
        self.decoder()?.backend.dispatches_per_token()
    }

    /// Text to token ids and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The prompt for a conversation, by the model's own template.
    /// The template writes special tokens out, and messages may forge them: use [`Model::encode_chat`]
    /// for messages from outside.
    ///
    /// # Errors
    /// [`ChatError`]: the model has no template, or the template refuses or overruns a limit.
    pub fn render_chat(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        self.chat.render(messages, add_generation_prompt)
    }

    /// The token ids of a conversation's prompt.
    ///
    /// Special tokens come from the template alone: where a message has the text of one, such as
    /// `<|im_end|>`, it is read as text and cannot end its turn.
    ///
    /// # Errors
    /// As [`Model::render_chat`], and [`ChatError::Tokenize`].
    pub fn encode_chat(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<Vec<TokenId>, ChatError> {
        let mark = crate::chat::mark(messages)?;
        let disarm = |text: &str| self.tokenizer.disarm(text, mark);
        let disarmed: Vec<ChatMessage> = messages
            .iter()
            .map(|message| ChatMessage {
                role: disarm(&message.role),
                content: disarm(&message.content),
            })
            .collect();
        let prompt = self.chat.render(&disarmed, add_generation_prompt)?;
        let bos = self
            .tokenizer
            .bos()
            .map(|bos| self.tokenizer.token_bytes(bos));
        let has_bos = bos.is_some_and(|bos| prompt.as_bytes().starts_with(bos));
        let options = EncodeOptions {
            add_bos: if has_bos {
                AddBos::Never
            } else {
                AddBos::ByMetadata
            },
            parse_special: true,
        };
        Ok(self
            .tokenizer
            .encode_without(Some(mark), &prompt, options)?)
    }

    pub(crate) fn decoder(&self) -> Option<&Arc<Decoder>> {
        match &self.runner {
            Runner::Decoder(decoder) => Some(decoder),
            Runner::Encoder(_) => None,
        }
    }

    pub(crate) fn encoder(&self) -> Option<&Encoder> {
        match &self.runner {
            Runner::Decoder(_) => None,
            Runner::Encoder(encoder) => Some(encoder),
        }
    }
}

/// The architectures that a GGUF file may have.
fn supported() -> String {
    let names = decoder::Architecture::NAMES.map(|(name, _)| format!("`{name}`"));
    names.join(", ")
}

/// Whether the file's first bytes are an archive's; a file that cannot be read is not, and whoever opens
/// it says why.
fn is_archive(path: &Path) -> bool {
    let mut first = [0; 512];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && Archive::is_archive(&first)
}

fn exact_name(simd: SimdLevel, threads: usize) -> String {
    format!(
        "{} {} {threads} threads",
        crate::exact_profile(),
        simd.name()
    )
}

fn chat_template(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<ChatTemplate, ModelError> {
    let mut special = BTreeMap::new();
    for (name, key) in [("bos_token", "bos"), ("eos_token", "eos")] {
        if let Some(id) = gguf.u32(&format!("tokenizer.ggml.{key}_token_id"))? {
            let text = tokenizer.token_bytes(TokenId(id));
            special.insert(name, String::from_utf8_lossy(text).into_owned());
        }
    }
    Ok(ChatTemplate::new(
        gguf.string("tokenizer.chat_template")?,
        special,
    )?)
}

fn info(gguf: &Gguf, plan: &Plan, architecture: String) -> Result<ModelInfo, ModelError> {
    let mut elements_of: BTreeMap<&str, u64> = BTreeMap::new();
    let mut parameters = 0;
    for (_, tensor) in gguf.tensors() {
        parameters += tensor.elements();
        *elements_of.entry(tensor.quant.name()).or_default() += tensor.elements();
    }
    let most = elements_of
        .into_iter()
        .max_by_key(|(_, elements)| *elements);
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    Ok(ModelInfo {
        architecture,
        name: gguf.string("general.name")?.unwrap_or_default().to_owned(),
        quantization: most.map_or(String::new(), |(name, _)| name.to_owned()),
        context_tokens_max: plan.context_tokens_max,
        vocabulary_size: number(plan.vocabulary()),
        parameters,
        layers: number(plan.layers.len()),
        embedding_length: number(plan.embedding_length),
        embeddings: None,
        file_bytes: gguf.size_bytes(),
        engine: String::new(),
        gpu: None,
        has_chat_template: gguf.has("tokenizer.chat_template"),
    })
}
