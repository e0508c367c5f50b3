//! Commands on `wasi:nn`.
//!
//! In: words. Out: what the host said. A tensor is `name:TYPE:dimensions:content`, where
//! content is a number, `xN` for N zero bytes, or a text, with `_` for spaces.

use crate::{
    Said,
    bindings::wasi::nn::{
        errors,
        graph::{self, ExecutionTarget, Graph, GraphEncoding},
        inference::GraphExecutionContext,
        tensor::{Tensor, TensorType},
    },
};

#[derive(Default)]
pub(crate) struct State {
    graph: Option<Graph>,
    context: Option<GraphExecutionContext>,
    kept: Vec<Tensor>,
}

fn refused(error: errors::Error) -> String {
    format!("{:?}: {}", error.code(), error.data()).replacen("ErrorCode::", "", 1)
}

fn tensor(word: &str) -> Result<(String, Tensor), String> {
    let parts: Vec<&str> = word.splitn(4, ':').collect();
    let &[name, ty, dimensions, content] = parts.as_slice() else {
        return Err(format!("{word} is no tensor"));
    };
    let ty = match ty {
        "FP16" => TensorType::Fp16,
        "FP32" => TensorType::Fp32,
        "FP64" => TensorType::Fp64,
        "BF16" => TensorType::Bf16,
        "U8" => TensorType::U8,
        "I32" => TensorType::I32,
        "I64" => TensorType::I64,
        _ => return Err(format!("{ty} is no type")),
    };
    let content = content.replace('_', " ");
    let zeros = content
        .strip_prefix('x')
        .and_then(|count| count.parse().ok());
    let data = match (zeros, ty) {
        (Some(count), _) => vec![0; count],
        (None, TensorType::U8) => content.into_bytes(),
        (None, TensorType::I32) => content.parse::<i32>().unwrap_or(0).to_le_bytes().to_vec(),
        (None, TensorType::I64) => content.parse::<i64>().unwrap_or(0).to_le_bytes().to_vec(),
        (None, TensorType::Fp64) => content.parse::<f64>().unwrap_or(0.0).to_le_bytes().to_vec(),
        (None, _) => content.parse::<f32>().unwrap_or(0.0).to_le_bytes().to_vec(),
    };
    let dimensions: Vec<u32> = match dimensions {
        "" => vec![],
        "?" => vec![u32::try_from(data.len()).unwrap_or(0)],
        list => list
            .split(',')
            .map(|size| size.parse().unwrap_or(0))
            .collect(),
    };
    Ok((name.to_owned(), Tensor::new(&dimensions, ty, &data)))
}

impl State {
    pub(crate) fn command(&mut self, words: &[&str]) -> Said {
        match words[0] {
            "nn-load" => {
                let graph = graph::load_by_name(words[1]).map_err(refused)?;
                self.context = Some(graph.init_execution_context().map_err(refused)?);
                self.graph = Some(graph);
                Ok(String::new())
            }
            "nn-load-bytes" => {
                let builder = [b"GGUF".to_vec()];
                let loaded = graph::load(&builder, GraphEncoding::Ggml, ExecutionTarget::Cpu);
                loaded.map(|_| String::new()).map_err(refused)
            }
            "nn-compute" => {
                let context = self.context.as_ref().ok_or("no context is open")?;
                let inputs = words[1..].iter().map(|word| tensor(word));
                let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
                let outputs = context.compute(inputs).map_err(refused)?;
                let shown = outputs.iter().map(|(name, tensor)| {
                    format!("{name} {:?} {:?}", tensor.ty(), tensor.dimensions())
                });
                Ok(shown.collect::<Vec<_>>().join(", "))
            }
            "nn-many" => {
                let context = self.context.as_ref().ok_or("no context is open")?;
                let count: usize = crate::number(words, 1)?;
                let inputs = (0..count).map(|_| tensor("text:U8:?:hi"));
                let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
                context
                    .compute(inputs)
                    .map(|_| String::new())
                    .map_err(refused)
            }
            "nn-keep" => {
                self.kept.push(tensor(words[1])?.1);
                Ok(self
                    .kept
                    .last()
                    .map_or(0, |tensor| tensor.data().len())
                    .to_string())
            }
            other => Err(format!("{other} is no command")),
        }
    }
}
