//! The cases of `bad_input.rs`.
//!
//! In: nothing. Out: what a job does, one line each, and what comes back. The model that they
//! use has random weights: 512 tokens, of which 0 to 2 are special, and 256 tokens of context.

/// Commands, and what the last of them says.
pub(super) type Case = (&'static [&'static str], &'static str);

/// What a host call answers. The model holds 256 tokens, and `hello` is 4 of them.
pub(super) const ANSWERS: &[Case] = &[
    (
        &["load nobody"],
        "UnknownModel: the manifest names no model `nobody`; it names: tiny",
    ),
    (
        &["load "],
        "UnknownModel: the manifest names no model ``; it names: tiny",
    ),
    (
        &["load ../tiny"],
        "UnknownModel: the manifest names no model `../tiny`; it names: tiny",
    ),
    // Contexts, and prompts at their edge.
    (
        &["open ctx=0"],
        "InvalidArgument: a context has at least 1 token",
    ),
    (&["open ctx=1"], "ok"),
    (&["open ctx=256"], "ok"),
    (&["open max-ctx="], "ok"),
    (
        &["open ctx=257"],
        "InvalidArgument: a context of 257 tokens was asked for, the model was made for 256",
    ),
    (
        &["open ctx=4294967295"],
        "InvalidArgument: a context of 4294967295 tokens was asked for, the model was made for 256",
    ),
    (&["open ctx=10", "tokens 0 9", "next 0"], "ok 1 tokens"),
    (
        &["open ctx=10", "tokens 0 9", "next 0", "next 0"],
        "ok none",
    ),
    (&["open ctx=10", "tokens 0 10"], "ok"),
    (
        &["open ctx=10", "tokens 0 10", "all 0"],
        "ok 0 tokens, Some(FinishReason::Length)",
    ),
    (
        &["open ctx=10", "tokens 0 10", "candidates 0 3"],
        "ok 3 in order: true",
    ),
    (
        &["open ctx=10", "tokens 0 10", "accept 0 5"],
        "ContextFull: context is full: 10 of 10 tokens are used, 1 more were asked for",
    ),
    (
        &["open ctx=10", "tokens 0 11"],
        "ContextFull: context is full: 0 of 10 tokens are used, 11 more were asked for",
    ),
    (&["open ctx=10", "tokens 0 11", "tokens 0 10"], "ok"),
    // Empty prompts.
    (&["open", "text 0 "], "ok 0"),
    (
        &["open", "next 0"],
        "InvalidArgument: the session is empty: append a prompt first",
    ),
    (
        &["open", "text 0 ", "all 0"],
        "InvalidArgument: the session is empty: append a prompt first",
    ),
    (
        &["open", "tokens 0 0", "candidates 0 1"],
        "InvalidArgument: the session is empty: append a prompt first",
    ),
    (
        &["open", "chat 0", "all 0"],
        "ok 1 tokens, Some(FinishReason::EndOfText)",
    ),
    (&["open", "accept 0 100"], "ok"),
    // Sampling.
    (
        &["open temp=0 gen=4", "text 0 hello", "all 0"],
        "ok 4 tokens, Some(FinishReason::Length)",
    ),
    (&["open temp=-0"], "ok"),
    (
        &["open temp=NaN"],
        "InvalidArgument: temperature is NaN, wanted 0 for the most likely token, or 0.001 to 100",
    ),
    (
        &["open temp=-1"],
        "InvalidArgument: temperature is -1, wanted 0 for the most likely token, or 0.001 to 100",
    ),
    (
        &["open temp=inf"],
        "InvalidArgument: temperature is inf, wanted 0 for the most likely token, or 0.001 to 100",
    ),
    (
        &["open temp=100.5"],
        "InvalidArgument: temperature is 100.5, wanted 0 for the most likely token, or 0.001 to 100",
    ),
    (
        // So cold that the likeliest is drawn, and whichever seed this host draws ends no text early.
        &["open temp=0.001 topk=0 gen=4", "text 0 hello", "all 0"],
        "ok 4 tokens, Some(FinishReason::Length)",
    ),
    (
        &[
            "open temp=0.001 topk=4294967295 gen=4",
            "text 0 hello",
            "all 0",
        ],
        "ok 4 tokens, Some(FinishReason::Length)",
    ),
    (
        &["open temp=1 topp=0"],
        "InvalidArgument: top-p is 0, wanted 0.001 to 1",
    ),
    (
        &["open temp=1 topp=NaN"],
        "InvalidArgument: top-p is NaN, wanted 0.001 to 1",
    ),
    (
        &["open temp=1 minp=1.5"],
        "InvalidArgument: min-p is 1.5, wanted 0, or 0.000001 to 1",
    ),
    (
        &["open pen=0"],
        "InvalidArgument: repetition penalty is 0, wanted 0.001 to 100",
    ),
    (
        &["open pen=NaN"],
        "InvalidArgument: repetition penalty is NaN, wanted 0.001 to 100",
    ),
    // Seeds: the same one says the same, another something else.
    (
        &[
            "open temp=1 seed=7 gen=16",
            "text 0 hello",
            "all 0",
            "open temp=1 seed=7 gen=16",
            "text 1 hello",
            "all 1",
            "same 0 1",
        ],
        "ok true",
    ),
    (
        &[
            "open temp=1 seed=7 gen=16",
            "text 0 hello",
            "all 0",
            "open temp=1 seed=18446744073709551615 gen=16",
            "text 1 hello",
            "all 1",
            "same 0 1",
        ],
        "ok false",
    ),
    // Stop texts.
    (
        &["open stop="],
        "InvalidArgument: a stop string has 0 bytes, wanted 1 to 1024",
    ),
    (&["open longstop=1024"], "ok"),
    (
        &["open longstop=1025"],
        "InvalidArgument: a stop string has 1025 bytes, wanted 1 to 1024",
    ),
    (&["open stops=16"], "ok"),
    (
        &["open stops=17"],
        "InvalidArgument: 17 stop strings, at most 16 are allowed",
    ),
    (
        &["open gen=24", "text 0 hello", "all 0", "stop-at-a-border 0"],
        "ok Some(FinishReason::Stop), and the text up to it: true",
    ),
    // Whole characters, though the model's tokens are bytes.
    (
        &["open ctx=200", "text 0 hello", "all 0", "is-its-tokens 0"],
        "ok true",
    ),
    (
        &[
            "open ctx=200 temp=2 seed=3",
            "text 0 hello",
            "all 0",
            "is-its-tokens 0",
        ],
        "ok true",
    ),
    // Tokens.
    (&["open", "tokens 0 1 511"], "ok"),
    (
        &["open", "tokens 0 1 512"],
        "InvalidArgument: token 512 is not in the model's vocabulary of 512",
    ),
    (
        &["open", "tokens 0 1 4294967295"],
        "InvalidArgument: token 4294967295 is not in the model's vocabulary of 512",
    ),
    (
        &["open", "accept 0 512"],
        "InvalidArgument: token 512 is not in the model's vocabulary of 512",
    ),
    (
        &["detokenize 512"],
        "InvalidArgument: token 512 is not in the model's vocabulary of 512",
    ),
    (&["detokenize"], "ok 0 bytes"),
    (&["tokenize"], "ok []"),
    (
        &["open", "text 0 hello", "candidates 0 0"],
        "InvalidArgument: 0 candidates were asked for, 1 to 1024 can be",
    ),
    (
        &["open", "text 0 hello", "candidates 0 1024"],
        "ok 512 in order: true",
    ),
    (
        &["open", "text 0 hello", "candidates 0 1025"],
        "InvalidArgument: 1025 candidates were asked for, 1 to 1024 can be",
    ),
    // Forks of forks: each goes on as the first does, and none disturbs another.
    (
        &[
            "open gen=8",
            "text 0 hello",
            "fork 0",
            "fork 1",
            "fork 2",
            "all 3",
            "all 0",
            "same 0 3",
        ],
        "ok true",
    ),
    (
        &[
            "open gen=8",
            "text 0 hello",
            "fork 0",
            "close 0",
            "fork 1",
            "close 1",
            "all 2",
        ],
        "ok 8 tokens, Some(FinishReason::Length)",
    ),
    (
        &[
            "open ctx=10",
            "tokens 0 9",
            "fork 0",
            "accept 1 5",
            "fork 1",
            "accept 2 5",
        ],
        "ContextFull: context is full: 10 of 10 tokens are used, 1 more were asked for",
    ),
    // A decoder makes no embeddings.
    (
        &["embed refuse hello"],
        "UnsupportedOperation: a model of architecture `llama` makes no embeddings",
    ),
    (
        &["embed cut -"],
        "UnsupportedOperation: a model of architecture `llama` makes no embeddings",
    ),
    (
        &["embed refuse"],
        "UnsupportedOperation: a model of architecture `llama` makes no embeddings",
    ),
    // The standard interface.
    (
        &["nn-load nobody"],
        "NotFound: the manifest names no model `nobody`; it names: tiny",
    ),
    (
        &["nn-load blake3:00"],
        "InvalidArgument: `blake3:00` is no digest: a digest has 64 hex digits, this has 2",
    ),
    (
        &["nn-load blake3:0000000000000000000000000000000000000000000000000000000000000000"],
        "Security: the manifest has no model blake3:0000000000000000000000000000000000000000000000000000000000000000: a job loads only what its manifest lists",
    ),
    (
        &["nn-load-bytes"],
        "UnsupportedOperation: models are named, not passed: list the model in tussah.toml and load it by its name",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:?:hi max_tokens:I32::3"],
        "ok text TensorType::U8 [7], tokens TensorType::I32 [3]",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:?:hi max_tokens:U8::x1"],
        "ok text TensorType::U8 [0], tokens TensorType::I32 [0]",
    ),
    (
        &[
            "nn-load tiny",
            "nn-compute text:U8:?:hi outputs:U8:?:logits",
        ],
        "ok logits TensorType::Fp32 [512]",
    ),
    (
        &["nn-load tiny", "nn-compute"],
        "InvalidArgument: exactly one of the inputs `text`, `tokens` and `chat` is needed: it is the prompt",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:0:"],
        "InvalidArgument: the prompt is empty: a completion needs at least one token to go on from",
    ),
    (
        &["nn-load tiny", "nn-compute tokens:I32:0:x0"],
        "InvalidArgument: the prompt is empty: a completion needs at least one token to go on from",
    ),
    (
        &["nn-load tiny", "nn-compute tokens:I64::512"],
        "InvalidArgument: token 512 is not in the model's vocabulary of 512",
    ),
    (
        &[
            "nn-load tiny",
            "nn-compute tokens:I32:256:x1024 max_tokens:I32::0",
        ],
        "ok text TensorType::U8 [0], tokens TensorType::I32 [0]",
    ),
    (
        &["nn-load tiny", "nn-compute tokens:I32:257:x1028"],
        "TooLarge: the prompt has 257 tokens, the model was made for 256",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:?:hi text:U8:?:hi"],
        "InvalidArgument: input `text` is given twice",
    ),
    (
        &["nn-load tiny", "nn-compute image:U8:?:hi"],
        "InvalidArgument: this model has no input `image`; it has: text, tokens, chat, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, outputs",
    ),
    (
        &["nn-load tiny", "nn-compute text:FP32::1"],
        "InvalidArgument: tensor `text` is FP32, wanted U8, the bytes of a text",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:3:x5"],
        "InvalidArgument: tensor `text` has 5 bytes of data, its dimensions [3] of U8 call for 3",
    ),
    (
        &[
            "nn-load tiny",
            "nn-compute text:U8:4294967295,4294967295,2:x5",
        ],
        "TooLarge: tensor `text` has the dimensions [4294967295, 4294967295, 2]: their product has no place in 64 bits",
    ),
    (
        &[
            "nn-load tiny",
            "nn-compute text:U8:1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1:x1",
        ],
        "InvalidArgument: tensor `text` has 17 dimensions, at most 16 are allowed",
    ),
    (
        &["nn-load tiny", "nn-compute chat:U8:?:{"],
        "InvalidEncoding: input `chat` is not a JSON array of {\"role\": …, \"content\": …}: invalid type: map, expected a sequence at line 1 column 0",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:?:hi max_tokens:I32::-1"],
        "InvalidArgument: input `max_tokens` is -1, wanted 0 to 4294967295",
    ),
    (
        &[
            "nn-load tiny",
            "nn-compute text:U8:?:hi temperature:FP64::NaN",
        ],
        "InvalidArgument: temperature is NaN, wanted 0 for the most likely token, or 0.001 to 100",
    ),
    (
        &[
            "nn-load tiny",
            "nn-compute text:U8:?:hi outputs:U8:?:scores",
        ],
        "InvalidArgument: input `outputs` names `scores`; there is: text, tokens, logits",
    ),
    (
        &["nn-load tiny", "nn-many 65"],
        "InvalidArgument: 65 tensors were passed, at most 64 are allowed",
    ),
    // A refusal spoils nothing: the next call is fine.
    (
        &[
            "nn-load tiny",
            "nn-compute",
            "nn-compute text:U8:?:hi outputs:U8:?:logits",
        ],
        "ok logits TensorType::Fp32 [512]",
    ),
];

/// Commands, a limit to set, the exit code, and a part of what is said.
pub(super) type Ending = (&'static [&'static str], &'static str, i32, &'static str);

/// What ends a job. Each line that comes back is output too: `ok` and its line end are 3 bytes.
pub(super) const ENDINGS: &[Ending] = &[
    (&[], "output_bytes_max = 1", 0, ""),
    (&["emit 10"], "output_bytes_max = 13", 0, ""),
    (
        &["emit 10"],
        "output_bytes_max = 12",
        4,
        "limits.output_bytes_max",
    ),
    (
        &["emit 2000000"],
        "output_bytes_max = 1000",
        4,
        "limits.output_bytes_max",
    ),
    (
        &["load tiny", "open", "text 0 a", "close-and-use 0"],
        "",
        1,
        "misused a host call",
    ),
    (
        &["load tiny", "open", "text 0 hello"],
        "inference_units_max = 0",
        4,
        "limits.inference_units_max",
    ),
    (
        &["load tiny", "open", "text 0 hello", "all 0"],
        "inference_units_max = 2_000_000",
        4,
        "limits.inference_units_max",
    ),
    (
        &["load tiny", "open", "text 0 hello", "all 0"],
        "host_calls_max = 9",
        4,
        "limits.host_calls_max",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:?:hello"],
        "inference_units_max = 1_000",
        4,
        "limits.inference_units_max",
    ),
    (
        &["nn-keep t:U8:?:x1000"],
        "model_memory_bytes_max = 1004",
        0,
        "",
    ),
    (
        &["nn-keep t:U8:?:x1000"],
        "model_memory_bytes_max = 1003",
        4,
        "limits.model_memory_bytes_max",
    ),
    (&["nn-keep t:U8:?:x3000000"], "", 1, "misused a host call"),
    (
        &["load tiny", "open ctx=256"],
        "fuel_max = 1000",
        4,
        "limits.fuel_max",
    ),
];

/// Limits that a guest can answer by asking for less.
pub(super) const REFUSALS: &[Ending] = &[
    (
        &["load tiny", "open ctx=256"],
        "model_memory_bytes_max = 1000",
        0,
        "LimitExceeded: a context of 256 tokens takes",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:?:hi max_tokens:I32::9"],
        "model_memory_bytes_max = 1000",
        0,
        "TooLarge: a context of",
    ),
];

/// Chat templates, and what a model that has one says to a message.
pub(super) const TEMPLATES: &[(&str, &str)] = &[
    (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "UnsupportedOperation: the model's chat template used more than its 1000000 units of fuel",
    ),
    (
        // Making text takes fuel for its length, too.
        "{% for i in range(9999) %}{{ 'long text ' * 9999 }}{% endfor %}",
        "UnsupportedOperation: the model's chat template used more than its 1000000 units of fuel",
    ),
    (
        "{% set text = 'long text ' * 9999 %}{% for i in range(9999) %}{{ text }}{% endfor %}",
        "UnsupportedOperation: the prompt is longer than 16777216 bytes",
    ),
    (
        "{{ messages | sort_by_magic }}",
        "UnsupportedOperation: the model's chat template failed: unknown filter",
    ),
    (
        "{{ messages[0].content.encode() }}",
        "UnsupportedOperation: the model's chat template failed: unknown method",
    ),
    (
        "{{ raise_exception('no') }}",
        "UnsupportedOperation: the model's chat template failed: invalid operation: no",
    ),
    (
        "{{ strftime_now('%Y') }}",
        "UnsupportedOperation: the model's chat template failed: invalid operation: the template asks for the time",
    ),
    (
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "UnsupportedOperation: the model's chat template failed",
    ),
];

/// What an encoder answers; MiniLM takes 256 tokens a text and gives vectors of 384 values.
pub(super) const ENCODER: &[Case] = &[
    (&["embed refuse hello"], "ok [384] of length 1: true"),
    (&["embed refuse -"], "ok [384] of length 1: true"),
    (&["embed refuse"], "ok [] of length 1: true"),
    (
        &["embed refuse a hello*254"],
        "ok [384, 384] of length 1: true",
    ),
    (
        &["embed refuse a hello*255"],
        "ContextFull: text 1 has 257 tokens, the model takes 256: cut it, or ask for it to be cut",
    ),
    (
        &["embed cut a hello*255"],
        "ok [384, 384] of length 1: true",
    ),
    (
        &["open ctx=10"],
        "UnsupportedOperation: a model of architecture `bert` generates no text, it only embeds",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:0:"],
        "ok embedding TensorType::Fp32 [1, 384]",
    ),
    (
        &["nn-load tiny", "nn-compute texts:U8:?:[\"a\",\"\"]"],
        "ok embedding TensorType::Fp32 [2, 384]",
    ),
    (
        &["nn-load tiny", "nn-compute texts:U8:?:[]"],
        "ok embedding TensorType::Fp32 [0, 384]",
    ),
    (
        &["nn-load tiny", "nn-compute text:U8:?:a texts:U8:?:[]"],
        "InvalidArgument: exactly one of the inputs `text` and `texts` is needed",
    ),
    (
        &["nn-load tiny", "nn-compute chat:U8:?:[]"],
        "InvalidArgument: this model has no input `chat`; it has: text, texts, cut",
    ),
];
